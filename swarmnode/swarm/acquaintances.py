"""Peer exchange (SPEC.md section 7): whom a node tells that it knows, and asking others.

What a peer tells is dialled, a bounded number of it, and otherwise not believed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import anyio

from protocol import codec
from protocol.errors import ProtocolError
from protocol.limits import (
    BLOCK_HEADER_BYTES,
    MAX_ADDRESS_BYTES,
    MAX_PEER_ADDRESSES,
    MAX_PEERS_BYTES,
)
from swarmnode.swarm.bounded import Budget
from swarmnode.swarm.host import Host, HostError, Stream, StreamCut
from swarmnode.swarm.reach import Reach, Scope, scope_of, scope_of_neighbour, split

_OPEN_S = 8
_ANSWER_S = 5.0
_PER_PEER_TOLD = 2  # addresses of one acquaintance; of the teller itself all that are usable
_ANSWERS, _WINDOW_S = 6, 60.0  # to one peer; an honest one asks every few minutes


@dataclass(frozen=True, slots=True)
class Told:
    """What one peer said: where it is itself, and whom else it is connected to."""

    own: tuple[str, ...]
    others: dict[str, list[str]]


class Teller:
    """Answers those who ask. `own` and `others` give addresses without and with their peer."""

    def __init__(
        self,
        own_id: str,
        own: Callable[[], Sequence[str]],
        others: Callable[[], dict[str, tuple[str, ...]]],
        now: Callable[[], float],
    ) -> None:
        self._own_id = own_id
        self._own = own
        self._others = others
        self._now = now
        self._budget = Budget(_ANSWERS, _WINDOW_S)

    async def serve(self, stream: Stream) -> None:
        if not self._budget.allows(stream.peer, self._now()):
            return
        try:
            with anyio.fail_after(_ANSWER_S):
                header = await stream.read_exactly(BLOCK_HEADER_BYTES)
                codec.block_length(header, 0)
                answer = codec.encode_peers(self._answer(stream))
                await stream.write(codec.encode_block(answer))
                await stream.until_closed()
        except (StreamCut, ProtocolError, TimeoutError):
            return  # it gets no answer, or has it

    def _answer(self, asker: Stream) -> list[str]:
        scope = scope_of_neighbour(asker.address)
        told = [f"{a}/p2p/{self._own_id}" for a in _within(self._own(), scope)]
        for peer, addresses in self._others().items():
            if peer != asker.peer:
                told += [f"{a}/p2p/{peer}" for a in _within(addresses, scope)[:_PER_PEER_TOLD]]
        return [text for text in told if len(text) <= MAX_ADDRESS_BYTES][:MAX_PEER_ADDRESSES]


async def ask(host: Host, peer: str, protocol: str, own_id: str, reach: Reach) -> Told:
    """What `peer` knows; addresses that this node does not dial are left out.

    Raises `HostError` when it does not answer.
    """
    try:
        with anyio.fail_after(_ANSWER_S):
            async with host.stream(peer, protocol, _OPEN_S) as stream:
                await stream.write(codec.encode_block(b""))
                header = await stream.read_exactly(BLOCK_HEADER_BYTES)
                length = codec.block_length(header, MAX_PEERS_BYTES)
                told = codec.decode_peers(await stream.read_exactly(length))
                scope = scope_of_neighbour(stream.address)
    except TimeoutError as error:
        raise HostError(f"no answer within {_ANSWER_S:.0f} s") from error
    except StreamCut as error:
        raise HostError("the stream ended before an answer") from error
    except ProtocolError as error:
        raise HostError(f"a list of peers that is none: {error}") from error
    return sorted_out(told, peer, own_id, reach, scope)


def sorted_out(told: tuple[str, ...], teller: str, own_id: str, reach: Reach, scope: Scope) -> Told:
    """What is worth dialling of what `teller`, reached within `scope`, said."""
    by_peer: dict[str, list[str]] = {}
    for text in told:
        known = split(text)
        if known is not None and known[1] != own_id:
            by_peer.setdefault(known[1], []).append(known[0])
    usable = {peer: reach.usable(addresses, scope) for peer, addresses in by_peer.items()}
    own = tuple(usable.pop(teller, ()))
    return Told(own, {peer: addresses for peer, addresses in usable.items() if addresses})


def _within(addresses: Sequence[str], scope: Scope) -> list[str]:
    """Those that mean something to who is reached within `scope`."""
    return [a for a in addresses if (found := scope_of(a)) is not None and found >= scope]
