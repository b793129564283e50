"""Finds connections that are open and dead, by pings: for the library that does not do so itself.

A cable that is pulled ends no TCP connection: whoever only listens would wait for hours and take
no other way. p2pd's multiplexer asks every 30 s; py-libp2p's never does.
Source: libp2p's ping, https://github.com/libp2p/specs/blob/master/ping/ping.md
"""

import secrets
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Protocol

import anyio

from swarmnode.swarm.fetching import Opener
from swarmnode.swarm.host import HostError, StreamCut

PROTOCOL = "/ipfs/ping/1.0.0"
_PING_BYTES = 32
# Pings that are not answered until a connection counts as dead: after about a minute. Sooner would
# end connections of machines whose cores are all busy, one missed answer is none.
_PAUSE_S, _ANSWER_S, _MISSED = 10.0, 20, 2


class Pinged(Opener, Protocol):
    """What is needed of a host."""

    async def peers(self) -> list[str]: ...


async def end_the_dead(
    host: Pinged, disconnect: Callable[[str], Awaitable[None]], pause_s: float = _PAUSE_S
) -> None:
    """Pings every connected peer, for ever, and disconnects from those that do not answer."""
    missed: Counter[str] = Counter()
    while True:
        await anyio.sleep(pause_s)
        peers = await host.peers()
        missed = Counter({peer: missed[peer] for peer in peers})
        async with anyio.create_task_group() as tasks:
            for peer in peers:
                tasks.start_soon(_note, host, peer, missed)
        for peer in peers:
            if missed[peer] >= _MISSED:
                await disconnect(peer)


async def _note(host: Opener, peer: str, missed: Counter[str]) -> None:
    missed[peer] = 0 if await answers(host, peer) else missed[peer] + 1


async def answers(host: Opener, peer: str, timeout_s: int = _ANSWER_S) -> bool:
    """Whether `peer` says anything at all in time; one that knows no pings does, too."""
    try:
        with anyio.fail_after(timeout_s):
            async with host.stream(peer, PROTOCOL, timeout_s) as stream:
                await stream.write(secrets.token_bytes(_PING_BYTES))
                await stream.read_exactly(_PING_BYTES)
    except TimeoutError:
        return False
    except HostError as error:
        return str(error) != "timed out"
    except StreamCut:
        return True
    return True
