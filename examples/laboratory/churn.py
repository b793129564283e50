"""What churn costs: half of the nodes are replaced every ten rounds, against the calm run.

Who replaces a node begins at the start's weights. So the mean reward of all nodes must fall, if
only because half of them are always beginners, and that says nothing of the swarm. Two comparisons
are fair:

- **those who stay**: the nodes that are never replaced, against the same nodes (same starts, same
  streams of questions) in the calm run: what they lose by having beginners for peers
- **all, at equal age**: every node-round against the calm run's mean at that age, the age being the
  rounds since the node came: what all lose, beginners included

The third, **all, at equal time**, is given beside them. Each is a ratio of cumulative own rewards
within a seed; over seeds the mean and its standard error.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean

from .measures import Row, mean_and_error, own_rewards
from .settings import REGIMES, Regime, Run, arm
from .simulation import Turnover, simulate
from .world import World

EVERY = 10
MEASURES = ("those who stay", "all, at equal age", "all, at equal time")


def regime(rounds: int) -> Regime:
    """Eight nodes like those of the dense regime; their start is the caller's."""
    return replace(
        REGIMES["dense"], name="churn", rounds=rounds, evaluate_every=rounds, evaluate_questions=2
    )


def ratios(world: World, seed: int, rounds: int, name: str) -> Mapping[str, float]:
    """Reward with churn divided by that of the calm run, by the name of the comparison."""
    run = Run(regime(rounds), arm(name), seed)
    half = Turnover(EVERY, run.regime.nodes // 2)
    calm, churned = (_rewards(run, world, turnover) for turnover in (None, half))
    return compare(calm, churned, half)


def compare(
    calm: Sequence[Sequence[float]], churned: Sequence[Sequence[float]], turnover: Turnover
) -> Mapping[str, float]:
    """The three ratios, from own rewards by node and round."""
    stay = len(calm) - turnover.nodes
    by_age = [fmean(values) for values in zip(*calm, strict=True)]
    ages = range(len(by_age))
    expected = stay * math.fsum(by_age)
    expected += turnover.nodes * math.fsum(by_age[age % turnover.every] for age in ages)
    return {
        "those who stay": _sum(churned[:stay]) / _sum(calm[:stay]),
        "all, at equal age": _sum(churned) / expected,
        "all, at equal time": _sum(churned) / _sum(calm),
    }


def table(found: Sequence[Mapping[str, float]]) -> str:
    """Mean and standard error over seeds, as Markdown."""
    lines = ["| compared | reward with churn / calm | seeds |", "|---|---|---|"]
    for name in MEASURES:
        values = [one[name] for one in found]
        mean, error = mean_and_error(values)
        text = f"{mean:.3f}" if error is None else f"{mean:.3f} ± {error:.3f}"
        lines.append(f"| {name} | {text} | {' '.join(f'{value:.3f}' for value in values)} |")
    return "\n".join(lines)


def _rewards(run: Run, world: World, turnover: Turnover | None) -> list[list[float]]:
    rows: list[Row] = [row for kind, row in simulate(run, world, turnover) if kind == "rounds"]
    return own_rewards(rows)


def _sum(curves: Sequence[Sequence[float]]) -> float:
    return math.fsum(map(math.fsum, curves))
