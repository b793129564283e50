"""The contract of `Transport`, held in memory and over both libraries of the network."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from transport_parts import Collected, address, real_node, until

from protocol.limits import MAX_ANNOUNCEMENT_BYTES, MAX_FETCH_IDS, MAX_FRAME_BYTES
from protocol.names import WHOLE, Shard, peer_id
from swarmnode.swarm.memory import Hub, MemoryTransport
from swarmnode.swarm.transport import (
    QUEUES,
    Announced,
    Fetched,
    FetchFailed,
    FetchProblem,
    Transport,
)

ID, OTHER_ID, LARGE_ID = b"i" * 32, b"j" * 32, b"k" * 32
ABSENT_PEER = peer_id(bytes([9] * 32))


def memory_swarm(folder: Path) -> list[Transport]:
    hub = Hub()
    nodes = [MemoryTransport(hub, peer_id(bytes([i] * 32))) for i in range(3)]
    for node in nodes:
        node.open()
    return list(nodes)


def real_swarm(backend: str, folder: Path) -> list[Transport]:
    """The second and third node know the first one only."""
    first = real_node(folder / "0", backend=backend)
    first.open()
    others = [real_node(folder / name, address(first), backend=backend) for name in "12"]
    for node in others:
        node.open()
    return [first, *others]


REAL = [pytest.mark.network, pytest.mark.slow]
KINDS = [
    pytest.param(memory_swarm, id="memory"),
    pytest.param(partial(real_swarm, "hivemind"), id="hivemind", marks=REAL),
    pytest.param(partial(real_swarm, "libp2p"), id="libp2p", marks=REAL),
]


@pytest.fixture(scope="module", params=KINDS)
def swarm(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Transport]]:
    make: Callable[[Path], list[Transport]] = request.param
    nodes = make(tmp_path_factory.mktemp("swarm"))
    yield nodes
    for node in nodes:
        node.close()


@pytest.fixture
def connected(swarm: list[Transport]) -> list[Transport]:
    """The same nodes, once everyone sees everyone; what arrived before is taken away."""
    until(lambda: all(len(node.status().peers) == 2 for node in swarm), "a full mesh")
    for node in swarm:
        node.poll()
    return swarm


def test_published_frame_reaches_all_others_and_names_its_publisher(connected):
    seen = Collected()
    connected[1].publish(b"from one")
    for node in (connected[0], connected[2]):
        until(lambda node=node: seen.of(node))
        assert seen.of(node) == [Announced(connected[1].status().peer_id, b"from one")]


def test_publisher_does_not_hear_itself(connected):
    seen = Collected()
    connected[1].publish(b"first")
    connected[0].publish(b"second")
    until(lambda: seen.of(connected[1]))
    assert [event.frame for event in seen.of(connected[1])] == [b"second"]


def test_burst_of_announcements_arrives_whole_in_any_order(connected):
    seen = Collected()
    frames = [bytes([65 + i]) * 500 for i in range(8)]
    for frame in frames:
        connected[0].publish(frame)
    until(lambda: len(seen.of(connected[1])) == 8)
    assert {event.frame for event in seen.of(connected[1])} == set(frames)


def test_a_shard_is_heard_by_those_who_listen_to_it_and_by_no_others(connected):
    seen, shard, other = Collected(), Shard(8, 3), Shard(16, 3)
    for node, shards in zip(connected, ([shard], [shard, other], []), strict=True):
        node.listen(shards)
    until(lambda: _hears(connected[1], connected[0], shard, seen), "the shard")
    connected[0].publish(b"to all")
    for node in connected[1:]:
        until(lambda node=node: b"to all" in _frames(node, seen))
    assert {e.shard for e in seen.of(connected[2])} == {WHOLE}
    for node in connected:
        node.listen([])
    connected[0].publish(b"once more to all")
    until(lambda: b"once more to all" in _frames(connected[1], seen))


def _hears(listener: Transport, speaker: Transport, shard: Shard, seen: Collected) -> bool:
    """Speaks again until it is heard: who listens is told to neighbours a little later."""
    speaker.publish(b"to a shard", shard)
    return Announced(speaker.status().peer_id, b"to a shard", shard) in seen.of(listener)


def _frames(node: Transport, seen: Collected) -> list[bytes]:
    return [event.frame for event in seen.of(node) if isinstance(event, Announced)]


def test_held_frame_is_fetched_by_id(connected):
    seen = Collected()
    frame = bytes(range(256)) * 80  # 20 KB
    connected[0].hold(ID, frame)
    connected[1].publish(b"x")  # holds precede announcements, so what is announced can be fetched
    until(lambda: seen.of(connected[0]))
    until(lambda: _fetched(connected[1], connected[0], ID, seen))
    event = next(e for e in seen.of(connected[1]) if isinstance(e, Fetched))
    assert (event.peer, event.id, event.frame) == (connected[0].status().peer_id, ID, frame)


def test_fetch_from_a_peer_that_was_not_dialled(connected):
    seen = Collected()
    connected[2].hold(OTHER_ID, b"of the third node")
    until(lambda: _fetched(connected[1], connected[2], OTHER_ID, seen))


def test_largest_frame_is_fetched(connected):
    seen = Collected()
    connected[0].hold(LARGE_ID, b"z" * MAX_FRAME_BYTES)
    until(lambda: _fetched(connected[1], connected[0], LARGE_ID, seen))
    event = seen.of(connected[1])[-1]
    assert isinstance(event, Fetched)
    assert event.frame == b"z" * MAX_FRAME_BYTES


def test_frame_that_is_not_held_is_reported_absent_beside_those_that_are(connected):
    seen, unknown = Collected(), b"u" * 32
    connected[0].hold(ID, b"known")
    until(lambda: _fetched(connected[1], connected[0], ID, seen))
    seen = Collected()
    peer = connected[0].status().peer_id
    connected[1].fetch(peer, [ID, unknown])
    until(lambda: len(seen.of(connected[1])) == 2)
    came, failed = seen.of(connected[1])
    assert isinstance(came, Fetched)
    assert isinstance(failed, FetchFailed)
    assert (failed.peer, failed.ids, failed.problem) == (peer, (unknown,), FetchProblem.ABSENT)


def test_unknown_peer_is_reported_unreachable(connected):
    seen = Collected()
    connected[0].fetch(ABSENT_PEER, [ID])
    until(lambda: seen.of(connected[0]))
    (event,) = seen.of(connected[0])
    assert isinstance(event, FetchFailed)
    assert (event.peer, event.ids) == (ABSENT_PEER, (ID,))
    assert event.problem == FetchProblem.UNREACHABLE


def test_status_names_addresses_peers_and_every_queue(connected):
    for node in connected:
        status = node.status()
        others = {other.status().peer_id for other in connected if other is not node}
        assert set(status.peers) == others
        assert status.running
        assert status.addresses
        assert all(a.endswith(f"/p2p/{status.peer_id}") for a in status.addresses)
        assert set(status.dropped) == set(QUEUES)


def test_payload_bytes_are_counted_both_ways(connected):
    before, out_before = connected[1].status().bytes_in, connected[0].status().bytes_out
    connected[0].publish(b"p" * 1000)
    until(lambda: connected[1].status().bytes_in >= before + 1000)
    until(lambda: connected[0].status().bytes_out >= out_before + 1000)


@pytest.mark.parametrize("size", [0, MAX_ANNOUNCEMENT_BYTES + 1])
def test_refuses_to_publish_what_no_peer_would_accept(swarm, size):
    with pytest.raises(ValueError, match="announcement of"):
        swarm[0].publish(bytes(size))


def test_refuses_to_hold_what_no_peer_would_accept(swarm):
    with pytest.raises(ValueError, match="frame of"):
        swarm[0].hold(ID, bytes(MAX_FRAME_BYTES + 1))


@pytest.mark.parametrize(
    ("peer", "ids"),
    [
        ("nobody", [ID]),
        (ABSENT_PEER, []),
        (ABSENT_PEER, [b"short"]),
        (ABSENT_PEER, [ID, ID]),
        (ABSENT_PEER, [bytes([i] * 32) for i in range(MAX_FETCH_IDS + 1)]),
    ],
)
def test_refuses_a_fetch_that_cannot_be_sent(swarm, peer, ids):
    with pytest.raises(ValueError, match=r"."):
        swarm[0].fetch(peer, ids)


def _fetched(asker: Transport, holder: Transport, id: bytes, seen: Collected) -> bool:
    """Asks again until the frame came: `hold` returns before it takes effect."""
    if not any(isinstance(e, Fetched) and e.id == id for e in seen.of(asker)):
        asker.fetch(holder.status().peer_id, [id])
        return False
    return True


def test_who_is_avoided_is_cut_off_and_neither_heard_nor_served(connected):
    """The last test of this file: it leaves the swarm with two nodes that do not talk."""
    one, other, third = connected
    seen, avoided = Collected(), other.status().peer_id
    one.hold(ID, b"not for everyone")
    one.avoid(avoided, 600.0)
    until(lambda: avoided not in one.status().peers, "the cut")
    other.publish(b"to whom it may concern")
    until(lambda: b"to whom it may concern" in _frames(third, seen))
    other.fetch(one.status().peer_id, [ID])
    until(lambda: [e for e in seen.of(other) if isinstance(e, Fetched | FetchFailed)], "an answer")
    assert not [e for e in seen.of(other) if isinstance(e, Fetched)]
    assert not [e for e in seen.of(one) if isinstance(e, Announced) and e.peer == avoided]
