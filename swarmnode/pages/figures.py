"""The pictures of a report, as PNG bytes: all runs in each panel, a colour for each run.

Of up to 400 rounds each is drawn, thinly, with a moving mean over it; of more, bins of rounds with
their mean and standard deviation.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from swarmnode.errors import ConfigError
from swarmnode.pages.history import History
from swarmnode.run_view import mean_accuracy

# A thick line is a mean over this share of the points, around each: rounds are noise, bins of them
# much less, and an hour without peers must not look like a day.
_SMOOTHED, _BINS_SMOOTHED = 0.1, 0.025
# The scale of what peers give reaches so far at least: its noise is no news.
_LEAST_GAIN = 0.1
# Runs with a colour of their own and a place in the legend; above, all are drawn alike.
MAX_COLOURS = 20
_DOTS_PER_INCH = 100
_PANEL_WIDTH, _PANEL_HEIGHT = 4.6, 3.3  # inches
# Not the colours of the runs.
_PHASES = {
    "generate": "#3b528b", "score": "#c7e020", "train": "#21918c", "publish": "#f9c932",
    "collect": "#a52c60", "draw": "#9e9e9e", "other": "#d9d9d9",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Picture:
    """One PNG; `title` and `text` are for the page around it."""

    name: str
    title: str
    text: str
    png: bytes


Draw = Callable[[Any, Sequence[History], Sequence[Any]], None]


def colours(count: int) -> list[str]:
    """A colour for each of `count` runs, as #rrggbb: distinct ones up to `MAX_COLOURS`."""
    _, colour_map, to_hex = _matplotlib()
    if count > MAX_COLOURS:
        return ["#1f77b4"] * count
    palette = colour_map("tab10" if count <= 10 else "tab20")
    return [to_hex(palette(number)) for number in range(count)]


def draw(histories: Sequence[History]) -> list[Picture]:
    """All pictures. Raises `ConfigError` without matplotlib."""
    binned = max((h.rounds / len(h.bins) for h in histories), default=1)
    of = (
        f"A point is up to {binned:.0f} rounds; the shade is one standard deviation of rounds."
        if binned > 1
        else "Thin: each round; thick: a moving mean."
    )
    return [
        _picture("learning", "Is it learning?", of, _LEARNING, histories),
        _picture("sharing", "What do peers give?", of, _SHARING, histories),
        _picture("training", "Is training healthy?", of, _TRAINING, histories),
        _picture(
            "throughput", "Where does the time go?",
            "Rests between rounds are in the rates and not in the phases.", _THROUGHPUT, histories,
        ),
        _picture(
            "network", "Traffic and refusals",
            "Payload bytes; refused is what peers sent and this node did not take, missed what it "
            "asked for and did not get.", _NETWORK, histories,
        ),
    ]  # fmt: skip


def _curve_of(key: str, title: str, unit: str, zero: bool = True) -> Draw:
    """A panel of one measured figure."""

    def panel(axes: Any, histories: Sequence[History], colour: Sequence[Any]) -> None:
        for history, shade in zip(histories, colour, strict=True):
            _curve(axes, history, key, shade)
        _label(axes, title, unit, zero=zero)

    return panel


def _held_out(axes: Any, histories: Sequence[History], colour: Sequence[Any]) -> None:
    baselines = []
    for history, shade in zip(histories, colour, strict=True):
        rounds, accuracies = history.held_out()
        marker = "o" if len(rounds) < 30 else ""
        axes.plot(rounds, accuracies, color=shade, marker=marker, markersize=4, linewidth=1.8)
        if history.evaluations:
            newest = dict(history.evaluations[-1])
            baselines.append(mean_accuracy(newest, "constant_baseline"))
    for baseline in sorted({round(value, 3) for value in baselines})[:3]:
        axes.axhline(baseline, color="grey", linestyle=":", linewidth=1)
        axes.annotate(
            "best constant answer", (0.99, baseline), xycoords=("axes fraction", "data"),
            ha="right", va="bottom", fontsize=7, color="grey",
        )  # fmt: skip
    _label(axes, "Held-out accuracy: greedy, never trained on", "accuracy")


