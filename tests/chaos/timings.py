"""How long it takes a node to be there again after each kind of trouble, beside what is aimed at.

    python tests/chaos/timings.py [name …]

Prints a table, of the named functions below or all, and exits with 1 when an aim is missed. Real
network processes of both libraries on this machine; only the first lines run a whole node, with the
shipped model. Needs a quiet machine: what it times is mostly how fast processes start.
"""

import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from remote_node import ROOT, greeting, until
from swarm_of import Member, Swarm, programs_of, swarm_of

from swarmnode import identity
from swarmnode.config import NetworkSettings
from swarmnode.swarm.alone import Alone
from swarmnode.swarm.network_transport import NetworkTransport
from swarmnode.swarm.ports import choose_port

BACKENDS = ("hivemind", "libp2p")
MIXED = ("hivemind", "libp2p", "libp2p", "hivemind")
_DEAD_S = 45.0  # for which bootstraps are away: the pauses between dials are at their longest then
_CHURNS, _ROUNDS_BETWEEN, _ROUND_S = 4, 10, 1.0


@dataclass(frozen=True, slots=True)
class Timing:
    what: str
    seconds: float
    aim_s: float

    def __str__(self) -> str:
        met = "yes" if self.seconds <= self.aim_s else "**no**"
        return f"| {self.what} | {self.seconds:.1f} | {self.aim_s:.0f} | {met} |"


def main() -> int:
    print("| what | s | aim, s | met |\n|---|---|---|---|", flush=True)
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        for timed in timings():
            if sys.argv[1:] and timed.__name__ not in sys.argv[1:]:
                continue
            for timing in timed(Path(folder) / timed.__name__):
                print(timing, flush=True)
                missed += timing.seconds > timing.aim_s
    return int(missed > 0)


def timings() -> Iterator[Callable[[Path], Iterator[Timing]]]:
    yield first_round
    yield bootstraps_come_back
    yield network_process_is_killed
    yield network_process_hangs
    yield daemon_hangs
    yield partition_merges
    yield half_are_replaced


def first_round(folder: Path) -> Iterator[Timing]:
    """A whole node whose every bootstrap is dead, from its start to the end of its first round."""
    took = [_until_a_round(folder / name, peers) for name, peers in (
        ("alone", ()), ("dead", [_nowhere(folder, number) for number in range(3)])
    )]  # fmt: skip
    yield Timing(
        "all bootstraps dead: start of the program to its first trained round", took[1], 10
    )
    yield Timing("the same, more than without any bootstrap", max(0.0, took[1] - took[0]), 10)


def bootstraps_come_back(folder: Path) -> Iterator[Timing]:
    for backend in BACKENDS:
        place = folder / backend
        port = choose_port("127.0.0.1")
        me = identity.load_or_create(place / "bootstrap" / "identity.key")
        address = f"/ip4/127.0.0.1/tcp/{port}/p2p/{me.peer_id}"
        with _opened(place / "node", backend, peers=(address, _nowhere(place, 1))) as node:
            time.sleep(_DEAD_S)
            assert node.status().alone == Alone.UNREACHABLE
            with _opened(place / "bootstrap", backend, port=port):
                took_s = _seconds_until(lambda node=node: node.status().peers, "joining")
        yield Timing(f"{backend}: bootstrap back after {_DEAD_S:.0f} s to joined", took_s, 30)


def network_process_is_killed(folder: Path) -> Iterator[Timing]:
    for backend in BACKENDS:
        with swarm_of(folder / backend, [backend, "hivemind"]) as swarm:
            swarm.meet()
            victim = swarm.nodes[0]
            restarts = victim.transport.status().restarts
            os.kill(programs_of(victim)[0].pid, signal.SIGKILL)
            _seconds_until(
                lambda v=victim, r=restarts: v.transport.status().restarts > r, "its end"
            )
            took_s = _seconds_until(lambda v=victim: v.transport.status().running, "its return")
            yield Timing(f"{backend}: network process killed to back", took_s, 5)
            took_s += _seconds_until(lambda v=victim: v.view, "peers")
            yield Timing(f"{backend}: the same, to connected again", took_s, 30)


def network_process_hangs(folder: Path) -> Iterator[Timing]:
    for backend in BACKENDS:
        with swarm_of(folder / backend, [backend, "hivemind"]) as swarm:
            swarm.meet()
            victim = swarm.nodes[0]
            stopped = programs_of(victim)[0].pid
            os.kill(stopped, signal.SIGSTOP)
            said_s = _seconds_until(lambda v=victim: v.transport.status().alone, "being alone")
            took_s = said_s + _seconds_until(
                lambda v=victim, s=stopped: v.view and programs_of(v)[0].pid != s, "its return"
            )
            yield Timing(f"{backend}: network process hangs (SIGSTOP) to said", said_s, 10)
            yield Timing(f"{backend}: the same, to replaced and connected", took_s, 40)


