"""Nodes behind NATs, in network namespaces of this machine: what they reach, and by which path."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from namespaces import Internet, internet, why_not
from remote_node import RemoteNode, until

from swarmnode.swarm.transport import Announced, Fetched

pytestmark = [pytest.mark.network, pytest.mark.slow, pytest.mark.chaos]

PORT = 4001
# Together more than what a relay lets through one circuit (128 KiB).
FRAMES = {bytes([number] * 32): bytes([number]) * 50_000 for number in range(4)}
Start = Callable[..., RemoteNode]


@pytest.fixture(scope="module", autouse=True)
def _namespaces() -> None:
    if problem := why_not():
        pytest.skip(problem)


@pytest.fixture
def net() -> Iterator[Internet]:
    with internet() as made:
        yield made


@pytest.fixture
def start(net: Internet, tmp_path: Path) -> Iterator[Start]:
    """Starts a node in a namespace; closes it after the test."""
    with ExitStack() as closing:

        def started(namespace: str, *peers: str, **settings: Any) -> RemoteNode:
            folder = tmp_path / namespace
            defaults = {"host": "0.0.0.0", "port": PORT, "peers": peers}
            node = RemoteNode(folder, namespace=namespace, **(defaults | settings))
            closing.callback(node.close)
            return node

        yield started


def public_nodes(net: Internet, start: Start, count: int) -> list[str]:
    """That many nodes with public addresses, as given to --peer."""
    addresses: list[str] = []
    for number in range(count):
        namespace, ip = net.public(f"p{number}")
        node = start(namespace, *addresses[:1])
        addresses.append(f"/ip4/{ip}/tcp/{PORT}/p2p/{node.peer_id}")
    return addresses


def exchange(holder: RemoteNode, asker: RemoteNode) -> list[str]:
    """The addresses that all `FRAMES` came from, once they came; asked for as a node does, again
    where a fetch failed."""
    for id, frame in FRAMES.items():
        holder.hold(id, frame)
    came: dict[bytes, Fetched] = {}

    def all_came() -> bool:
        for id in FRAMES.keys() - came.keys():
            asker.fetch(holder.peer_id, id)
        came.update({e.id: e for e in asker.poll() if isinstance(e, Fetched)})
        return came.keys() == FRAMES.keys()

    until(all_came, "all frames", pause_s=0.5)
    assert {id: event.frame for id, event in came.items()} == FRAMES
    return [event.address for event in came.values()]


def hears(listener: RemoteNode, speaker: RemoteNode) -> None:
    def arrived() -> bool:
        speaker.publish(b"from behind")
        return any(isinstance(e, Announced) for e in listener.poll())

    until(arrived, "gossip", pause_s=0.5)


def test_two_nodes_behind_two_nats_exchange_through_the_only_public_one(net, start):
    (bootstrap,) = public_nodes(net, start, 1)
    first, _, _ = net.behind_nat("a")
    second, _, _ = net.behind_nat("b")
    holder, asker = start(first, bootstrap), start(second, bootstrap)
    hears(asker, holder)
    hears(holder, asker)
    paths = exchange(holder, asker)
    assert all(path.endswith("/p2p-circuit") for path in paths), paths
    until(lambda: asker.status().relayed == (holder.peer_id,), "the status names the relayed peer")
    assert asker.status().state == "connected to 1 peer, 1 more through a relay"
    # With the way in through the relay among its addresses, others can be given one of them.
    assert any("/p2p-circuit" in address for address in holder.status().addresses)


def test_holes_are_punched_once_four_public_nodes_saw_the_address(net, start):
    bootstraps = public_nodes(net, start, 4)
    first, own, _ = net.behind_nat("a")
    second, _, _ = net.behind_nat("b")
    holder, asker = start(first, *bootstraps), start(second, *bootstraps)

    def path() -> str:
        found = {p for p in exchange(holder, asker) if "/p2p-circuit" not in p}
        return found.pop() if found else ""

    direct = until(path, "a direct path", pause_s=2.0)
    assert direct.endswith("/quic-v1")
    assert own not in direct, "the NAT's address, not the one behind it"
    until(lambda: not asker.status().relayed, "no relayed peer in the status")


def test_behind_nats_with_random_ports_the_relay_carries_on(net, start):
    bootstraps = public_nodes(net, start, 4)
    first, _, _ = net.behind_nat("a", ["--random-fully"])
    second, _, _ = net.behind_nat("b", ["--random-fully"])
    holder, asker = start(first, *bootstraps), start(second, *bootstraps)
    for _ in range(2):  # a first attempt to punch a hole is over by the second
        paths = exchange(holder, asker)
        assert all(path.endswith("/p2p-circuit") for path in paths), paths


def test_dead_bootstrap_does_not_keep_the_living_one_from_relaying(net, start, tmp_path):
    from swarmnode import identity

    dead = identity.create(tmp_path / "dead.key").peer_id
    bootstraps = [f"/ip4/5.5.5.200/tcp/{PORT}/p2p/{dead}", *public_nodes(net, start, 1)]
    first, _, _ = net.behind_nat("a")
    second, _, _ = net.behind_nat("b")
    exchange(start(first, *bootstraps), start(second, *bootstraps))


def test_announced_address_is_what_others_are_told(net, start):
    """As behind a router that forwards the port."""
    (bootstrap,) = public_nodes(net, start, 1)
    namespace, ip, router = net.behind_nat("a")
    net.forward(router, ip, PORT)
    outside = net.address(router)
    node = start(namespace, bootstrap, announce=[f"/ip4/{outside}/tcp/{PORT}"])
    told = f"/ip4/{outside}/tcp/{PORT}/p2p/{node.peer_id}"
    assert node.status().addresses == (told,)
    third, _ = net.public("late")
    exchange(node, start(third, told))
