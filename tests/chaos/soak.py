"""A swarm under changing faults for as long as asked, and what it holds on to while it lasts.

    python tests/chaos/soak.py --nodes 8 --minutes 60 --churn-rounds 10

Real network processes of both libraries behind proxies, exchanges with made-up groups, no
training. Every few rounds some links get a fault at random: delay, loss, 1 Mbit/s, silence, cuts, a
partition; later they are healed. With --churn-rounds half of the nodes are replaced every so many
rounds, the first two among them; one node of each library, a veteran, stays to the end, as what
leaks does so slowly. A line a minute tells what each node uses. At the end everything is healed,
what is owed is delivered, and the exit code is 1 if memory, descriptors, threads or tasks grew;
what was taken twice, lost or blocked ends it with an error.
"""

import argparse
import dataclasses
import logging
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from swarm_of import Fault, Member, Swarm, programs_of, swarm_of

FAULTS = {
    "none": Fault(),
    "delay": Fault(delay_s=0.3, jitter_s=0.2),
    "loss": Fault(loss_ratio=0.1),
    "slow": Fault(bytes_per_s=125_000),
    "silent": Fault(is_silent=True),
}
_SILENT_S = 45.0  # no longer, so that a swarm under silence still has time to heal
_MOST_GROWTH = 1.25  # from the second quarter of the samples to the last


@dataclass(frozen=True, slots=True)
class Sample:
    """What the programs of a node use, as means over all nodes and over the veterans, and what this
    process does besides, in which the nodes' exchanges are. Memory in MB."""

    rss: float
    veterans_rss: float
    descriptors: float
    veterans_descriptors: float
    threads: float
    tasks: float
    veterans_tasks: float
    own_rss: float
    own_descriptors: float
    own_threads: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--nodes", type=int, default=8)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--round-s", type=float, default=2.0)
    parser.add_argument("--churn-rounds", type=int, default=0, help="0: the same nodes throughout")
    parser.add_argument("--libp2p", type=int, default=2, help="of the nodes; the others: hivemind")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    backends = ["hivemind"] * (asked.nodes - asked.libp2p) + ["libp2p"] * asked.libp2p
    with (
        tempfile.TemporaryDirectory() as folder,
        swarm_of(Path(folder), backends, asked.seed) as swarm,
    ):
        swarm.meet()
        names = [field.name.replace("_", " ") for field in dataclasses.fields(Sample)]
        print(f"| minute | {' | '.join(names)} | fewest peers | faults |")
        print("|---" * (len(names) + 3) + "|", flush=True)
        samples = _weather(swarm, asked, random.Random(asked.seed))
        return _verdict(swarm, samples)


def _weather(swarm: Swarm, asked: argparse.Namespace, rng: random.Random) -> list[Sample]:
    """Rounds under changing faults until the time is over; a sample a minute."""
    began = time.monotonic()
    samples: list[Sample] = []
    silent_until: dict[int, float] = {}
    veterans = [next(n for n in swarm.nodes if n.backend == b) for b in ("hivemind", "libp2p")
                if any(n.backend == b for n in swarm.nodes)]  # fmt: skip
    rounds = 0
    while (elapsed := time.monotonic() - began) < 60 * asked.minutes:
        started = time.monotonic()
        swarm.step(groups=2)
        rounds += 1
        if rounds % 5 == 0:
            _change(swarm, rng, silent_until)
        for node in swarm.nodes:
            if silent_until.get(id(node), started) < started:
                node.link.fault = Fault()
        if asked.churn_rounds and rounds % asked.churn_rounds == 0:
            _replace_half(swarm, veterans, rng)
        if elapsed >= 60 * (len(samples) + 1):
            samples.append(_sample(swarm.nodes, veterans))
            _print(elapsed / 60, samples[-1], swarm)
        time.sleep(max(0.0, started + asked.round_s - time.monotonic()))
    return samples


