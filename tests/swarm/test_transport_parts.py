"""The transport's parts by themselves: bounds, addresses, the channel, both ends of a stream."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
import msgspec
import pytest
from transport_parts import SWARM, greeting

from protocol import codec
from protocol.limits import MAX_FRAME_BYTES, PROTOCOL_VERSION
from protocol.names import Shard, peer_id
from swarmnode.errors import ConfigError
from swarmnode.swarm import channel, multiaddr
from swarmnode.swarm.bounded import BoundedQueue, Budget, Outbox
from swarmnode.swarm.discovery import NOTES, Strangers, mismatch
from swarmnode.swarm.fetching import Fetcher, Server, Traffic, short_reason
from swarmnode.swarm.host import HostError
from swarmnode.swarm.outgoing import Outgoing
from swarmnode.swarm.p2pd_control import DaemonStream
from swarmnode.swarm.transport import (
    Announced,
    AnyEvent,
    Fetched,
    FetchFailed,
    FetchProblem,
    PeerNote,
)

PEER = peer_id(bytes(32))
A, B = b"a" * 32, b"b" * 32


# --- bounded ---


def test_queue_drops_the_oldest_above_its_number_of_items():
    queue = BoundedQueue[str](max_items=2, max_bytes=100)
    assert [queue.put(item, 1) for item in "abc"] == [[], [], ["a"]]
    assert queue.take_all() == ["b", "c"]
    assert queue.dropped == 1


def test_queue_drops_the_oldest_above_its_bytes():
    queue = BoundedQueue[str](max_items=9, max_bytes=10)
    queue.put("a", 4)
    queue.put("b", 4)
    assert queue.put("c", 8) == ["a", "b"]  # 4 + 4 + 8 = 16, 4 + 8 = 12, 8
    assert queue.take() == "c"


def test_queue_does_not_take_what_is_too_big_by_itself():
    queue = BoundedQueue[str](max_items=9, max_bytes=10)
    assert queue.put("huge", 11) == ["huge"]
    assert not queue


def test_queue_frees_bytes_when_items_are_taken():
    queue = BoundedQueue[str](max_items=9, max_bytes=10)
    for item in "abcdef":
        queue.put(item, 10)
        assert queue.take() == item
    assert queue.dropped == 0


def test_outbox_serves_until_newer_frames_push_out():
    outbox = Outbox(max_items=2, max_bytes=10)
    outbox.put(A, b"12345")
    outbox.put(B, b"12345")
    outbox.put(A, b"54321")  # the same id again: replaced, now the newest
    outbox.put(b"c", b"1")
    assert (outbox.get(A), outbox.get(B), outbox.get(b"c")) == (b"54321", None, b"1")
    assert outbox.dropped == 1


def test_budget_is_per_peer_and_comes_back_with_the_next_window():
    budget = Budget(per_peer=2, window_s=10.0)
    assert [budget.allows("a", now) for now in (0.0, 1.0, 2.0)] == [True, True, False]
    assert budget.allows("b", 3.0)
    assert budget.allows("a", 10.0)


def test_flooder_pushes_others_out_of_the_queue_only_without_the_budget():
    def survivors(per_peer: int) -> set[str]:
        budget, queue = Budget(per_peer, 10.0), BoundedQueue[str](max_items=100, max_bytes=10**6)
        for peer in ["honest"] + ["flooder"] * 1000:
            if budget.allows(peer, 0.0):
                queue.put(peer, 1)
        return set(queue.take_all())

    assert "honest" not in survivors(per_peer=10**6)  # off: the attack succeeds
    assert "honest" in survivors(per_peer=30)


def test_budget_memory_is_bounded_against_many_keys():
    budget = Budget(per_peer=9, window_s=10.0, max_peers=3)
    assert [budget.allows(str(key), 0.0) for key in range(5)] == [True, True, True, False, False]
    assert budget.allows("0", 1.0)  # those known go on


# --- outgoing ---


def test_what_is_announced_was_held_before():
    outgoing = Outgoing()
    outgoing.begin()
    outgoing.publish(b"announcement")
    outgoing.fetch(PEER, [A])
    outgoing.hold(A, b"frame")
    taken = [outgoing.take() for _ in range(3)]
    assert taken == [
        channel.Hold(A, b"frame"),
        channel.Publish(b"announcement"),
        channel.Fetch(PEER, (A,)),
    ]


def test_a_shard_is_listened_to_before_anything_is_announced_in_it():
    outgoing, shard = Outgoing(), Shard(8, 1)
    outgoing.begin()
    outgoing.publish(b"announcement", shard)
    outgoing.listen([shard])
    commands = [channel.Listen((shard,)), channel.Publish(b"announcement", shard)]
    assert [outgoing.take(), outgoing.take()] == commands
    outgoing.end()
    outgoing.begin()  # a new network process has to hear of it
    outgoing.publish(b"next", shard)
    assert outgoing.take() == channel.Listen((shard,))


def test_new_network_process_gets_all_held_frames_again_but_no_old_fetch():
    outgoing = Outgoing()
    outgoing.begin()
    outgoing.hold(A, b"1")
    outgoing.hold(B, b"2")
    assert [outgoing.take(), outgoing.take()] == [channel.Hold(A, b"1"), channel.Hold(B, b"2")]
    outgoing.fetch(PEER, [A])
    outgoing.end()
    assert outgoing.take() is None
    outgoing.begin()
    outgoing.publish(b"new")
    taken = [outgoing.take() for _ in range(3)]
    assert taken == [channel.Hold(A, b"1"), channel.Hold(B, b"2"), channel.Publish(b"new")]


# --- addresses ---


@pytest.mark.parametrize(
    ("text", "binary"),
    [
        # codes: ip4 0x04, tcp 0x06 (port 4001 = 0x0fa1), udp 273 = varint 91 02,
        # quic-v1 461 = varint cd 03, dns4 54 = 0x36, p2p-circuit 290 = varint a2 02
        ("/ip4/127.0.0.1/tcp/4001", "047f000001060fa1"),
        ("/ip4/1.2.3.4/udp/4001/quic-v1", "040102030491020fa1cd03"),
        ("/ip6/::1/tcp/1", "29" + "00" * 15 + "01" + "060001"),
        ("/dns4/a.example/tcp/80", "3609612e6578616d706c65060050"),
        ("/ip4/1.2.3.4/tcp/1/p2p-circuit", "0401020304060001a202"),
    ],
)
def test_address_has_the_binary_form_of_the_specification(text, binary):
    assert multiaddr.to_binary(text).hex() == binary
    assert multiaddr.to_text(bytes.fromhex(binary)) == text


def test_peer_id_round_trips_and_matches_the_protocols():
    # identity multihash (00, length 24 hex) of the protobuf public key (08 01 12 20 + 32 bytes)
    raw = bytes.fromhex("002408011220") + bytes(32)
    assert multiaddr.peer_id_text(raw) == PEER
    assert multiaddr.peer_id_bytes(PEER) == raw


@pytest.mark.parametrize(
    "binary",
    ["04", "047f0000", "ff", "ffffffffffff", "0602", "3605612f622e63060050", "a503021234"],
)
def test_unusable_address_of_a_peer_is_skipped(binary):
    assert multiaddr.to_text(bytes.fromhex(binary)) is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("127.0.0.1:4001", "does not end in /p2p/"),
        ("/ip4/127.0.0.1/tcp/4001", "does not end in /p2p/"),
        (f"/p2p/{PEER}", "does not end in /p2p/"),
        ("/ip4/127.0.0.1/tcp/4001/p2p/hello", "'l' cannot be part of a peer id"),
        ("/ip4/127.0.0.1/tcp/4001/p2p/12D3", "no libp2p peer id"),
        (f"/ip4/127.0.0.1/tcp/70000/p2p/{PEER}", "'70000' is no port"),
        (f"/ip4/127.0.0.256/tcp/1/p2p/{PEER}", "127.0.0.256"),
        (f"/ip4/127.0.0.1/carrier-pigeon/1/p2p/{PEER}", "unknown part /carrier-pigeon"),
        (f"/ip4/127.0.0.1/tcp/p2p/{PEER}", "/tcp needs a value"),
    ],
)
def test_users_wrong_address_is_explained(text, problem):
    with pytest.raises(ConfigError, match=problem):
        multiaddr.split_peer(text)


# --- the channel ---


def test_channel_carries_every_event():
    events: list[AnyEvent] = [
        Announced(PEER, b"f"),
        Fetched(PEER, A, b"f", "/ip4/1.2.3.4/tcp/1"),
        FetchFailed(PEER, (A, B), FetchProblem.TIMEOUT, "why"),
    ]
    for event in events:
        encoded = channel.encode(event)
        assert channel.body_length(encoded[:4]) == len(encoded) - 4
        assert channel.decode_message(encoded[4:]) == event


def test_channel_refuses_what_is_no_message():
    with pytest.raises(msgspec.DecodeError):
        channel.decode_message(msgspec.msgpack.encode(["Start", "x"]))
    with pytest.raises(ValueError, match="on the channel"):
        channel.body_length(b"\x7f\xff\xff\xff")


# --- greetings ---


def test_equal_greetings_have_nothing_to_say():
    assert mismatch(greeting(), greeting(swarm_name="renamed", software="other")) == ""


def test_version_is_named_before_the_swarm_because_it_changes_the_swarm():
    theirs = greeting(
        lowest_version=PROTOCOL_VERSION + 1,
        highest_version=PROTOCOL_VERSION + 1,
        swarm_id=bytes(32),
    )
    assert "upgrade this node" in mismatch(greeting(), theirs)


def test_overlapping_versions_fit():
    theirs = greeting(lowest_version=PROTOCOL_VERSION, highest_version=PROTOCOL_VERSION + 5)
    assert mismatch(greeting(), theirs) == ""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("failed: x\n  * [/ip4/1.1.1.1/tcp/1] a: connection refused", "connection refused"),
        ("x\n  * [/ip4/1.1.1.1/tcp/1] i/o timeout\n  * [/ip4/2] dial backoff", "i/o timeout"),
        ("", "unknown"),
    ],
)
def test_daemons_errors_become_short(text, reason):
    assert short_reason(text).endswith(reason)


# --- streams, against a peer that is a few lines of bytes ---


class Peer:
    """Plays the other end: each stream that is opened gets the next of `answers`."""

    def __init__(self, *answers: bytes | HostError, ends: bool = True) -> None:
        self.opened = 0
        self.requests: list[bytes] = []
        self._answers = answers
        self._ends = ends

    @asynccontextmanager
    async def stream(self, peer: str, protocol: str, timeout_s: int) -> AsyncIterator[DaemonStream]:
        answer = self._answers[min(self.opened, len(self._answers) - 1)]
        self.opened += 1
        if isinstance(answer, HostError):
            raise answer
        async with _pipe() as (stream, _, their_writer):
            their_writer.write(answer)
            if self._ends:
                their_writer.write_eof()
            yield stream


@asynccontextmanager
async def _pipe() -> AsyncIterator[tuple[DaemonStream, asyncio.StreamReader, asyncio.StreamWriter]]:
    """Two ends of a socket pair: a `DaemonStream` for our code, reader and writer for the test."""
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)
    their_reader, their_writer = await asyncio.open_connection(sock=theirs)
    try:
        yield DaemonStream(PEER, "/ip4/1.2.3.4/tcp/1", reader, writer), their_reader, their_writer
    finally:
        for end in (writer, their_writer):
            end.close()


def fetch(peer: Peer, *ids: bytes, fetch_s: float = 20.0) -> list[AnyEvent]:
    """The events of one fetch."""

    async def run() -> list[AnyEvent]:
        events: list[AnyEvent] = []
        done = asyncio.Event()

        def emit(event: AnyEvent) -> None:
            events.append(event)
            ended = sum(len(e.ids) if isinstance(e, FetchFailed) else 1 for e in events)
            if ended == len(ids):
                done.set()

        async with anyio.create_task_group() as tasks:
            Fetcher(peer, "/test", Traffic(), emit, tasks, fetch_s).start(PEER, ids)
            await done.wait()
        return events

    return asyncio.run(run())


def test_frames_are_matched_to_ids_by_their_order():
    answer = codec.encode_fetch_response([b"first", None])
    assert fetch(Peer(answer), A, B) == [
        Fetched(PEER, A, b"first", "/ip4/1.2.3.4/tcp/1"),
        FetchFailed(PEER, (B,), FetchProblem.ABSENT, "the peer does not hold it"),
    ]


def test_answer_cut_before_the_first_frame_is_tried_once_more():
    peer = Peer(b"", codec.encode_fetch_response([b"frame"]))
    assert fetch(peer, A) == [Fetched(PEER, A, b"frame", "/ip4/1.2.3.4/tcp/1")]
    assert peer.opened == 2


def test_answer_that_is_always_empty_is_given_up_after_the_second_try():
    peer = Peer(b"")
    (event,) = fetch(peer, A)
    assert isinstance(event, FetchFailed)
    assert (event.problem, peer.opened) == (FetchProblem.BUSY, 2)


def test_answer_cut_later_keeps_what_came_and_is_not_tried_again():
    peer = Peer(codec.encode_fetch_response([b"first", b"second"])[:-1])
    came, failed = fetch(peer, A, B)
    assert isinstance(came, Fetched)
    assert isinstance(failed, FetchFailed)
    # No fault of the frame's: a connection was cut, and the next round may ask again.
    assert (failed.ids, failed.problem, peer.opened) == ((B,), FetchProblem.TIMEOUT, 1)


def test_frame_above_the_limit_is_refused_by_its_header():
    peer = Peer((MAX_FRAME_BYTES + 1).to_bytes(4), ends=False)  # nothing follows: it is not awaited
    (event,) = fetch(peer, A)
    assert isinstance(event, FetchFailed)
    assert event.problem == FetchProblem.MALFORMED
    assert "limit" in event.detail


def test_peer_that_never_answers_ends_by_time_out():
    (event,) = fetch(Peer(b"", ends=False), A, fetch_s=0.05)
    assert event == FetchFailed(PEER, (A,), FetchProblem.TIMEOUT, "incomplete after 0.05 s")


def test_peer_that_cannot_be_reached():
    (event,) = fetch(Peer(HostError("routing: not found")), A)
    assert event == FetchFailed(PEER, (A,), FetchProblem.UNREACHABLE, "not found")


def test_one_silent_peer_does_not_hold_all_slots():
    async def run() -> list[AnyEvent]:
        events: list[AnyEvent] = []
        done = asyncio.Event()

        def emit(event: AnyEvent) -> None:
            events.append(event)
            if len(events) == 10:
                done.set()

        async with anyio.create_task_group() as tasks:
            fetcher = Fetcher(Peer(b"", ends=False), "/test", Traffic(), emit, tasks, fetch_s=0.05)
            for number in range(10):
                fetcher.start(PEER, (bytes([number] * 32),))
            await done.wait()
        return events

    # 8 per peer are accepted and time out, the other 2 are refused at once
    problems = [e.problem for e in asyncio.run(run()) if isinstance(e, FetchFailed)]
    assert problems == [FetchProblem.OVERLOAD] * 2 + [FetchProblem.TIMEOUT] * 8


async def _served(
    request: bytes, outbox: Outbox, pick: Callable[[Server], Callable[[DaemonStream], object]]
) -> bytes:
    """What the server writes in answer to `request`."""
    server = Server(outbox, b"greeting", Traffic(), lambda *who: None)
    async with _pipe() as (stream, reader, writer):
        writer.write(request)
        writer.write_eof()
        await pick(server)(stream)  # type: ignore[misc]  # coroutine functions, typed as objects
        stream.writer.close()
        return await reader.read()


def test_server_answers_in_the_order_of_the_request():
    outbox = Outbox(9, 999)
    outbox.put(A, b"frame a")
    request = codec.encode_block(codec.encode_fetch_request([B, A]))
    answer = asyncio.run(_served(request, outbox, lambda s: s._serve_fetch))
    assert codec.decode_fetch_response(answer, 2) == (None, b"frame a")


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"",
        b"\0\0",
        codec.encode_block(b"short"),
        codec.encode_block(A + A),
        (2**32 - 1).to_bytes(4) + b"x",
    ],
)
def test_server_gives_a_malformed_request_no_answer(request_bytes):
    assert asyncio.run(_served(request_bytes, Outbox(9, 999), lambda s: s._serve_fetch)) == b""


def test_server_greets_whoever_greets():
    request = codec.encode_block(codec.encode_hello(greeting(swarm_id=SWARM)))
    answer = asyncio.run(_served(request, Outbox(9, 999), lambda s: s._serve_hello))
    assert answer == codec.encode_block(b"greeting")


@pytest.mark.parametrize("block", [codec.encode_hello(greeting()), b"no greeting", b""])
def test_server_tells_of_well_formed_greetings_and_answers_all(block):
    told = []

    async def run() -> bytes:
        server = Server(Outbox(9, 999), b"greeting", Traffic(), lambda *who: told.append(who))
        async with _pipe() as (stream, reader, writer):
            writer.write(codec.encode_block(block))
            writer.write_eof()
            await server._serve_hello(stream)
            stream.writer.close()
            return await reader.read()

    assert asyncio.run(run()) == codec.encode_block(b"greeting")
    is_well_formed = block == codec.encode_hello(greeting())
    assert told == [(PEER, "/ip4/1.2.3.4/tcp/1", greeting())] * is_well_formed


def strangers() -> tuple[Strangers, list[AnyEvent]]:
    events: list[AnyEvent] = []
    return Strangers(greeting(), events.append), events


def test_stranger_that_greets_is_noted_and_counted_once():
    greeted, events = strangers()
    other = greeting(swarm_id=bytes([0x9C] * 32), swarm_name="reasoning")
    for now in (0.0, 1.0, 1e6):
        greeted.greet(PEER, "/ip4/1.2.3.4/tcp/1", other, now)
    assert events == [
        PeerNote(
            PEER,
            f"{PEER} at /ip4/1.2.3.4/tcp/1 is in swarm 'reasoning' (9c9c9c9c), this node is in "
            "'demo' (07070707): start both with the same --swarm",
        )
    ]
    assert greeted.count == 1


def test_member_that_greets_is_not_noted():
    greeted, events = strangers()
    greeted.greet(PEER, "", greeting(), 0.0)
    assert (events, greeted.count) == ([], 0)


def test_many_strangers_are_counted_but_noted_at_a_bounded_rate():
    greeted, events = strangers()
    other = greeting(swarm_id=bytes([0x9C] * 32))
    for number in range(5000):
        greeted.greet(f"peer {number}", "", other, 0.0)
    assert len(events) == NOTES
    assert greeted.count == 5000
    assert len(greeted._known) <= 1024
    greeted.greet("one later", "", other, 1e6)
    assert len(events) == NOTES + 1