def _gain(axes: Any, histories: Sequence[History], colour: Sequence[Any]) -> None:
    for history, shade in zip(histories, colour, strict=True):
        rounds, gains, _ = history.curve("sharing_gain")
        marker = "o" if len(rounds) < 30 else ""
        axes.plot(rounds, gains, color=shade, linewidth=1.6, marker=marker, markersize=4)
    if any(history.curve("sharing_gain")[0] for history in histories):
        low, high = axes.get_ylim()
        axes.set_ylim(min(low, -_LEAST_GAIN), max(high, _LEAST_GAIN))
        axes.axhline(0, color="grey", linewidth=0.8)
    _label(axes, "Peers give: share of this node's progress", "share", zero=False)


def _peers(axes: Any, histories: Sequence[History], colour: Sequence[Any]) -> None:
    for history, shade in zip(histories, colour, strict=True):
        rounds, counts, _ = history.curve("peers")
        axes.plot(rounds, counts, color=shade, linewidth=1.6)
    _label(axes, "Peers connected", "peers")


def _count_of(key: str, title: str, unit: str, scale: float = 1.0) -> Draw:
    """A panel of a count since the run began."""

    def panel(axes: Any, histories: Sequence[History], colour: Sequence[Any]) -> None:
        for history, shade in zip(histories, colour, strict=True):
            counts = [found.counts[key] * scale for found in history.bins]
            axes.plot([found.last for found in history.bins], counts, color=shade, linewidth=1.6)
        _label(axes, title, unit)

    return panel


def _rate_of(key: str, title: str, unit: str, scale: float = 1.0) -> Draw:
    """A panel of what is added to a count per second."""

    def panel(axes: Any, histories: Sequence[History], colour: Sequence[Any]) -> None:
        for history, shade in zip(histories, colour, strict=True):
            rounds, rates = history.rate(key)
            smoothed = _smoothed([rate * scale for rate in rates], history)
            axes.plot(rounds, smoothed, color=shade, linewidth=1.6)
        _label(axes, title, unit)

    return panel


def _round_seconds(axes: Any, histories: Sequence[History], colour: Sequence[Any]) -> None:
    for history, shade in zip(histories, colour, strict=True):
        rounds = [(found.first + found.last) / 2 for found in history.bins]
        seconds = [found.seconds["total"] / found.rounds for found in history.bins]
        axes.plot(rounds, _smoothed(seconds, history), color=shade, linewidth=1.6)
    _label(axes, "Work of one round", "seconds")


def _phases(axes: Any, histories: Sequence[History], _: Sequence[Any]) -> None:
    """Bars, a run each, of the phases' shares; of many runs one bar for all."""
    groups = [[h] for h in histories] if len(histories) <= 12 else [list(histories)]
    names = [h.name for h in histories] if len(histories) <= 12 else [f"all {len(histories)}"]
    shares = [_shares(group) for group in groups]
    left = [0.0] * len(groups)
    for phase, colour in _PHASES.items():
        widths = [share.get(phase, 0.0) for share in shares]
        if max(widths) >= 0.01:
            axes.barh(range(len(groups)), widths, left=left, label=phase, height=0.7, color=colour)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.set_yticks(range(len(groups)), [_cut(name) for name in names], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_title("Share of the rounds' time by phase", fontsize=10)
    axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncol=4, frameon=False)


def _shares(histories: Sequence[History]) -> dict[str, float]:
    seconds: dict[str, float] = {}
    for history in histories:
        for found in history.bins:
            for phase, value in found.seconds.items():
                seconds[phase] = seconds.get(phase, 0.0) + value
    total = seconds.pop("total", 0.0) or 1.0
    shares = {phase: value / total for phase, value in seconds.items()}
    return shares | {"other": max(0.0, 1 - sum(shares.values()))}


def _problems(axes: Any, histories: Sequence[History], _: Sequence[Any]) -> None:
    """Bars of refusals by reason and of what did not come, summed over the runs."""
    counts: dict[str, int] = {}
    for history in histories:
        for kind, found in (("refused", history.refused), ("missed", history.missed)):
            for reason, count in found.items():
                name = f"{kind}: {reason}"
                counts[name] = counts.get(name, 0) + count
    shown = sorted(((n, c) for n, c in counts.items() if c), key=lambda item: -item[1])[:10]
    axes.set_title("Refused and missed, all runs, whole time", fontsize=10)
    if not shown:
        axes.text(0.5, 0.5, "nothing was refused or missed", ha="center", color="grey")
        axes.set_axis_off()
        return
    names, values = zip(*shown, strict=True)
    bars = axes.barh(range(len(names)), values, height=0.7, color="#7f7f7f")
    axes.bar_label(bars, fontsize=7, padding=2)
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.invert_yaxis()
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.15)