def _change(swarm: Swarm, rng: random.Random, silent_until: dict[int, float]) -> None:
    node = rng.choice(swarm.nodes)
    name = rng.choice(list(FAULTS))
    node.link.fault = FAULTS[name]
    if name == "silent":
        silent_until[id(node)] = time.monotonic() + _SILENT_S
    if rng.random() < 0.3:
        rng.choice(swarm.nodes).link.cut()
    swarm.merge()
    if rng.random() < 0.2:  # until the next change
        mixed = rng.sample(swarm.nodes, len(swarm.nodes))
        swarm.partition(mixed[: len(mixed) // 2], mixed[len(mixed) // 2 :])


def _replace_half(swarm: Swarm, veterans: Sequence[Member], rng: random.Random) -> None:
    leaving = rng.sample([n for n in swarm.nodes if n not in veterans], len(swarm.nodes) // 2)
    for node in leaving:
        swarm.leave(node)
    known = [node.address for node in rng.sample(swarm.nodes, 2)]
    for node in leaving:
        swarm.join(node.backend, *known)


def _sample(nodes: Sequence[Member], veterans: Sequence[Member]) -> Sample:
    families = {id(node): programs_of(node) for node in nodes}

    def mean(of: Sequence[Member], measure: Callable[[psutil.Process], float]) -> float:
        return statistics.mean(sum(measure(p) for p in families[id(node)]) for node in of)

    def tasks(of: Sequence[Member]) -> float:
        return statistics.mean(node.transport.status().tasks for node in of)

    own = psutil.Process()
    return Sample(
        mean(nodes, _rss_mb), mean(veterans, _rss_mb),
        mean(nodes, psutil.Process.num_fds), mean(veterans, psutil.Process.num_fds),
        mean(nodes, psutil.Process.num_threads),
        tasks(nodes), tasks(veterans),
        _rss_mb(own), own.num_fds(), threading.active_count(),
    )  # fmt: skip


def _rss_mb(process: psutil.Process) -> float:
    return process.memory_info().rss / 1e6


def _print(minute: float, one: Sample, swarm: Swarm) -> None:
    names = {fault: name for name, fault in FAULTS.items()}
    now = ", ".join(names[n.link.fault] for n in swarm.nodes if n.link.fault != Fault())
    figures = " | ".join(f"{figure:.0f}" for figure in dataclasses.astuple(one))
    fewest = min(len(node.view) for node in swarm.nodes)
    print(f"| {minute:.0f} | {figures} | {fewest} | {now or 'none'} |", flush=True)


def _verdict(swarm: Swarm, samples: Sequence[Sample]) -> int:
    """Heals everything and says what holds."""
    for node in swarm.nodes:
        node.link.fault = Fault()
    swarm.merge()
    began = time.monotonic()
    swarm.meet()
    print(f"whole again {time.monotonic() - began:.0f} s after the last fault")
    since = swarm.numbers()
    swarm.step(groups=2)
    swarm.settle(since)
    swarm.check()
    nodes = swarm.nodes
    published = sum(len(node.published) for node in nodes)
    possible = published * (len(nodes) - 1)
    taken = sum(sum(node.taken.values()) for node in nodes)
    slowest = max(node.slowest_call_s for node in nodes)
    restarts = sum(node.transport.status().restarts for node in nodes)
    print(f"taken {taken} of at most {possible}, none twice; network restarts {restarts}")
    print(f"slowest round of a node's own calls {slowest:.2f} s")
    quarter = len(samples) // 4
    if not quarter:
        return 0
    grown = False
    for field in dataclasses.fields(Sample):
        figures = [getattr(sample, field.name) for sample in samples]
        early = statistics.mean(figures[quarter : 2 * quarter])
        late = statistics.mean(figures[-quarter:])
        print(f"{field.name}: {early:.1f} in the second quarter, {late:.1f} in the last, "
              f"{late / early:.2f} times")  # fmt: skip
        grown |= late > _MOST_GROWTH * early
    return int(grown)


if __name__ == "__main__":
    sys.exit(main())