def daemon_hangs(folder: Path) -> Iterator[Timing]:
    """The network process lives, its library does not answer."""
    with swarm_of(folder, ["hivemind"] * 2) as swarm:
        swarm.meet()
        victim = swarm.nodes[0]
        daemon = programs_of(victim)[1].pid
        os.kill(daemon, signal.SIGSTOP)
        said_s = _seconds_until(lambda: victim.transport.status().alone, "being alone")
        took_s = said_s + _seconds_until(
            lambda: victim.view and programs_of(victim)[1].pid != daemon, "its return"
        )
        yield Timing("hivemind: daemon hangs (SIGSTOP) to said", said_s, 10)
        yield Timing("hivemind: the same, to replaced and connected", took_s, 40)


def partition_merges(folder: Path) -> Iterator[Timing]:
    for backends in (("hivemind",) * 4, MIXED):
        name = "mixed" if backends is MIXED else backends[0]
        with swarm_of(folder / name, backends) as swarm:
            swarm.meet()
            left, right = swarm.nodes[:2], swarm.nodes[2:]
            swarm.partition(left, right)
            parted_s = _seconds_until(
                lambda a=left, b=right: not any(_sees(x, y) for x in a for y in b), "parting"
            )
            swarm.merge()
            merged_s = _seconds_until(swarm.is_whole, "everyone's view of everyone")
        yield Timing(f"{name}: partition to the halves knowing", parted_s, 60)
        yield Timing(f"{name}: end of the partition to everyone seeing everyone", merged_s, 60)


def half_are_replaced(folder: Path) -> Iterator[Timing]:
    """The longest time in which a node took nothing, though all publish, and the longest call."""
    rng = random.Random(1)
    with swarm_of(folder, ["hivemind"] * 6 + ["libp2p"] * 2) as swarm:
        swarm.meet()
        waits: list[float] = []
        last = {id(node): time.monotonic() for node in swarm.nodes}
        for _ in range(_CHURNS):
            for _ in range(_ROUNDS_BETWEEN):
                waits += _round(swarm, last)
            for node in rng.sample(swarm.nodes, len(swarm.nodes) // 2):
                swarm.leave(node)
                known = [other.address for other in rng.sample(swarm.nodes, 2)]
                last[id(swarm.join(node.backend, *known))] = time.monotonic()
        swarm.meet()
        waits += _round(swarm, last)
        longest_call_s = max(node.slowest_call_s for node in swarm.nodes)
    yield Timing(
        "half of eight replaced every 10 rounds: longest without a rollout", max(waits), 30
    )
    yield Timing("the same, median", statistics.median(waits), 30)
    yield Timing("the same, longest call of a node into its network", longest_call_s, 30)


def _round(swarm: Swarm, last: dict[int, float]) -> list[float]:
    """How long each node had waited that took something in this round."""
    started, waited = time.monotonic(), []
    for node in swarm.nodes:
        before = sum(node.taken.values())
        node.step(groups=1, text_bytes=1000, wanted=16)
        if sum(node.taken.values()) > before:
            waited.append(time.monotonic() - last[id(node)])
            last[id(node)] = time.monotonic()
    time.sleep(max(0.0, started + _ROUND_S - time.monotonic()))
    return waited


def _sees(one: Member, other: Member) -> bool:
    return other.me.peer_id in one.view or one.me.peer_id in other.view


def _nowhere(folder: Path, number: int) -> str:
    """The address of a node that is not there."""
    me = identity.load_or_create(folder / f"nowhere {number}" / "identity.key")
    return f"/ip4/127.0.0.1/tcp/{choose_port('127.0.0.1')}/p2p/{me.peer_id}"


@contextmanager
def _opened(
    folder: Path, backend: str, *, port: int = 0, peers: tuple[str, ...] = ()
) -> Iterator[NetworkTransport]:
    me = identity.load_or_create(folder / "identity.key")
    settings = NetworkSettings(host="127.0.0.1", port=port, peers=peers)
    node = NetworkTransport(backend, folder / "identity.key", me.peer_id, greeting(), settings)
    try:
        node.open()
        yield node
    finally:
        node.close()


def _until_a_round(out: Path, peers: list[str] | tuple[str, ...]) -> float:
    command = [sys.executable, "-m", "swarmnode", "join", "--model", "demo", "--run", str(out),
               "--host", "127.0.0.1", "--rounds", "1"]  # fmt: skip
    for peer in peers:
        command += ["--peer", peer]
    began = time.monotonic()
    process = subprocess.Popen(
        command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        rows = out / "rounds.jsonl"
        until(lambda: rows.exists() and rows.read_text().count("\n") >= 1, "a round", pause_s=0.02)
        return time.monotonic() - began
    finally:
        process.terminate()
        process.wait(60)


def _seconds_until(condition: Callable[[], object], what: str) -> float:
    began = time.monotonic()
    until(condition, what, pause_s=0.02)
    return time.monotonic() - began


if __name__ == "__main__":
    sys.exit(main())
