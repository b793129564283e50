"""A py-libp2p host and a neighbour that runs p2pd find together again when the connection ends that
p2pd's gossip went over: p2pd forgets the host's topics then, and the host has no reason to say them
again, as its own goes over another."""

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from libp2p.peer.id import ID
from multiaddr import Multiaddr
from transport_parts import SWARM, address, real_node

from protocol.names import announcement_topic
from swarmnode import identity
from swarmnode.swarm import channel
from swarmnode.swarm.libp2p_trio import opened

pytestmark = [pytest.mark.network, pytest.mark.slow]

PATIENCE_S = 60.0


@asynccontextmanager
async def host_of(folder: Path) -> AsyncIterator[Any]:
    """A `Libp2pHost` in this process, which subscribes to the swarm's topic."""
    folder.mkdir()
    key = folder / "identity.key"
    start = channel.Start(
        backend="libp2p", folder=str(folder / "own"), identity_path=str(key),
        peer_id=identity.load_or_create(key).peer_id, host="127.0.0.1", port=0, peers=(),
        swarm_id=SWARM, hello=b"",
    )  # fmt: skip
    before = logging.root.manager.disable
    try:
        async with (
            opened(start) as host,
            host.subscribe(announcement_topic(SWARM), lambda publisher, data: True),
        ):
            yield host
    finally:
        logging.disable(before)


async def until(condition: Callable[[], Any], what: str) -> None:
    with trio.move_on_after(PATIENCE_S):
        while not condition():
            await trio.sleep(0.02)
        return
    raise AssertionError(f"{what} did not come within {PATIENCE_S:.0f} s")


async def one_of_two_connections_ends(folder: Path, node: Any, *, is_mute: bool = False) -> None:
    """The host's gossip goes over the second connection, p2pd's over the first, which ends. A mute
    host says nothing more, until the node has parted with it."""
    peer = ID.from_base58(node.status().peer_id)
    where = Multiaddr(address(node).partition("/p2p/")[0])
    async with host_of(folder) as host:
        own, _ = await host.identify()
        network, pubsub = host._network, host._pubsub
        first = await network.dial_addr(where, peer)
        await until(lambda: node.status().peers == (own,), "p2pd's sight of the host")
        second = await network.dial_addr(where, peer)
        if is_mute:
            host._repeat_topics = _say_nothing
        network._select_connection = lambda connections, peer: connections[-1]
        pubsub._handle_dead_peer(peer)
        await until(lambda: peer in pubsub.peers, "the host's gossip by the second")
        assert pubsub.peers[peer].muxed_conn is second.muxed_conn is not first.muxed_conn
        assert node.status().peers == (own,)
        await first.muxed_conn.secured_conn.close()
        await trio.sleep(3.0)  # p2pd forgets the host's topics; its reports come once a second
        if is_mute:
            await until(lambda: peer not in pubsub.peers, "the end of the second, too")
            await host.connect(str(peer), [str(where)], 8)
        await until(lambda: node.status().peers == (own,), "p2pd's sight of the host again")
        assert (network.get_connections(peer) == [second]) is not is_mute
        await host.disconnect(node.status().peer_id)


async def _say_nothing(id: ID) -> None:
    pass


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Any]:
    node = real_node(tmp_path / "p2pd")
    try:
        node.open()
        yield node
    finally:
        node.close()


def test_host_says_its_topics_again_to_who_opens_gossip_again(tmp_path: Path, node: Any) -> None:
    trio.run(one_of_two_connections_ends, tmp_path / "host", node)


def test_node_parts_with_a_peer_that_does_not(tmp_path: Path, node: Any) -> None:
    trio.run(partial(one_of_two_connections_ends, tmp_path / "host", node, is_mute=True))
