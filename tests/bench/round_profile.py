"""Where the time of one round goes, at the demo's size: CPU-seconds by phase, node processes apart.

    python tests/bench/round_profile.py [--run runs/demo] [--rounds 60]

Without --run: one node alone, offline, on one thread, in this process; every phase in CPU-seconds
of this process. With --run: wall-clock means of a finished demo, whose nodes shared a machine.
"""

import argparse
import cProfile
import pstats
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from swarmnode import config, manifest
from swarmnode.node import Node
from swarmnode.run_directory import RunDirectory, read_rows
from swarmnode.swarm.memory import Hub, MemoryTransport


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, help="a finished demo")
    parser.add_argument("--rounds", type=int, default=60)
    chosen = parser.parse_args()
    if chosen.run:
        of_demo(chosen.run)
    else:
        of_one_node(chosen.rounds)


def of_demo(run: Path) -> None:
    rows = [row for path in sorted(run.glob("node-*/rounds.jsonl")) for row in read_rows(path)]
    table({name: [row["seconds"][name] for row in rows] for name in rows[0]["seconds"]}, "wall")


def of_one_node(rounds: int) -> None:
    flags = {
        "run": {"threads": 1, "seed": 1, "evaluate_every": 0},
        "metrics": {"port": -1},
        "network": {"backend": "off"},
    }
    settings = config.load(None, flags, config.preset("demo"))
    with tempfile.TemporaryDirectory() as folder:
        directory = RunDirectory(Path(folder))
        directory.open()
        node = Node(
            settings,
            manifest.load("demo"),
            directory,
            lambda identity, swarm_id, label: MemoryTransport(Hub(), identity.peer_id),
        )
        node.open()
        try:
            for _ in range(10):  # the first rounds allocate and compile
                node.run_round()
            seconds: dict[str, list[float]] = defaultdict(list)
            profile, started = cProfile.Profile(), time.process_time()
            for _ in range(rounds):
                for name, spent in node.run_round().seconds.items():
                    seconds[name].append(spent)
            cpu = time.process_time() - started
            table(seconds, "wall")
            print(f"CPU-seconds a round, checkpoint included: {cpu / rounds:.4f}")
            profile.enable()
            node.run_round()
            profile.disable()
            pstats.Stats(profile, stream=sys.stdout).sort_stats("tottime").print_stats(12)
        finally:
            node.close()
            directory.close()


def table(seconds: dict[str, list[float]], kind: str) -> None:
    total = sum(seconds["total"])
    print(f"| phase | mean {kind} ms | share |\n|---|---|---|")
    for name, values in seconds.items():
        share = sum(values) / total
        print(f"| {name} | {1000 * sum(values) / len(values):.1f} | {share:.0%} |")


if __name__ == "__main__":
    main()
