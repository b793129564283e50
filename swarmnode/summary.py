"""What a demo amounts to: one record per node from its rows, and what may be claimed from it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swarmnode import identity
from swarmnode.errors import SwarmNodeError
from swarmnode.run_directory import read_rows

_FIRST_ROUNDS = 3
_LAST_ROUNDS = 10
# What the demo shows when it works; it is also what its test asserts.
REQUIRED_GAIN = 2.0
REQUIRED_REWARD = 0.25


@dataclass(frozen=True, slots=True)
class Finding:
    """One claim, whether it holds, and the figures behind it."""

    claim: str
    holds: bool
    figures: str


def summarise(directories: Sequence[Path]) -> dict[str, Any]:
    """`{"nodes": [...]}` from the run directories of finished nodes, counts over all restarts.

    Raises `SwarmNodeError` for a node that has no round or no final evaluation.
    """
    return {"nodes": [_node(directory) for directory in directories]}


def check(summary: dict[str, Any]) -> list[Finding]:
    """What holds of this summary and what does not."""
    nodes = summary["nodes"]
    first = _mean([node["own_reward_first"] for node in nodes])
    last = _mean([node["own_reward_last"] for node in nodes])
    before = _mean([node["heldout_before"] for node in nodes])
    after = _mean([node["heldout_after"] for node in nodes])
    baseline = _mean([node["constant_baseline"] for node in nodes])
    ids = {node["peer_id"] for node in nodes}
    met = [len(set(node["peers_trained_from"]) & ids) for node in nodes]
    refused = sum(sum(node["refused"].values()) for node in nodes)
    return [
        Finding(
            f"own reward at least {REQUIRED_GAIN:g} times the first rounds', and {REQUIRED_REWARD}",
            last >= REQUIRED_GAIN * first and last >= REQUIRED_REWARD,
            f"{first:.3f} → {last:.3f}",
        ),
        Finding(
            "held-out accuracy rises above the best constant answers",
            after > before and after > baseline,
            f"{before:.3f} → {after:.3f}, constant {baseline:.3f}",
        ),
        Finding(
            "every node trained on rollouts of every other node",
            all(count == len(nodes) - 1 for count in met),
            " ".join(f"{count}/{len(nodes) - 1}" for count in met),
        ),
        Finding("nothing refused among honest nodes", refused == 0, f"{refused} refused"),
    ]


def _node(directory: Path) -> dict[str, Any]:
    rounds = read_rows(directory / "rounds.jsonl")
    evaluations = read_rows(directory / "evaluations.jsonl")
    if not rounds or len(evaluations) < 2:
        raise SwarmNodeError(f"{directory} holds no finished run")
    totals = rounds[-1]["totals"]
    own = [row["own_reward"] for row in rounds]
    return {
        "peer_id": identity.load(directory / "identity.key").peer_id,
        "rounds": rounds[-1]["round"],
        "own_reward_first": _mean(own[:_FIRST_ROUNDS]),
        "own_reward_last": _mean(own[-_LAST_ROUNDS:]),
        "heldout_before": _mean(list(evaluations[0]["accuracy"].values())),
        "heldout_after": _mean(list(evaluations[-1]["accuracy"].values())),
        "constant_baseline": _mean(list(evaluations[-1]["constant_baseline"].values())),
        "published": totals["published"],
        "fetched": totals["fetched"],
        "accepted": totals["accepted"],
        "refused": totals["refused"],
        "external_groups_trained": totals["external_groups_trained"],
        "peers_trained_from": totals["trained_from"],
        "bytes_in": totals["bytes_in"],
        "bytes_out": totals["bytes_out"],
        "tokens_per_s": totals["tokens_generated"] / totals["wall_s"],
        "wall_s": totals["wall_s"],
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
