"""A swarm whose nodes run on both libraries: they see, hear and serve one another as if alike."""

from pathlib import Path
from typing import Any

import pytest
from transport_parts import Collected, address, real_node, until

from swarmnode.swarm.transport import Announced, Fetched, FetchFailed

pytestmark = [pytest.mark.network, pytest.mark.slow]

FRAME_BYTES = 20_000


@pytest.fixture(scope="module", params=["hivemind", "libp2p"])
def swarm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Three nodes of each library; all know the first one only, which is of `request.param`."""
    folder: Path = tmp_path_factory.mktemp("mixed")
    first, second = request.param, {"hivemind": "libp2p", "libp2p": "hivemind"}[request.param]
    nodes: list[Any] = []
    try:
        for number, backend in enumerate((first, second, first, second, second, first)):
            peers = [address(nodes[0])] if nodes else []
            nodes.append(real_node(folder / str(number), *peers, backend=backend))
            nodes[-1].open()
        yield nodes
    finally:
        for node in nodes:
            node.close()


def test_every_announcement_reaches_every_node_and_names_its_publisher(swarm):
    others = len(swarm) - 1
    until(lambda: all(len(n.status().peers) == others for n in swarm), "a full mesh")
    seen = Collected()
    published = {n.status().peer_id: f"from {i}".encode() for i, n in enumerate(swarm)}
    for node in swarm:
        node.publish(published[node.status().peer_id])
    for node in swarm:
        until(lambda node=node: len(heard(node, seen)) == others, "all announcements")
        expected = published.items() - {(own := node.status().peer_id, published[own])}
        assert heard(node, seen) == expected
        assert len(seen.of(node)) == others, "each once"


def test_every_held_frame_is_fetched_by_every_node(swarm):
    seen = Collected()
    for number, node in enumerate(swarm):
        node.hold(bytes([number] * 32), bytes([number]) * FRAME_BYTES)
        node.publish(b"held before this")
    until(lambda: all(len(heard(n, seen)) == len(swarm) - 1 for n in swarm), "all announcements")
    for asker in swarm:
        for number, holder in enumerate(swarm):
            if holder is not asker:
                asker.fetch(holder.status().peer_id, [bytes([number] * 32)])
    for number, asker in enumerate(swarm):
        until(lambda asker=asker: len(answers(asker, seen)) == len(swarm) - 1, "all answers")
        assert not [a for a in answers(asker, seen) if isinstance(a, FetchFailed)]
        got = {(a.peer, a.id, a.frame) for a in answers(asker, seen) if isinstance(a, Fetched)}
        assert got == {
            (holder.status().peer_id, bytes([i] * 32), bytes([i]) * FRAME_BYTES)
            for i, holder in enumerate(swarm)
            if i != number
        }


def test_nothing_was_lost_or_taken_for_an_attack(swarm):
    for node in swarm:
        status = node.status()
        assert not any(status.dropped.values()), status.dropped
        assert status.restarts == 0


def heard(node: Any, seen: Collected) -> set[tuple[str, bytes]]:
    return {(e.peer, e.frame) for e in seen.of(node) if isinstance(e, Announced)}


def answers(node: Any, seen: Collected) -> list[Fetched | FetchFailed]:
    return [e for e in seen.of(node) if isinstance(e, Fetched | FetchFailed)]
