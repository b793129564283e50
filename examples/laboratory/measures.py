"""What is measured, from a run's rows alone: pure functions over JSON.

A row of `rounds.jsonl` has lists with one entry per node: `questions`, `completions` (G each),
`right` (completions with reward 1) and `with_signal` count this round's own, fresh, unfiltered
generation; `own_trained` and `external_trained` count groups trained on. A row of
`evaluations.jsonl` has one mapping from task to greedy held-out accuracy per node.

- **own reward** of a node and round: right / completions
- **cumulative own reward**: its sum over rounds, mean over nodes; **worst node**: the least node's
- **held-out accuracy**: mean over the tasks that a node practises, at the last evaluation; mean
  over nodes, and the least node's. `held_out_all` is over all tasks.
- **oscillation**: how far the 10-round means of a node's own reward stray from a straight line
  through their neighbours, less what chance explains: the square root of
  mean(d²) / 6 − mean(s²) / 10, where d is a second difference of consecutive 10-round means (of
  independent values with variance v its variance is 6 v, and a linear trend adds nothing), s² the
  variance of one round's reward, half the mean squared difference of consecutive rounds; means
  over nodes; 0 where the difference is negative. Without the second term an arm that draws 2
  questions a round would seem to swing more than one that draws 8, for no other reason.
- **forgetting**: the largest fall of a node's 10-round mean below an earlier one; mean over nodes.
  Chance is not taken off: compare arms that draw equally many questions
- **reward at equal generation**: own reward over the first X tokens generated per node, right /
  completions, where X is what the most frugal arm of that regime and seed generated in all; the
  last round counts in part
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import fmean, stdev
from typing import Any

from swarmnode.gain import estimate

Row = Mapping[str, Any]

BLOCK_ROUNDS = 10


def run_measures(
    rounds: Sequence[Row], evaluations: Sequence[Row], practised: Sequence[Sequence[str]]
) -> dict[str, float | None]:
    """The measures of one run that need no other run; `practised` are each node's tasks. None:
    too few rounds."""
    curves = own_rewards(rounds)
    sums = [math.fsum(curve) for curve in curves]
    held_out = held_out_by_node(evaluations[-1], practised)
    tokens = generated_tokens(rounds)[-1]
    right = sum(sum(row["right"]) for row in rounds)
    return {
        "cumulative_own_reward": fmean(sums),
        "worst_node": min(sums),
        "held_out": fmean(held_out),
        "held_out_worst_node": min(held_out),
        "held_out_all": fmean(fmean(node.values()) for node in evaluations[-1]["accuracy"]),
        "oscillation": oscillation(curves),
        "forgetting": forgetting(curves),
        "tokens_generated_per_node": tokens,
        "right_per_1000_tokens": 1000 * right / (tokens * len(curves)),
        "own_groups_trained": _per_round(rounds, "own_trained"),
        "external_groups_trained": _per_round(rounds, "external_trained"),
        "tokens_trained": _per_round(rounds, "tokens_trained_own", "tokens_trained_external")
        * len(rounds),
        "peers_give": peers_give(rounds),
        "foreign_share": min(fmean(row["foreign_share"]) for row in rounds),
        "external_age_rounds": _mean_known(rounds, "external_age_rounds"),
        "kl_external": _mean_known(rounds, "kl_external"),
        "effective_ratio": _mean_known(rounds, "effective_ratio"),
        "steps": math.fsum(fmean(row["steps"]) for row in rounds),
    }


def peers_give(rounds: Sequence[Row]) -> float | None:
    """What the nodes measured of their peers' part of a step, as `swarmnode.gain` estimates it,
    over the whole run and all nodes. None: too little was measured to say."""
    measured = (row.get("own_and_peers_products", ()) for row in rounds)
    pairs = [(own, peers) for nodes in measured for own, peers in filter(None, nodes)]
    found = estimate(pairs)
    return found.share if found else None


def own_rewards(rounds: Sequence[Row]) -> list[list[float]]:
    """Own reward by node and round."""
    by_round = [
        [right / count for right, count in zip(row["right"], row["completions"], strict=True)]
        for row in rounds
    ]
    return [list(curve) for curve in zip(*by_round, strict=True)]


def generated_tokens(rounds: Sequence[Row]) -> list[float]:
    """Tokens generated up to each round's end, mean over nodes."""
    totals, total = [], 0.0
    for row in rounds:
        total += fmean(row["tokens_generated"])
        totals.append(total)
    return totals


