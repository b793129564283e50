"""A week's worth of rounds of a small swarm whose nodes come and go; exits with 1 if memory grows.

    python examples/swarm_week.py --out week.json           # 20,160 rounds: a week of 30 s each

Two nodes stay all the time, the others are replaced every five rounds in the mean, so that those
who stay meet some 8,000 peers: more than anything remembers, before the first quarter is over. A
round is one question, with short answers, so that a week takes minutes. Every round is checked
(`simulated_swarm/checks.py`): bounds of structures, nothing trained on twice, nothing lost. Memory,
objects, files and tasks of the process, and what the nodes that stay hold, are sampled 24 times
(`simulated_swarm/growth.py`); the table shows the first and the end of each quarter.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from simulated_swarm.growth import Sample, entries, rises, sample
from simulated_swarm.swarm import Plan, Swarm

WEEK_ROUNDS = 7 * 24 * 3600 // 30
_SAMPLES = 24
# Rounds until what a node remembers is as old as it gets: the outbox holds 1024 rollouts.
_WARM_UP = 100
# Authors that the rules for strangers remember; the default, 4096, would take half of the week.
_REMEMBERED = 1024


def main() -> int:
    """Simulates, prints the table and says what grew."""
    given = _arguments()
    plan = Plan(
        nodes=given.nodes,
        rounds=given.rounds - _WARM_UP,
        warm_up=_WARM_UP,
        seed=given.seed,
        churn=given.churn,
        residents=2,
        max_authors=_REMEMBERED,
        questions=1,
    )
    samples, result = simulate(Swarm(plan))
    print(table(samples))
    grown = rises(samples)
    for name, (low, high) in grown.items():
        print(f"grows: {name} {low:,.0f} → {high:,.0f}")
    if not grown:
        print(f"flat over {samples[-1].round:,} rounds of {plan.nodes} nodes")
    if given.out:
        found = {"plan": asdict(plan) | {"upload": ""}, "result": result, "grows": grown}
        rows = [one.as_dict() for one in samples]
        given.out.write_text(json.dumps(found | {"samples": rows}, indent=1) + "\n")
    return 1 if grown else 0


def simulate(swarm: Swarm) -> tuple[list[Sample], dict[str, Any]]:
    """Runs it; returns the samples, and what was measured with the entries of a node that stayed
    at the end."""
    samples: list[Sample] = []
    rounds = swarm.plan.warm_up + swarm.plan.rounds
    every = max(1, rounds // _SAMPLES)
    began = time.process_time()

    def look(so_far: dict[str, Any]) -> None:
        round = so_far["rounds"] + swarm.plan.warm_up
        if round >= swarm.plan.warm_up and (round % every == 0 or round == rounds):
            samples.append(sample(round, swarm.residents))
            spent = time.process_time() - began
            print(f"round {round} of {rounds}, {spent:.0f} CPU-s", file=sys.stderr, flush=True)

    result = swarm.run(look)
    samples.append(sample(rounds, swarm.residents))
    return samples, result | {"entries": entries(swarm.residents[0])}


def table(samples: Sequence[Sample]) -> str:
    """The first sample and the end of each quarter, as Markdown."""
    last = samples[-1].round
    ends = [next(s for s in samples if s.round >= last * quarter / 4) for quarter in range(1, 5)]
    lines = [
        "| round | RSS, MiB | objects | a node's bytes | a node's entries | files | tasks |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in [samples[0], *ends]:
        lines.append(
            f"| {one.round:,} | {one.rss_kib / 1024:.1f} | {one.objects:,} | {one.node_bytes:,} | "
            f"{one.node_entries:,} | {one.files} | {one.tasks} |"
        )
    return "\n".join(lines)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=WEEK_ROUNDS, help="above 100")
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--churn", type=float, default=0.2, help="replaced per node and round")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="JSON file")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
