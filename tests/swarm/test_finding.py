"""How real nodes find each other: without a bootstrap, by what peers tell, on the local network, in
a private swarm. And what a network that hangs does to a node."""

import json
import secrets
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transport_parts import (
    SWARM,
    Collected,
    address,
    greeting,
    meet,
    network_process,
    p2pd_of,
    real_node,
    until,
)

from protocol import private
from protocol.names import peer_id
from swarmnode.errors import ConfigError
from swarmnode.swarm.ports import choose_port
from swarmnode.swarm.private import OVERHEAD_BYTES, PrivateTransport
from swarmnode.swarm.transport import Announced, Fetched

pytestmark = [pytest.mark.network, pytest.mark.slow]

ID = b"i" * 32
Open = Callable[..., Any]


def heard(node: Any, frame: bytes, seen: Collected) -> bool:
    return any(isinstance(e, Announced) and e.frame == frame for e in seen.of(node))


def dead(number: int) -> str:
    port = choose_port("127.0.0.1")
    return f"/ip4/127.0.0.1/tcp/{port}/p2p/{peer_id(bytes([number] * 32))}"


def in_book(folder: Path, peer: str) -> bool:
    book = folder / "peers.json"
    return book.exists() and peer in json.loads(book.read_text())["peers"]


def test_one_live_bootstrap_among_dead_ones_is_enough(open_node: Open) -> None:
    first = open_node("first")
    second = open_node("second", dead(1), address(first), dead(2))
    meet(first, second)


def test_a_node_that_starts_again_without_bootstrap_finds_whom_it_knew(
    open_node: Open, tmp_path: Path
) -> None:
    first = open_node("first")
    second = open_node("second", address(first))
    meet(first, second)
    until(lambda: in_book(tmp_path / "second", first.status().peer_id), "an entry in the book")
    second.close()
    again = open_node("second", dead(1))
    meet(first, again)
    # The other side was dialled only, and knows by what the dialler said where that one listens.
    until(lambda: in_book(tmp_path / "first", again.status().peer_id), "an entry in the book")


def test_a_strangers_book_neither_stops_the_node_nor_is_believed(
    open_node: Open, tmp_path: Path
) -> None:
    first = open_node("first")
    where = address(first).rpartition("/p2p/")[0]
    liar = peer_id(bytes([9] * 32))  # is said to be where `first` is
    (tmp_path / "second").mkdir()
    entries = {liar: {"addresses": [where], "seen": 1.0, "failures": 0}}
    book = tmp_path / "second" / "peers.json"
    book.write_text(json.dumps({"version": 1, "peers": entries}))
    second = open_node("second")
    until(lambda: "that it knew before" in second.status().state)
    assert second.status().alone == "searching"
    assert second.status().peers == ()
    book.write_bytes(b"\xff" * 1000)
    second.close()
    third = open_node("second", address(first))
    meet(first, third)


def test_who_has_one_acquaintance_in_common_is_found_without_a_dht(open_node: Open) -> None:
    # A LAN has no DHT with hivemind; what is left is what peers tell.
    first = open_node("first", lan_only=True)
    others = [open_node(name, address(first), lan_only=True) for name in ("second", "third")]
    meet(first, *others)


def test_two_nodes_that_know_nobody_meet_on_the_local_network(open_node: Open) -> None:
    swarm = greeting(swarm_id=secrets.token_bytes(32))
    first = open_node("first", mdns="on", hello=swarm)
    second = open_node("second", mdns="on", hello=swarm)
    other = open_node("other", mdns="on", hello=greeting(swarm_id=secrets.token_bytes(32)))
    meet(first, second)
    until(lambda: other.status().alone == "waiting", "the third, which is of another swarm")
    assert other.status().state.endswith("waiting for others on the local network")


def test_a_node_of_a_lan_does_not_dial_beyond_it(tmp_path: Path, backend: str) -> None:
    public = f"/ip4/1.1.1.1/tcp/4001/p2p/{peer_id(bytes(32))}"
    for peer in (public, public.replace("ip4/1.1.1.1", "dns4/example.org")):
        node = real_node(tmp_path / "node", peer, backend=backend, lan_only=True)
        with pytest.raises(ConfigError, match="no address of a private network"):
            node.open()


