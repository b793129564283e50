"""Silent streams, slow readers and thousands of streams hold no place of a node's server for long;
without each limit they keep honest peers out. The clock is the test's: no second passes."""

import math
from collections.abc import Callable

import pytest
import trio
import trio.testing

from protocol import codec
from swarmnode.swarm.bounded import Outbox
from swarmnode.swarm.fetching import Served, Server, Traffic

ID, FRAME = bytes([1] * 32), b"frame"
REQUEST = codec.encode_block(codec.encode_fetch_request([ID]))


class Wire:
    """A stream that `peer` opened: it says `said`, and takes what it is sent or nothing at all."""

    def __init__(self, peer: str, said: bytes = b"", *, takes: bool = True) -> None:
        self.peer = peer
        self.address = ""
        self.taken = b""
        self._said = said
        self._takes = takes

    async def read_exactly(self, count: int) -> bytes:
        if len(self._said) < count:
            await trio.sleep_forever()
        read, self._said = self._said[:count], self._said[count:]
        return read

    async def write(self, data: bytes) -> None:
        if not self._takes:
            await trio.sleep_forever()
        self.taken += data

    async def until_closed(self) -> None:
        if not self._takes:
            await trio.sleep_forever()


def silent(peer: str) -> Wire:
    return Wire(peer)


def slow(peer: str) -> Wire:
    return Wire(peer, REQUEST, takes=False)


def kept_out(wires: list[Wire], limits: Served, wait_s: float) -> bool:
    """Whether an honest peer gets nothing `wait_s` after these streams were opened."""
    outbox = Outbox(9, 999)
    outbox.put(ID, FRAME)
    server = Server(outbox, b"greeting", Traffic(), lambda *who: None, limits=limits)
    honest = Wire("honest", REQUEST)

    async def run() -> None:
        async with trio.open_nursery() as tasks:
            for wire in wires:
                tasks.start_soon(server._serve_fetch, wire)
            await trio.sleep(wait_s)
            await server._serve_fetch(honest)
            tasks.cancel_scope.cancel()

    trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))
    assert honest.taken in (b"", codec.encode_fetch_response([FRAME]))
    return not honest.taken


KINDS = pytest.mark.parametrize("kind", [silent, slow])


@KINDS
def test_thousands_of_streams_of_one_peer_keep_nobody_out(kind: Callable[[str], Wire]) -> None:
    streams = [kind("one") for _ in range(2000)]
    assert not kept_out(streams, Served(), wait_s=0.1)
    assert kept_out([kind("one") for _ in range(2000)], Served(per_peer=math.inf), wait_s=0.1)


@KINDS
def test_streams_of_many_peers_keep_nobody_out_for_long(kind: Callable[[str], Wire]) -> None:
    def streams() -> list[Wire]:
        return [kind(f"peer {n}") for n in range(2000)]

    limits = Served()
    assert kept_out(streams(), limits, wait_s=0.1)  # so many places there are
    most_s = limits.request_s if kind is silent else limits.take_s
    assert not kept_out(streams(), limits, wait_s=most_s + 0.1)
    for_ever = Served(request_s=math.inf, take_s=math.inf)
    assert kept_out(streams(), for_ever, wait_s=86_400.0)


def test_a_node_serves_no_more_at_once_than_its_limit_says() -> None:
    def most(limits: Served) -> int:
        server = Server(Outbox(9, 999), b"", Traffic(), lambda *who: None, limits=limits)

        async def run() -> int:
            async with trio.open_nursery() as tasks:
                for n in range(2000):
                    tasks.start_soon(server._serve_fetch, silent(f"peer {n}"))
                await trio.testing.wait_all_tasks_blocked()
                held = server._serving.total()
                tasks.cancel_scope.cancel()
            return held

        return trio.run(run)

    assert most(Served()) == 64
    assert most(Served(at_once=math.inf)) == 2000
