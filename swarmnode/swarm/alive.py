"""Finds connections that are open and dead, or of no use: for libraries that do not do so.

A cable that is pulled ends no TCP connection: whoever only listens would wait for hours and take
no other way. p2pd's multiplexer asks every 30 s and waits 10 s; py-libp2p's never does. Each
connection is asked for itself: a peer that came back by a new one would answer there while its
gossip still goes into the dead one. And where one of several connections to a peer ends, py-libp2p
0.8.1 may forget what the peer subscribes to, or go on writing its gossip to the one that ended:
such a peer is parted with, and met again a moment later. p2pd does the like: where the connection
ends that its own gossip went over, it forgets what the peer subscribes to, and the peer, which has
another one, has no reason to say it again.
Source: libp2p's ping, https://github.com/libp2p/specs/blob/master/ping/ping.md
"""

import math
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Sequence
from collections.abc import Set as AbstractSet
from typing import TypeVar

import anyio

PROTOCOL = "/ipfs/ping/1.0.0"
PING_BYTES = 32
# A connection is dead after two pings in a row without an answer, 28 to 38 s after it died, which
# is p2pd's. One missed answer is none: machines whose cores are all busy are that slow.
_PAUSE_S, _ANSWER_S, _MISSED = 10.0, 9.0, 2

C = TypeVar("C", bound=Hashable)


async def end_the_dead(
    connections: Callable[[], Sequence[C]],
    answers: Callable[[C], Awaitable[bool]],
    end: Callable[[C], Awaitable[None]],
    pause_s: float = _PAUSE_S,
    answer_s: float = _ANSWER_S,
) -> None:
    """Pings every connection, for ever, and ends those that do not answer. `answers` returns
    whether the other end said anything at all; it is cancelled after `answer_s`."""
    missed: Counter[C] = Counter()

    async def ask(connection: C) -> None:
        is_alive = False
        with anyio.move_on_after(answer_s):
            is_alive = await answers(connection)
        missed[connection] = 0 if is_alive else missed[connection] + 1
        if missed[connection] >= _MISSED:
            await end(connection)

    due = -math.inf
    while True:
        await anyio.sleep(max(0.0, due - anyio.current_time()))
        due = anyio.current_time() + pause_s
        now = connections()
        missed = Counter({connection: missed[connection] for connection in now})
        async with anyio.create_task_group() as tasks:
            for connection in now:
                tasks.start_soon(ask, connection)


class Torn:
    """Knows which peers are connected and yet lost to gossip, for `patience_s` or longer."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._since: dict[str, float] = {}

    def look(self, silent: AbstractSet[str], now: float) -> list[str]:
        """The peers to part with; `silent` are those without gossip now."""
        self._since = {peer: self._since.get(peer, now) for peer in silent}
        waited = [peer for peer, since in self._since.items() if now - since >= self._patience_s]
        for peer in waited:
            del self._since[peer]
        return waited


class Estranged:
    """Knows which peers are connected, took part in the swarm, and have not for `patience_s`."""

    def __init__(self, patience_s: float) -> None:
        self._torn = Torn(patience_s)
        self._took_part: AbstractSet[str] = frozenset()

    def look(self, connected: AbstractSet[str], members: AbstractSet[str], now: float) -> list[str]:
        """The peers to part with. All peers are as seen at `now` (seconds)."""
        self._took_part = (self._took_part | members) & connected
        return self._torn.look(self._took_part - members, now)
