"""The learning-curve picture of a swarm: own, external and held-out reward, apart.

Needs matplotlib (`pip install 'swarmnode[plots]'`).
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from swarmnode.errors import ConfigError, SwarmNodeError
from swarmnode.run_directory import read_rows

# Rounds in the moving mean of the thick lines; single rounds are drawn faintly behind them.
_SMOOTHED_ROUNDS = 10


def learning_curves(directories: Sequence[Path], picture: Path) -> None:
    """Draws the runs in `directories` into one PNG of 1320 × 792 pixels.

    Raises `ConfigError` without matplotlib, `SwarmNodeError` when the disk refuses.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError("pictures need matplotlib: pip install 'swarmnode[plots]'") from error
    figure = Figure(figsize=(12, 7.2), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    own, external, held_out, traffic = figure.subplots(2, 2).flat
    external.sharey(own)
    figure.suptitle(
        f"{len(directories)} nodes; thick: mean of {_SMOOTHED_ROUNDS} rounds, thin: each round"
    )
    baselines: list[float] = []  # of equal swarms they are equal
    for directory in directories:
        rows = read_rows(directory / "rounds.jsonl")
        evaluations = read_rows(directory / "evaluations.jsonl")
        _curve(own, rows, "own_reward", directory.name)
        _curve(external, rows, "external_reward", directory.name)
        _held_out(held_out, evaluations, directory.name)
        if evaluations:
            baselines.append(_mean(evaluations[-1]["constant_baseline"].values()))
        trained = [row["totals"]["external_groups_trained"] for row in rows]
        traffic.plot([row["round"] for row in rows], trained, label=directory.name)
    if baselines:
        held_out.axhline(baselines[-1], color="grey", linestyle=":", label="best constant answer")
    _label(own, "Own reward: fresh completions of this node", "mean reward")
    _label(external, "External reward: peers' completions, scored here", "mean reward")
    _label(held_out, "Held-out accuracy: greedy, never trained on", "accuracy")
    _label(traffic, "Peers' groups trained on", "groups so far")
    try:
        figure.savefig(picture)
    except OSError as error:
        raise SwarmNodeError(f"cannot write the picture {picture}: {error.strerror}") from error


def _curve(axes: Any, rows: Sequence[dict[str, Any]], key: str, name: str) -> None:
    points = [(row["round"], row[key]) for row in rows if row[key] is not None]
    if not points:
        return
    rounds, values = zip(*points, strict=True)
    smoothed = [
        _mean(values[max(0, end - _SMOOTHED_ROUNDS) : end]) for end in range(1, len(values) + 1)
    ]
    (line,) = axes.plot(rounds, smoothed, linewidth=2, label=name)
    axes.plot(rounds, values, linewidth=0.6, alpha=0.3, color=line.get_color())


def _held_out(axes: Any, evaluations: Sequence[dict[str, Any]], name: str) -> None:
    points = [(row["round"], _mean(row["accuracy"].values())) for row in evaluations]
    if points:
        axes.plot(*zip(*points, strict=True), marker="o", label=name)


def _label(axes: Any, title: str, quantity: str) -> None:
    axes.set_title(title, fontsize=11)
    axes.set_xlabel("round")
    axes.set_ylabel(quantity)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:  # matplotlib warns of a legend of nothing
        axes.legend(fontsize=8)


def _mean(values: Collection[float]) -> float:
    return sum(values) / len(values)