def reward_at(rounds: Sequence[Row], tokens: float) -> float:
    """Right / completions over the first `tokens` tokens generated per node."""
    right = completions = before = 0.0
    for row, after in zip(rounds, generated_tokens(rounds), strict=True):
        share = min(1.0, (tokens - before) / (after - before))
        right += share * sum(row["right"])
        completions += share * sum(row["completions"])
        before = after
        if share < 1 or after >= tokens:
            break
    return right / completions


def held_out_at(
    rounds: Sequence[Row],
    evaluations: Sequence[Row],
    practised: Sequence[Sequence[str]],
    tokens: float,
) -> float:
    """Held-out accuracy, mean over nodes, when `tokens` were generated per node: on the straight
    line between the evaluations before and after."""
    totals = [0.0, *generated_tokens(rounds)]
    points = [(totals[row["round"]], mean_held_out(row, practised)) for row in evaluations]
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 <= tokens <= x1:
            return y0 + (y1 - y0) * (tokens - x0) / (x1 - x0)
    return points[-1][1]


def mean_held_out(evaluation: Row, practised: Sequence[Sequence[str]]) -> float:
    """Accuracy over each node's own tasks, mean over nodes."""
    return fmean(held_out_by_node(evaluation, practised))


def held_out_by_node(evaluation: Row, practised: Sequence[Sequence[str]]) -> list[float]:
    """Each node's accuracy over the tasks it practises."""
    return [
        fmean(node[name] for name in names)
        for node, names in zip(evaluation["accuracy"], practised, strict=True)
    ]


def oscillation(curves: Sequence[Sequence[float]]) -> float | None:
    """Of own reward by node and round, as defined above; None below three blocks."""
    blocks = [block_means(curve) for curve in curves]
    if len(blocks[0]) < 3:
        return None
    swings = [
        (means[i] - 2 * means[i + 1] + means[i + 2]) ** 2 / 6
        for means in blocks
        for i in range(len(means) - 2)
    ]
    chance = [(b - a) ** 2 / 2 for curve in curves for a, b in pairwise(curve)]
    return math.sqrt(max(0.0, fmean(swings) - fmean(chance) / BLOCK_ROUNDS))


def forgetting(curves: Sequence[Sequence[float]]) -> float | None:
    """Of own reward by node and round, as defined above; None below two blocks."""
    falls = []
    for curve in curves:
        means = block_means(curve)
        if len(means) < 2:
            return None
        falls.append(max(max(means[: i + 1]) - means[i] for i in range(len(means))))
    return fmean(falls)


def block_means(curve: Sequence[float]) -> list[float]:
    """Means of consecutive whole blocks of rounds."""
    ends = range(BLOCK_ROUNDS, len(curve) + 1, BLOCK_ROUNDS)
    return [fmean(curve[end - BLOCK_ROUNDS : end]) for end in ends]


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean over seeds and its standard error (divisor n − 1); None below two seeds."""
    error = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    return fmean(values), error


def _per_round(rounds: Sequence[Row], *keys: str) -> float:
    return fmean(math.fsum(fmean(row[key]) for key in keys) for row in rounds)


def _mean_known(rounds: Sequence[Row], key: str) -> float | None:
    """Over the rounds and nodes in which it was measured."""
    known = [value for row in rounds for value in row[key] if value is not None]
    return fmean(known) if known else None
