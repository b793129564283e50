"""What the network costs a node as the swarm grows, beside the incumbent's pattern.

    python tests/bench/network_scale.py --nodes 8 16 32 --out examples/results/network.json

N nodes of this program, each with its own network process and exchange, publish and fetch made-up
groups at equal settings; nothing is trained. --audience is the manifest's: about how many authors a
node hears once there are many. An announcement is to reach every node that listens to its shard
when it is published. The nodes run in a network namespace of their own (root),
so that the kernel's count of its loopback is every byte that they send: payload, gossip's
duplicates, DHT, identify, acknowledgements and headers. Three phases tell where the bytes go: at
rest, announcing only, announcing and fetching.

The incumbent's pattern is one dictionary a round in hivemind's DHT: every node stores its rollouts
under its name, and then reads everyone's.
"""

import argparse
import dataclasses
import gc
import heapq
import itertools
import json
import os
import platform
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

from protocol.messages import Hello  # noqa: E402
from protocol.names import WHOLE, Shard  # noqa: E402
from swarmnode import identity  # noqa: E402
from swarmnode.config import NetworkSettings, SharingSettings  # noqa: E402
from swarmnode.errors import SwarmNodeError  # noqa: E402
from swarmnode.rollout import Completion, Group, Question  # noqa: E402
from swarmnode.swarm.exchange import Exchange, Published  # noqa: E402
from swarmnode.swarm.network_transport import NetworkTransport  # noqa: E402
from swarmnode.swarm.sharding import SCALES  # noqa: E402
from swarmnode.swarm.transport import Announced, AnyEvent  # noqa: E402

SWARM = bytes([3] * 32)
DIGEST = b"add1"
_STARTS = 5
LATE_S = 30.0  # for what is still on its way when a phase ends
_QUIET_S = 60.0  # after the warm-up, in which nodes find neighbours for their shards
_SETTLE_S = 20.0  # in which the DHT's first looks and gossip's first heartbeats are over
_JOINING_S = 5.0  # after which who listens to one more shard is a part of its mesh
_INSIDE = "SWARMNODE_BENCH_NAMESPACE"


@dataclass(frozen=True, slots=True)
class Load:
    """What a node does in a round: the same for every N."""

    round_s: float
    rounds: int
    warm_up: int  # announcing rounds before the first phase, in which shards are found
    audience: int
    groups: int
    text_bytes: int  # of one group, all its completions
    fetched: int


@dataclass(frozen=True, slots=True)
class Result:
    """Figures of one phase. Bytes and CPU are of one node and one round."""

    pattern: str
    nodes: int
    phase: str
    delivered_ratio: float
    p50_ms: float
    p99_ms: float
    bytes_per_node_round: float
    cpu_s_per_node_round: float
    useful_bytes_per_node_round: float  # text taken
    authors_heard: float = 0.0  # by a node, in this phase


