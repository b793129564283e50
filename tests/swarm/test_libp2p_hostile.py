"""Strangers' gossip against py-libp2p: what ends an unguarded host does not end ours."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hostile_peer import KINDS
from transport_parts import Collected, address, network_process, real_node, until

from swarmnode.swarm.transport import Announced

pytestmark = [pytest.mark.network, pytest.mark.slow]

HERE = Path(__file__).parent
UNGUARDED = ("no protobuf", "bad from", "bad key")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A victim and an honest neighbour of it, both of libp2p."""
    folder = tmp_path_factory.mktemp("hostile")
    victim = real_node(folder / "victim", backend="libp2p")
    friend = None
    try:
        victim.open()
        friend = real_node(folder / "friend", address(victim), backend="libp2p")
        friend.open()
        until(lambda: victim.status().peers and friend.status().peers, "the two to meet")
        yield victim, friend
    finally:
        victim.close()
        if friend is not None:
            friend.close()


@pytest.mark.parametrize("kind", KINDS)
def test_sender_of_malformed_gossip_is_turned_away_and_the_host_lives(pair, kind):
    victim, friend = pair
    process, before = network_process(victim).pid, victim.status().dropped["malformed"]
    assert said_by_stranger(address(victim), kind) == ["sent", "closed"]
    until(lambda: victim.status().dropped["malformed"] == before + 1, "the count")
    assert network_process(victim).pid == process
    assert victim.status().restarts == 0
    assert victim.status().peers == (friend.status().peer_id,)
    seen = Collected()
    friend.publish(kind.encode())
    until(lambda: seen.of(victim), "gossip of the honest neighbour")
    assert seen.of(victim) == [Announced(friend.status().peer_id, kind.encode())]


@pytest.mark.parametrize("kind", UNGUARDED)
def test_unguarded_host_ends(kind):
    with subprocess.Popen(
        [sys.executable, HERE / "unguarded_host.py"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=ENVIRONMENT,
        text=True,
    ) as host:
        assert host.stdout is not None
        said_by_stranger(host.stdout.readline().strip(), kind)
        try:
            assert host.wait(30) == 1, "without the gate the same bytes end it"
        finally:
            host.kill()


def said_by_stranger(where: str, kind: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, HERE / "hostile_peer.py", where, kind],
        capture_output=True,
        text=True,
        timeout=60,
        env=ENVIRONMENT,
    )
    return [line.split()[0] for line in done.stdout.splitlines()]


ENVIRONMENT = os.environ | {"PYTHONPATH": f"{HERE.parents[1]}{os.pathsep}{HERE}"}
