"""The real network when things go wrong: peers that are missing, strange or hostile, processes
that die or hang, ports that are taken."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from transport_parts import (
    DEADLINE_S,
    SWARM,
    Collected,
    address,
    folder_of,
    greeting,
    is_gone,
    meet,
    network_process,
    p2pd_of,
    real_node,
    until,
)

from protocol.limits import MAX_ANNOUNCEMENT_BYTES
from protocol.names import announcement_topic, fetch_protocol
from swarmnode import identity
from swarmnode.config import NetworkSettings
from swarmnode.errors import ConfigError
from swarmnode.swarm import p2pd
from swarmnode.swarm.nat import Nat
from swarmnode.swarm.network_transport import NetworkTransport
from swarmnode.swarm.p2pd_control import Control, load_messages
from swarmnode.swarm.ports import check_port_is_free, choose_port
from swarmnode.swarm.transport import Announced, Fetched, FetchFailed, PeerNote

pytestmark = [pytest.mark.network, pytest.mark.slow]

ID = b"i" * 32
Open = Callable[..., Any]


def hears(listener: Any, speaker: Any, frame: bytes, seen: Collected) -> None:
    """Waits until `frame` arrives, published again and again: gossip to nobody is lost."""

    def arrived() -> bool:
        speaker.publish(frame)
        return any(isinstance(e, Announced) and e.frame == frame for e in seen.of(listener))

    until(arrived, f"{frame!r}")


def _state_with(node: Any, words: str) -> str:
    """The first state text that contains `words`."""

    def state() -> str:
        text: str = node.status().state
        return text if words in text else ""

    return until(state, f"a state with {words!r}")


def notes(node: Any, seen: Collected) -> list[str]:
    return [e.text for e in seen.of(node) if isinstance(e, PeerNote)]


def test_four_nodes_that_know_only_the_first_find_and_serve_one_another(open_node):
    first = open_node("0")
    nodes = [first, *(open_node(name, address(first)) for name in "123")]
    meet(*nodes)
    seen = Collected()
    for number, node in enumerate(nodes):
        node.hold(bytes([number] * 32), bytes([number] * 100))
    for asker in nodes:
        for number, holder in enumerate(nodes):
            if holder is not asker:
                until(lambda a=asker, h=holder, n=number: _fetched(a, h, bytes([n] * 32), seen))


def test_who_has_used_up_its_upload_says_so_and_serves_the_rest_later(open_node):
    first = open_node("0", max_upload="10kB")  # with a burst of 100 kB
    second = open_node("1", address(first))
    meet(first, second)
    seen = Collected()
    ids = [bytes([number] * 32) for number in range(4)]
    for id in ids:
        first.hold(id, id * 3000)  # 96 kB: the second makes debts, the third would wait for 9 s
    hears(second, first, b"held", seen)
    second.fetch(first.status().peer_id, ids)
    until(lambda: any(isinstance(e, FetchFailed) for e in seen.of(second)))
    (failed,) = [e for e in seen.of(second) if isinstance(e, FetchFailed)]
    assert failed.problem in ("busy", "timeout")  # the stream ended, early or after some frames
    assert set(failed.ids) <= set(ids[1:])
    until(lambda: first.status().dropped["upload"] == 1)
    until(lambda: notes(first, seen))
    assert "--max-upload is used up" in notes(first, seen)[0]
    until(lambda: _fetched(second, first, failed.ids[0], seen))


def test_who_has_used_up_its_download_does_not_ask(open_node):
    first = open_node("0")
    second = open_node("1", address(first), max_download="10kB")
    meet(first, second)
    seen = Collected()
    ids = [bytes([number] * 32) for number in range(2)]
    for id in ids:
        first.hold(id, id * 5000)  # 160 kB: after the first it would wait for 6 s
    hears(second, first, b"held", seen)
    until(lambda: _fetched(second, first, ids[0], seen))
    second.fetch(first.status().peer_id, [ids[1]])
    until(lambda: any(isinstance(e, FetchFailed) for e in seen.of(second)))
    (failed,) = [e for e in seen.of(second) if isinstance(e, FetchFailed)]
    assert (failed.ids, failed.problem) == ((ids[1],), "budget")
    until(lambda: notes(second, seen))
    until(lambda: _fetched(second, first, ids[1], seen))


def test_swarm_survives_the_node_that_brought_it_together(open_node):
    first = open_node("0")
    second, third = open_node("1", address(first)), open_node("2", address(first))
    meet(first, second, third)
    first.close()
    until(lambda: len(second.status().peers) == 1)
    hears(second, third, b"without the first", Collected())


def test_alone_without_peers_says_that_it_waits(open_node):
    node = open_node("0")
    until(lambda: "no --peer given" in node.status().state)


def test_unreachable_peer_is_named_with_the_reason_and_joined_when_it_appears(
    open_node, tmp_path, backend
):
    late = real_node(tmp_path / "late", port=choose_port("127.0.0.1"), backend=backend)
    where = f"/ip4/127.0.0.1/tcp/{late._settings.port}/p2p/{late.status().peer_id}"
    node = open_node("0", where)
    state = _state_with(node, "failed")
    assert state.startswith(f"alone: dialing {where} failed: connection refused, next try in")
    node.publish(b"to nobody")
    late.open()
    try:
        meet(node, late)
        hears(late, node, b"at last", Collected())
        assert node.status().state == "connected to 1 peer"
    finally:
        late.close()


def test_peer_that_answers_with_another_key_is_said_to_have_changed(open_node, tmp_path):
    other = open_node("other")
    expected = identity.create(tmp_path / "expected.key").peer_id
    node = open_node("0", f"{address(other).rpartition('/p2p/')[0]}/p2p/{expected}")
    state = _state_with(node, "another node answers")
    assert other.status().peer_id in state


def test_own_address_among_the_peers_is_ignored(open_node, tmp_path):
    port = choose_port("127.0.0.1")
    me = identity.create(tmp_path / "0" / "identity.key").peer_id
    node = open_node("0", f"/ip4/127.0.0.1/tcp/{port}/p2p/{me}", port=port)
    until(lambda: "no --peer given" in node.status().state)


def test_peer_of_another_swarm_is_noted_with_what_to_do(open_node):
    theirs = greeting(swarm_id=bytes([0x9C] * 32), swarm_name="reasoning")
    other = open_node("other", hello=theirs)
    node, seen = open_node("0", address(other)), Collected()
    until(lambda: notes(node, seen))
    assert notes(node, seen) == [
        f"{address(other)} is in swarm 'reasoning' (9c9c9c9c), this node is in 'demo' (07070707): "
        "start both with the same --swarm"
    ]
    assert node.status().peers == ()
    until(lambda: "in this swarm yet" in node.status().state)
    # The side that was dialled says so, too.
    until(lambda: other.status().foreign_peers == 1)
    until(lambda: notes(other, seen))
    (note,) = notes(other, seen)
    assert note.startswith(f"{node.status().peer_id} at /ip4/127.0.0.1/tcp/")
    assert "is in swarm 'demo' (07070707), this node is in 'reasoning' (9c9c9c9c)" in note


def test_fetch_across_swarms_is_refused(open_node):
    other = open_node("other", hello=greeting(swarm_id=bytes([0x9C] * 32)))
    node, seen = open_node("0", address(other)), Collected()
    until(lambda: notes(node, seen))
    node.fetch(other.status().peer_id, [ID])
    event = until(lambda: next((e for e in seen.of(node) if isinstance(e, FetchFailed)), None))
    assert event.detail == "it does not speak this swarm's protocol"


@pytest.mark.parametrize(("low", "high", "who"), [(2, 3, "this node"), (0, 0, "that node")])
def test_peer_of_another_protocol_version_is_noted_with_who_must_upgrade(open_node, low, high, who):
    other = open_node("other", hello=greeting(lowest_version=low, highest_version=high))
    node, seen = open_node("0", address(other)), Collected()
    until(lambda: notes(node, seen))
    versions = "2 to 3" if low == 2 else "0"
    assert notes(node, seen) == [
        f"{address(other)} speaks protocol version {versions}, this node 1: upgrade {who}"
    ]


def test_peer_of_the_same_swarm_is_not_noted(open_node):
    first = open_node("0")
    second, seen = open_node("1", address(first)), Collected()
    meet(first, second)
    hears(second, first, b"x", seen)
    assert notes(second, seen) == []


@pytest.mark.parametrize(
    ("backend", "victim"),
    [("hivemind", "p2pd"), ("hivemind", "network process"), ("libp2p", "network process")],
)
def test_killed_network_is_restarted_and_traffic_resumes(open_node, backend, victim):
    first = open_node("0")
    second, seen = open_node("1", address(first)), Collected()
    first.hold(ID, b"held before")
    meet(first, second)
    where, network = address(first), network_process(first)
    (p2pd_of(network) if victim == "p2pd" else network).kill()
    until(lambda: first.status().restarts == 1)
    until(lambda: first.status().running)
    assert address(first) == where, "peers know this address"
    meet(first, second)
    hears(second, first, b"back", seen)
    hears(first, second, b"welcome", seen)
    until(lambda: _fetched(second, first, ID, seen))


def test_fetch_that_a_restart_interrupted_is_reported(open_node):
    first = open_node("0")
    second, seen = open_node("1", address(first)), Collected()
    meet(first, second)
    network = network_process(second)
    network.suspend()
    second.fetch(first.status().peer_id, [ID])
    network.kill()
    until(lambda: seen.of(second))
    assert [(e.ids, e.problem) for e in seen.of(second)] == [((ID,), "overload")]


def test_suspended_network_process_does_not_block_the_node(open_node):
    first = open_node("0")
    second, seen = open_node("1", address(first)), Collected()
    second.hold(ID, b"for later")
    meet(first, second)
    network = network_process(first)
    network.suspend()
    try:
        # 4,000 × 2 KB is more than socket buffers (some 200 KB) and queue (64 frames) hold.
        for number in range(4000):
            first.publish(number.to_bytes(4) * 500)
            first.hold(number.to_bytes(32), bytes(2000))
            first.fetch(second.status().peer_id, [number.to_bytes(32)])
            first.poll()
        status = first.status()
        assert status.dropped["publish"] > 0
        assert status.dropped["fetch"] > 0
        assert status.restarts == 0, "the calls returned before the watchdog freed them"
    finally:
        network.resume()
    until(lambda: _fetched(first, second, ID, seen))


def test_killed_node_leaves_no_process_no_folder_and_a_free_port(tmp_path, backend):
    script = Path(__file__).with_name("orphan_node.py")
    root = script.parents[2]
    with subprocess.Popen(
        [sys.executable, script, tmp_path / "node", backend],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(root)},
    ) as node:
        assert node.stdout is not None
        told = json.loads(node.stdout.readline())
        processes = [psutil.Process(pid) for pid in told["pids"]]
        node.send_signal(signal.SIGKILL)
        # As the kernel may: one for every thread of the node that ends.
        for _ in range(20):
            with suppress(psutil.NoSuchProcess):
                processes[0].send_signal(signal.SIGTERM)
            time.sleep(0.01)
    until(lambda: all(is_gone(process) for process in processes), "the end of its processes")
    until(lambda: not any(Path(folder).exists() for folder in told["folders"]))
    # A process counts as gone when its main thread is; its other threads hold the port a moment.
    until(lambda: is_free(told["port"]))


def is_free(port: int) -> bool:
    try:
        check_port_is_free("127.0.0.1", port)
    except ConfigError:
        return False
    return True


def test_close_leaves_no_process_no_folder_and_a_free_port(open_node):
    node = open_node("0")
    port = int(address(node).split("/")[4])
    network = network_process(node)
    daemons = network.children()
    folders = [folder_of(daemon) for daemon in daemons]
    assert all(folder.stat().st_mode & 0o777 == 0o700 for folder in folders)
    node.close()
    node.close()
    assert all(is_gone(process) for process in (network, *daemons))
    assert not any(folder.exists() for folder in folders)
    check_port_is_free("127.0.0.1", port)
    assert not node.status().running


def test_close_ends_a_network_process_that_hangs(open_node):
    node = open_node("0")
    network = network_process(node)
    daemons = network.children()
    folders = [folder_of(daemon) for daemon in daemons]
    network.suspend()
    node.close()
    assert is_gone(network)
    until(lambda: all(is_gone(daemon) for daemon in daemons))
    assert not any(folder.exists() for folder in folders)


def test_close_without_open_does_nothing(tmp_path):
    node = real_node(tmp_path)
    node.close()
    assert node.status().state == "closed"


def test_fetch_without_open_is_reported(tmp_path):
    node = real_node(tmp_path)
    node.fetch(node.status().peer_id, [ID])
    (event,) = node.poll()
    assert event.detail == "the network is not running"


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_taken_port_is_the_users_to_change(tmp_path, kind):
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} is taken: choose another with --port"):
            real_node(tmp_path, port=port).open()


def test_second_node_on_a_nodes_port_is_refused(open_node, tmp_path):
    # p2pd alone would share the port: it sets SO_REUSEPORT
    port = int(address(open_node("0")).split("/")[4])
    with pytest.raises(ConfigError, match=f"port {port} is taken"):
        real_node(tmp_path / "second", port=port).open()


@pytest.mark.parametrize(
    ("host", "peers", "message"),
    [
        ("localhost", (), "must be an IP address"),
        ("203.0.113.5", (), "cannot listen on 203.0.113.5"),  # TEST-NET-3, nobody's address
        ("127.0.0.1", ("/ip4/127.0.0.1/tcp/1",), "does not end in /p2p/"),
    ],
)
def test_impossible_settings_are_refused(tmp_path, host, peers, message):
    me = identity.create(tmp_path / "key")
    settings = NetworkSettings(host=host, peers=peers)
    node = NetworkTransport("hivemind", tmp_path / "key", me.peer_id, greeting(), settings)
    with pytest.raises(ConfigError, match=message):
        node.open()


@pytest.mark.parametrize(
    ("backend", "others"),
    [("hivemind", "torch hivemind trio libp2p"), ("libp2p", "torch hivemind")],
)
def test_network_process_loads_its_own_library_only(backend, others):
    code = (
        "import sys, swarmnode.swarm.network_process as n\n"
        "n._backend(sys.argv[1])\n"
        "from swarmnode.swarm.p2pd_control import load_messages\n"
        "if sys.argv[1] == 'hivemind': load_messages()\n"
        "sys.exit(any(name in sys.modules for name in sys.argv[2].split()))"
    )
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", code, backend, others]
    assert subprocess.run(command, cwd=root).returncode == 0


def test_stranger_with_a_raw_daemon_is_held_to_the_limits(open_node, tmp_path):
    """Oversized and too many announcements are dropped, idle streams turned away; others go on."""
    victim = open_node("victim")
    friend, seen = open_node("friend", address(victim)), Collected()
    victim.hold(ID, b"still served")
    meet(victim, friend)
    asyncio.run(_attack(tmp_path / "attacker", victim, seen))
    dropped = victim.status().dropped
    assert dropped["oversized"] > 0
    assert dropped["flood"] > 0
    assert dropped["streams"] >= 6 - 4  # opened, less those served at once
    assert all(len(e.frame) < 100 for e in seen.of(victim) if isinstance(e, Announced))
    until(lambda: _fetched(friend, victim, ID, seen))


async def _attack(folder: Path, victim: Any, seen: Collected) -> None:
    """One peer with p2pd but without our code: publishes and opens streams as it likes."""
    me = identity.load_or_create(folder / "identity.key")
    topic = announcement_topic(SWARM)
    where, _, peer = address(victim).rpartition("/p2p/")
    port = choose_port("127.0.0.1")
    key = str(folder / "identity.key")
    async with p2pd.started(folder, key, "127.0.0.1", port, Nat()) as daemon:
        control = Control(daemon.control_socket, folder / "streams.sock", load_messages())
        await control.connect(peer, [where], 8)
        async with control.subscribe(topic, lambda *_: True), AsyncExitStack() as streams:
            while peer not in await control.subscribers(topic):
                await asyncio.sleep(0.01)
            while not victim.status().dropped["oversized"]:
                # Again and again: the daemon loses what it is given before its streams are ready.
                await control.publish(topic, bytes(MAX_ANNOUNCEMENT_BYTES + 1))
                await asyncio.sleep(0.2)
            number = 0
            while not victim.status().dropped["flood"]:
                # One after the other: the daemon itself drops most of a larger burst.
                await control.publish(topic, f"{me.peer_id} {number}".encode())
                number += 1
                seen.of(victim)
            for _ in range(6):
                stream = control.stream(peer, fetch_protocol(SWARM), 8)
                await streams.enter_async_context(stream)
            await _until(lambda: victim.status().dropped["streams"] >= 6 - 4)


async def _until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.01)


def _fetched(asker: Any, holder: Any, id: bytes, seen: Collected) -> bool:
    """Asks again until the frame came: `hold` returns before it takes effect."""
    if not any(isinstance(e, Fetched) and e.id == id for e in seen.of(asker)):
        asker.fetch(holder.status().peer_id, [id])
        return False
    return True
