"""Peer exchange: what is told to whom, and what of an answer is worth dialling."""

from typing import Any

import anyio
import pytest

from protocol import codec
from protocol.limits import BLOCK_HEADER_BYTES, MAX_PEER_ADDRESSES, MAX_PEERS_BYTES
from protocol.names import peer_id
from swarmnode.swarm.acquaintances import Teller, Told, sorted_out
from swarmnode.swarm.host import StreamCut
from swarmnode.swarm.reach import Reach, Scope

OWN, TELLER, OTHER, ASKER = (peer_id(bytes([i] * 32)) for i in range(4))
LOOPBACK, LAN, PUBLIC = "/ip4/127.0.0.1/tcp/1", "/ip4/192.168.1.7/tcp/1", "/ip4/1.1.1.1/tcp/1"


class Line:
    """One stream: what the peer sent, what it got."""

    def __init__(self, sent: bytes, address: str = LAN, peer: str = ASKER) -> None:
        self.peer, self.address, self._sent, self.got = peer, address, sent, b""

    async def read_exactly(self, count: int) -> bytes:
        if len(self._sent) < count:
            raise StreamCut("the stream ended")
        part, self._sent = self._sent[:count], self._sent[count:]
        return part

    async def write(self, data: bytes) -> None:
        self.got += data

    async def until_closed(self) -> None:
        return


def teller(others: dict[str, tuple[str, ...]], now: Any = lambda: 0.0) -> Teller:
    return Teller(OWN, lambda: [LOOPBACK, LAN, PUBLIC], lambda: others, now)


def told_to(one: Teller, line: Line) -> list[str]:
    anyio.run(one.serve, line)
    return list(codec.decode_peers(line.got[BLOCK_HEADER_BYTES:])) if line.got else []


def test_tells_own_addresses_first_then_those_of_others_and_none_of_a_narrower_network() -> None:
    others = {OTHER: (LOOPBACK, PUBLIC, LAN), ASKER: (PUBLIC,)}
    assert told_to(teller(others), Line(bytes(4), LAN)) == [
        f"{LAN}/p2p/{OWN}", f"{PUBLIC}/p2p/{OWN}", f"{PUBLIC}/p2p/{OTHER}", f"{LAN}/p2p/{OTHER}",
    ]  # fmt: skip
    assert told_to(teller(others), Line(bytes(4), PUBLIC)) == [
        f"{PUBLIC}/p2p/{OWN}", f"{PUBLIC}/p2p/{OTHER}"
    ]  # fmt: skip
    assert told_to(teller({}), Line(bytes(4), "")) == [f"{PUBLIC}/p2p/{OWN}"]


def test_an_answer_is_bounded() -> None:
    many = {peer_id(i.to_bytes(32)): (PUBLIC, LAN, LOOPBACK) for i in range(10, 200)}
    line = Line(bytes(4), LOOPBACK)
    assert len(told_to(teller(many), line)) == MAX_PEER_ADDRESSES
    assert len(line.got) <= BLOCK_HEADER_BYTES + MAX_PEERS_BYTES


@pytest.mark.parametrize("sent", [b"", b"\0", b"\0\0\0\1x", b"\xff\xff\xff\xff"])
def test_who_asks_otherwise_than_by_an_empty_block_gets_nothing(sent: bytes) -> None:
    assert told_to(teller({}), Line(sent)) == []


def test_who_asks_all_the_time_gets_few_answers() -> None:
    one = teller({})
    answers = [bool(told_to(one, Line(bytes(4)))) for _ in range(10)]
    assert answers == [True] * 6 + [False] * 4
    assert told_to(one, Line(bytes(4), peer=OTHER))  # others go on


def test_of_an_answer_what_makes_sense_is_kept_by_peer() -> None:
    told = (
        f"{PUBLIC}/p2p/{TELLER}", f"{LAN}/p2p/{OTHER}", f"{PUBLIC}/p2p/{OTHER}", f"{LAN}/p2p/{OWN}",
        "nonsense", "", f"/dns4/router.lan/tcp/80/p2p/{OTHER}", f"/ip4/1.1.1.1/tcp/x/p2p/{OTHER}",
    )  # fmt: skip
    assert sorted_out(told, TELLER, OWN, Reach(), Scope.PRIVATE) == Told(
        (PUBLIC,), {OTHER: [LAN, PUBLIC]}
    )
    assert sorted_out(told, TELLER, OWN, Reach(), Scope.PUBLIC) == Told(
        (PUBLIC,), {OTHER: [PUBLIC]}
    )
    assert sorted_out(told, TELLER, OWN, Reach(lan_only=True), Scope.PRIVATE) == Told(
        (), {OTHER: [LAN]}
    )