def test_an_announcement_made_alone_is_heard_by_who_comes(open_node: Open) -> None:
    first, seen = open_node("first"), Collected()
    first.publish(b"old")
    first.publish(b"new")
    second = open_node("second", address(first))
    until(lambda: heard(second, b"new", seen), "the announcement")
    assert not heard(second, b"old", seen)


def test_strangers_in_a_private_swarm_read_noise_and_are_not_heard(
    open_node: Open, tmp_path: Path, backend: str
) -> None:
    key = secrets.token_bytes(32)
    names = private.names(key, private.swarm_id(key, SWARM))
    hello = greeting(swarm_id=names.network_id, swarm_name="private", model_label="")
    options = {"hello": hello, "overhead_bytes": OVERHEAD_BYTES}
    first = PrivateTransport(open_node("first", **options), names.frame_key)
    second = PrivateTransport(open_node("second", address(first), **options), names.frame_key)
    meet(first, second)
    # One has the manifest only. The other has seen the network's name in a member's streams.
    outsider = open_node("outsider", address(first))
    eavesdropper, seen = open_node("eavesdropper", address(first), hello=hello), Collected()
    until(lambda: len(eavesdropper.status().peers) == 2, "the eavesdropper to be in")
    first.hold(ID, b"rollout")

    def is_heard() -> bool:
        first.publish(b"announcement")
        eavesdropper.publish(b"let me in")
        return heard(second, b"announcement", seen) and second.status().dropped["unreadable"] > 0

    until(is_heard, "the announcement")
    until(lambda: any(isinstance(e, Announced) for e in seen.of(eavesdropper)), "noise")

    def is_fetched() -> bool:
        for asker in (second, eavesdropper):
            asker.fetch(first.status().peer_id, [ID])
        return all(
            any(isinstance(e, Fetched) for e in seen.of(asker)) for asker in (second, eavesdropper)
        )

    until(is_fetched, "the rollout")
    assert Fetched(first.status().peer_id, ID, b"rollout") in [
        Fetched(e.peer, e.id, e.frame) for e in seen.of(second) if isinstance(e, Fetched)
    ]
    noise = [e.frame for e in seen.of(eavesdropper) if isinstance(e, Announced | Fetched)]
    assert not any(word in frame for frame in noise for word in (b"announcement", b"rollout"))
    assert not heard(second, b"let me in", seen)
    assert outsider.status().peers == ()
    assert outsider.status().alone in ("strangers", "searching")


@pytest.mark.parametrize(
    ("backend", "victim"),
    [("hivemind", "p2pd"), ("hivemind", "network process"), ("libp2p", "network process")],
)
def test_a_network_that_hangs_is_said_replaced_and_joined_again(
    open_node: Open, backend: str, victim: str
) -> None:
    first = open_node("first")
    second, seen = open_node("second", address(first)), Collected()
    first.hold(ID, b"held before")
    meet(first, second)
    assert (first.status().alone, first.status().restarts) == ("", 0)
    where, network = address(first), network_process(first)
    hung = p2pd_of(network) if victim == "p2pd" else network
    hung.send_signal(signal.SIGSTOP)
    until(lambda: first.status().alone == "silent", "the node to say that it is alone")
    assert first.status().peers == ()
    assert "silent for" in first.status().state
    first.publish(b"said meanwhile")
    until(lambda: first.status().restarts == 1, "the hung one to be given up")
    until(lambda: not hung.is_running(), "its end")
    until(lambda: first.status().running, "the next one")
    assert address(first) == where
    meet(first, second)
    until(lambda: heard(second, b"said meanwhile", seen), "what was announced meanwhile")

    def is_served() -> bool:
        second.fetch(first.status().peer_id, [ID])
        return any(isinstance(e, Fetched) for e in seen.of(second))

    until(is_served, "what was held before")