class Node:
    """One node; `pump` notes when its events came, its exchange takes them at the next round."""

    def __init__(
        self, folder: Path, peers: Sequence[str], seed: int, backend: str, audience: int
    ) -> None:
        me = identity.load_or_create(folder / "identity.key")
        hello = Hello.build(
            swarm_id=SWARM, swarm_name="bench", software="bench", model_label="none"
        )
        settings = NetworkSettings(host="127.0.0.1", peers=tuple(peers))
        self._asked = (backend, folder / "identity.key", me.peer_id, hello, settings)
        self.transport = NetworkTransport(*self._asked)
        self._tap = _Tapped(self.transport, self)
        self.peer_id = me.peer_id
        self._events: list[AnyEvent] = []
        self._rng = random.Random(seed)
        self._round = 0
        self._number = 0
        self.heard: dict[bytes, float] = {}  # frame → when
        self.sent: dict[bytes, tuple[float, list[Node]]] = {}  # frame → when, who is to hear it
        self.swarm: Sequence[Node] = ()
        self.taken_bytes = 0
        self.exchange = Exchange(
            self._tap,
            SharingSettings(),
            swarm_id=SWARM,
            signing_key=me.seed,
            public_key=me.public_key,
            model_label="none",
            tasks=[DIGEST],
            audience=audience,
            rebuild=lambda digest, seed: Question("add", digest, seed, "?", "!", held_out=False),
        )

    def open(self) -> None:
        """Starts the network process; again where a busy machine was too slow."""
        for attempt in range(_STARTS):
            try:
                self.transport.open()
            except SwarmNodeError:
                if attempt == _STARTS - 1:
                    raise
                self.transport = NetworkTransport(*self._asked)
                self._tap.inner = self.transport
            else:
                return

    def pump(self) -> None:
        for event in self.transport.poll():
            if isinstance(event, Announced):
                self.heard.setdefault(event.frame, time.monotonic())
            self._events.append(event)

    def hears(self, shard: Shard, now: float) -> bool:
        return shard == WHOLE or self._tap.listening.get(shard, now) < now - _JOINING_S

    def take(self) -> list[AnyEvent]:
        events, self._events = self._events, []
        return events

    def round(self, load: Load, *, announces: bool, fetches: bool) -> None:
        now = time.time()
        self._round += 1
        self.exchange.listen(self._rng, now)
        if announces:
            groups = [self._group(load.text_bytes) for _ in range(load.groups)]
            self.exchange.publish(groups, round=self._round, now=now)
        for arrival in self.exchange.collect(round=self._round, now=now):
            self.taken_bytes += sum(len(text) for text in arrival.rollout.texts)
        if fetches:
            self.exchange.request(load.fetched, self._rng, now)

    def _group(self, text_bytes: int) -> Published:
        self._number += 1
        question = Question("add", DIGEST, self._number, "?", "!", held_out=False)
        # Words of a made-up language: text compresses, and random digits would not.
        words = [f"{self._rng.randrange(3000):x}" for _ in range(text_bytes // 4)]
        half = len(words) // 2
        completions = tuple(
            Completion(" ".join(part), -0.5, len(part)) for part in (words[:half], words[half:])
        )
        return Published(self._number, Group(question, completions, (1.0, 0.0), 1, 1.0))


class _Tapped:
    """The transport as the exchange sees it: events come from `Node.pump`, sends are timed."""

    def __init__(self, inner: NetworkTransport, node: Node) -> None:
        self.inner = inner
        self._node = node
        self.listening: dict[Shard, float] = {}  # since when

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    def listen(self, shards: Sequence[Shard]) -> None:
        now = time.monotonic()
        self.listening = {shard: self.listening.get(shard, now) for shard in shards}
        self.inner.listen(shards)

    def publish(self, frame: bytes, shard: Shard = WHOLE) -> None:
        now = time.monotonic()
        others = [n for n in self._node.swarm if n is not self._node and n.hears(shard, now)]
        self._node.sent[frame] = now, others
        self.inner.publish(frame, shard)

    def poll(self) -> list[AnyEvent]:
        return self._node.take()


def swarmnode_phases(count: int, load: Load, backend: str, seed: int) -> list[Result]:
    """The three phases of one swarm of `count` nodes."""
    nodes: list[Node] = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            for number in range(count):
                peers = [_address(nodes[0])] if nodes else []
                nodes.append(
                    Node(Path(folder) / str(number), peers, seed + number, backend, load.audience)
                )
                nodes[-1].open()
            _meet(nodes)
            for node in nodes:
                node.swarm = nodes
            warm_up = dataclasses.replace(load, rounds=load.warm_up)
            _phase("warm-up", nodes, warm_up, announces=True, fetches=True)
            time.sleep(_QUIET_S)
            return [
                _phase(name, nodes, load, announces=announces, fetches=fetches)
                for name, announces, fetches in (
                    ("at rest", False, False),
                    ("announcing", True, False),
                    ("announcing and fetching", True, True),
                )
            ]
        finally:
            for node in nodes:
                node.transport.close()


def _address(node: Node) -> str:
    return next(a for a in node.transport.status().addresses if "/tcp/" in a)


def _meet(nodes: Sequence[Node]) -> None:
    """Until every node has as many neighbours as it looks for, or all; then a while longer."""
    enough = min(len(nodes) - 1, 12)
    deadline = time.monotonic() + 300
    while any(len(node.transport.status().peers) < enough for node in nodes):
        if time.monotonic() > deadline:
            few = min(len(node.transport.status().peers) for node in nodes)
            print(f"a node has {few} neighbours after 5 min, wanted {enough}", file=sys.stderr)
            break
        time.sleep(0.2)
    time.sleep(_SETTLE_S)


def _phase(
    name: str, nodes: Sequence[Node], load: Load, *, announces: bool, fetches: bool
) -> Result:
    for node in nodes:
        node.pump()
        node.sent.clear()
        node.heard.clear()
        node.taken_bytes = 0
    cpu, sent_bytes = _cpu_s(), _loopback_bytes()
    began = time.monotonic()
    # Every node in its turn, evenly spread over each round, as clocks of strangers are.
    due = [
        (began + (r + n / len(nodes)) * load.round_s, n)
        for r in range(load.rounds)
        for n in range(len(nodes))
    ]
    heapq.heapify(due)
    end = began + load.rounds * load.round_s
    while time.monotonic() < end:
        while due and due[0][0] <= time.monotonic():
            _, number = heapq.heappop(due)
            nodes[number].round(load, announces=announces, fetches=fetches)
        for node in nodes:
            node.pump()
        time.sleep(0.005)
    cpu, sent_bytes = _cpu_s() - cpu, _loopback_bytes() - sent_bytes
    expected = {frame: sent for node in nodes for frame, sent in node.sent.items()}
    _drain(expected)
    delays = [
        node.heard[frame] - when
        for frame, (when, listeners) in expected.items()
        for node in listeners
        if frame in node.heard
    ]
    due_to_all = sum(len(listeners) for _, listeners in expected.values())
    node_rounds = len(nodes) * load.rounds
    return Result(
        "swarmnode",
        len(nodes),
        name,
        len(delays) / due_to_all if due_to_all else 1.0,
        *_percentiles_ms(delays),
        sent_bytes / node_rounds,
        cpu / node_rounds,
        sum(node.taken_bytes for node in nodes) / node_rounds,
        due_to_all / node_rounds,
    )


def _drain(expected: Mapping[bytes, tuple[float, Sequence[Node]]]) -> None:
    """Waits for announcements that are still on their way to who listens to them."""
    deadline = time.monotonic() + LATE_S
    listeners = {id(node): node for _, nodes in expected.values() for node in nodes}
    while time.monotonic() < deadline:
        for node in listeners.values():
            node.pump()
        if all(frame in n.heard for frame, (_, nodes) in expected.items() for n in nodes):
            return
        time.sleep(0.02)


def incumbent_phase(count: int, load: Load, seed: int) -> Result:
    """The same groups by one dictionary of hivemind's DHT a round, which every node reads."""
    # Imports torch, once: the nodes are forks of this process.
    from dht_rounds import DHTNode

    rng = random.Random(seed)
    nodes: list[DHTNode] = []
    try:
        for number in range(count):
            nodes.append(DHTNode(number, nodes[0].address if nodes else None))
        time.sleep(10)
        cpu, sent_bytes = _cpu_s(), _loopback_bytes()
        delays: list[float] = []
        came = useful = lost = 0
        for r in range(load.rounds):
            began = time.monotonic()
            payloads = [_payload(rng, load) for _ in nodes]
            for node, payload in zip(nodes, payloads, strict=True):
                node.ask("store", f"round {r}", payload)
            stored = [node.answer() for node in nodes]
            lost += stored.count(False)
            for node in nodes:
                node.ask("read", f"round {r}", b"")
            for node in nodes:
                found, read_bytes, seconds = node.answer()
                came += found - 1  # its own is no news
                useful += read_bytes
                delays.append(seconds)
            time.sleep(max(0.0, began + load.round_s - time.monotonic()))
        if lost:
            print(f"{lost} entries were not stored", file=sys.stderr)
        node_rounds = count * load.rounds
        return Result(
            "incumbent: one DHT dictionary",
            count,
            "store and read all",
            came / (node_rounds * (count - 1)),
            *_percentiles_ms(delays),
            (_loopback_bytes() - sent_bytes) / node_rounds,
            (_cpu_s() - cpu) / node_rounds,
            useful / node_rounds,
        )
    finally:
        for node in nodes:
            node.close()


def _payload(rng: random.Random, load: Load) -> bytes:
    words = (f"{rng.randrange(3000):x}" for _ in range(load.groups * load.text_bytes // 4))
    return " ".join(words).encode()


def _percentiles_ms(delays: Sequence[float]) -> tuple[float, float]:
    if len(delays) < 2:
        return 0.0, 0.0
    cuts = statistics.quantiles(delays, n=100)
    return 1000 * cuts[49], 1000 * cuts[98]


def _cpu_s() -> float:
    """CPU seconds so far of this process and of all that it started and that live."""
    total = 0.0
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def _loopback_bytes() -> int:
    """Bytes that went over this network namespace's loopback so far."""
    for line in Path("/proc/self/net/dev").read_text().splitlines():
        name, _, figures = line.partition(":")
        if name.strip() == "lo":
            return int(figures.split()[8])
    raise SystemExit("this system does not count its loopback's bytes in /proc/self/net/dev")


def _enter_namespace() -> None:
    """Starts this program again in a network namespace of its own; returns inside it."""
    if os.environ.get(_INSIDE):
        os.system("ip link set lo up")  # noqa: S605
        return
    if os.geteuid() != 0 or shutil.which("unshare") is None or shutil.which("ip") is None:
        print("not root: other programs' loopback traffic is counted, too", file=sys.stderr)
        return
    os.environ[_INSIDE] = "1"
    os.execvp("unshare", ["unshare", "--net", sys.executable, *sys.argv])  # noqa: S606  itself


def _table(results: Sequence[Result]) -> str:
    rows = [
        "| pattern | nodes | phase | delivered | p50 / p99 ms | bytes a node-round "
        "| of it text | authors heard | CPU-s a node-round |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in results:
        rows.append(
            f"| {one.pattern} | {one.nodes} | {one.phase} | {one.delivered_ratio:.2%} "
            f"| {one.p50_ms:.0f} / {one.p99_ms:.0f} | {one.bytes_per_node_round:,.0f} "
            f"| {one.useful_bytes_per_node_round:,.0f} | {one.authors_heard:.1f} "
            f"| {one.cpu_s_per_node_round:.3f} |"
        )
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--nodes", type=int, nargs="*", default=[8, 16, 32])
    parser.add_argument("--rounds", type=int, default=5, help="of each phase")
    parser.add_argument("--round-s", type=float, default=10.0)
    parser.add_argument("--warm-up", type=int, default=8, help="rounds before the first phase")
    parser.add_argument("--audience", type=int, choices=sorted(SCALES), default=100)
    parser.add_argument("--groups", type=int, default=4, help="published by a node in a round")
    parser.add_argument("--text-bytes", type=int, default=5000, help="of a group")
    parser.add_argument("--fetched", type=int, default=4, help="asked for by a node in a round")
    parser.add_argument("--network", choices=["hivemind", "libp2p"], default="hivemind")
    parser.add_argument("--incumbent-nodes", type=int, nargs="*", default=[8, 16])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="JSON with all figures")
    asked = parser.parse_args()
    _enter_namespace()
    load = Load(
        asked.round_s, asked.rounds, asked.warm_up, asked.audience, asked.groups, asked.text_bytes,
        asked.fetched,
    )  # fmt: skip
    results: list[Result] = []
    loads = [os.getloadavg()]
    todo = itertools.chain(
        ((False, count) for count in asked.nodes),
        ((True, count) for count in asked.incumbent_nodes),
    )
    for is_incumbent, count in todo:
        if is_incumbent:
            results.append(incumbent_phase(count, load, asked.seed))
        else:
            results.extend(swarmnode_phases(count, load, asked.network, asked.seed))
        loads.append(os.getloadavg())
        gc.collect()
        print(_table(results), flush=True)
        if asked.out:
            record = {
                "command": " ".join(["python", *sys.argv]),
                "versions": {n: metadata.version(n) for n in ("swarmnode", "hivemind", "libp2p")},
                "python": platform.python_version(),
                "cores": os.cpu_count(),
                "load_averages": loads,
                "load": asdict(load),
                "results": [asdict(result) for result in results],
            }
            asked.out.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