_LEARNING = (
    _curve_of("own_reward", "Own reward: fresh answers of this node", "mean reward"),
    _curve_of("external_reward", "External reward: peers' answers, scored here", "mean reward"),
    _held_out,
)
_SHARING = (
    _count_of("own_groups_trained", "Own groups trained on", "groups so far"),
    _count_of("external_groups_trained", "Peers' groups trained on", "groups so far"),
    _gain,
    _peers,
    _curve_of("staleness_rounds", "Age of peers' groups", "optimiser steps"),
    _curve_of("effective_ratio", "Effective share of peers' samples", "ratio"),
)
_TRAINING = (
    _curve_of("loss", "Loss", "loss", zero=False),
    _curve_of("grad_norm", "Gradient norm before clipping", "norm"),
    _curve_of("entropy", "Entropy of the policy", "nats per token"),
)
_THROUGHPUT = (
    _rate_of("tokens_generated", "Tokens generated", "per second"),
    _round_seconds,
    _phases,
)
_NETWORK = (
    _rate_of("bytes_in", "Received", "kB/s", 1e-3),
    _rate_of("bytes_out", "Sent", "kB/s", 1e-3),
    _problems,
)


def _picture(
    name: str, title: str, text: str, panels: Sequence[Draw], histories: Sequence[History]
) -> Picture:
    figure_of, _, _ = _matplotlib()
    rows = -(-len(panels) // 3)
    has_legend = 1 < len(histories) <= MAX_COLOURS
    lines = -(-len(histories) // 6) if has_legend else 0
    height = rows * _PANEL_HEIGHT + 0.25 * lines
    figure = figure_of(figsize=(3 * _PANEL_WIDTH, height), dpi=_DOTS_PER_INCH, layout="constrained")
    shades = colours(len(histories))
    axes = list(figure.subplots(rows, 3, squeeze=False).flat)
    for panel, one in zip(panels, axes, strict=True):
        panel(one, histories, shades)
    if name == "learning":  # rewards of the same scale side by side
        top = max(one.get_ylim()[1] for one in axes)
        for one in axes:
            one.set_ylim(0, top)
    if has_legend:
        handles = [
            axes[0].plot([], [], color=shade, linewidth=2, label=_cut(history.name))[0]
            for history, shade in zip(histories, shades, strict=True)
        ]
        figure.legend(
            handles=handles, loc="outside lower center", ncol=6, fontsize=8, frameon=False
        )
    target = io.BytesIO()
    figure.savefig(target, format="png")
    return Picture(name, title, text, target.getvalue())


def _curve(axes: Any, history: History, key: str, colour: Any) -> None:
    rounds, means, spreads = history.curve(key)
    if not rounds:
        return
    axes.plot(rounds, _smoothed(means, history), color=colour, linewidth=1.8)
    if history.is_binned:
        low = [mean - spread for mean, spread in zip(means, spreads, strict=True)]
        high = [mean + spread for mean, spread in zip(means, spreads, strict=True)]
        axes.fill_between(rounds, low, high, color=colour, alpha=0.08, linewidth=0)
    axes.plot(rounds, means, color=colour, linewidth=0.5, alpha=0.3)


def _smoothed(values: Sequence[float], history: History) -> list[float]:
    """Means over the points around each."""
    share = _BINS_SMOOTHED if history.is_binned else _SMOOTHED
    reach = round(share * len(values) / 2)
    windows = (values[max(0, at - reach) : at + reach + 1] for at in range(len(values)))
    return [sum(window) / len(window) for window in windows]


def _label(axes: Any, title: str, unit: str, zero: bool = True) -> None:
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("round", fontsize=8)
    axes.set_ylabel(unit, fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    if axes.get_ylim()[1] > 9999:
        axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.locator_params(axis="x", nbins=6)
    if zero:
        axes.set_ylim(0, 1.05 * axes.get_ylim()[1])
    if not any(len(line.get_xdata()) for line in axes.lines):
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color="grey")


def _cut(name: str) -> str:
    return name if len(name) <= 28 else f"…{name[-27:]}"


def _matplotlib() -> tuple[Any, Any, Any]:
    """A figure without a window, the colour maps, and colours as text."""
    try:
        from matplotlib import colormaps
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.colors import to_hex
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError("pictures need matplotlib: pip install 'swarmnode[plots]'") from error

    def figure(**arguments: Any) -> Any:
        made = Figure(**arguments)
        FigureCanvasAgg(made)
        return made

    return figure, colormaps.get_cmap, to_hex
