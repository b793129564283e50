"""One picture per regime: own reward and held-out accuracy, per round and per generated token;
and one of the ablations.

Lines are means over seeds and nodes, bands ± one standard error over seeds. Needs matplotlib.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from .measures import BLOCK_ROUNDS, generated_tokens, mean_and_error, mean_held_out, own_rewards
from .runs import Finished, read_run
from .settings import ABLATED, ABLATIONS, Run


def draw(out: Path, runs: Sequence[Run], summary: Mapping[str, Any]) -> list[Path]:
    """Draws `<regime>.png` into `out` for each regime with a finished run, and `ablations.png` from
    the summary; returns the files."""
    found = [(run, finished) for run in runs if (finished := read_run(out, run)) is not None]
    pictures = []
    for name in dict.fromkeys(run.regime.name for run, _ in found):
        arms: dict[str, list[Finished]] = {}
        for run, finished in found:
            if run.regime.name == name and run.arm.name not in ABLATIONS:
                arms.setdefault(run.arm.name, []).append(finished)
        picture = out / f"{name}.png"
        _picture(name, arms, picture)
        pictures.append(picture)
    if summary["ablations"]:
        picture = out / "ablations.png"
        _ablations(summary["ablations"]["arms"], picture)
        pictures.append(picture)
    return pictures


def _ablations(arms: Mapping[str, Any], picture: Path) -> None:
    """Paired differences to what is ablated, best first, with each seed as a point."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2, sharey=True)
    names = sorted(
        (name for name in arms if name != ABLATED),
        key=lambda name: arms[name]["cumulative_own_reward"]["difference"],
    )
    keys = (("cumulative_own_reward", "cumulative own reward"), ("held_out", "held-out accuracy"))
    for panel, (key, title) in zip(panels, keys, strict=True):
        base = arms[ABLATED][key]["by_seed"]
        panel.barh(names, [arms[name][key]["difference"] for name in names], color="tab:blue")
        for place, name in enumerate(names):
            points = [value - base[seed] for seed, value in arms[name][key]["by_seed"].items()]
            panel.plot(points, [place] * len(points), "o", color="black", markersize=3)
        panel.axvline(0, color="black", linewidth=0.8)
        panel.set_xlabel(f"{title}: difference to {ABLATED}")
        panel.grid(axis="x", alpha=0.3)
    figure.savefig(picture)


def _picture(name: str, arms: dict[str, list[Finished]], picture: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 8.5), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 2)
    seeds = max(len(found) for found in arms.values())
    figure.suptitle(f"{name}: mean over nodes and {seeds} seeds, ± one standard error")
    for arm, found in arms.items():
        tokens = _mean_curve([[0.0, *generated_tokens(one.rounds)] for one in found])[0]
        own = _mean_curve([_smoothed(one) for one in found])
        numbers = range(1, len(own[0]) + 1)
        _line(axes[0, 0], list(numbers), own, arm)
        _line(axes[0, 1], [tokens[number] for number in numbers], own, arm)
        held_out = _mean_curve([_held_out(one) for one in found])
        evaluated = [row["round"] for row in found[0].evaluations]
        _line(axes[1, 0], evaluated, held_out, arm)
        _line(axes[1, 1], [tokens[round] for round in evaluated], held_out, arm)
    for row, quantity in zip(axes, ("own reward", "held-out accuracy"), strict=True):
        for panel, axis in zip(row, ("round", "tokens generated per node"), strict=True):
            panel.set_xlabel(axis)
            panel.set_ylabel(quantity)
            panel.grid(alpha=0.3)
    constant = fmean(next(iter(arms.values()))[0].config["constant_baseline"].values())
    for panel in axes[1]:
        panel.axhline(constant, color="grey", linestyle=":", label="best constant answer")
    axes[0, 0].set_title(f"fresh completions, mean of {BLOCK_ROUNDS} rounds", fontsize=10)
    lines, labels = axes[1, 0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", ncols=6, fontsize=9)
    figure.savefig(picture)


def _line(axes: Any, x: Sequence[float], curve: tuple[list[float], list[float]], arm: str) -> None:
    means, errors = curve
    (line,) = axes.plot(x, means, label=arm)
    low = [mean - error for mean, error in zip(means, errors, strict=True)]
    high = [mean + error for mean, error in zip(means, errors, strict=True)]
    axes.fill_between(x, low, high, color=line.get_color(), alpha=0.15, linewidth=0)


def _mean_curve(curves: Sequence[Sequence[float]]) -> tuple[list[float], list[float]]:
    """Mean and standard error (0 for one seed) at each point."""
    points = [mean_and_error(values) for values in zip(*curves, strict=True)]
    return [mean for mean, _ in points], [error or 0.0 for _, error in points]


def _smoothed(finished: Finished) -> list[float]:
    """Mean of the last rounds, over nodes."""
    curve = [fmean(nodes) for nodes in zip(*own_rewards(finished.rounds), strict=True)]
    return [fmean(curve[max(0, end - BLOCK_ROUNDS) : end]) for end in range(1, len(curve) + 1)]


def _held_out(finished: Finished) -> list[float]:
    practised = finished.config["practised"]
    return [mean_held_out(row, practised) for row in finished.evaluations]
