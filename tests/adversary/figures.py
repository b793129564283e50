"""One measured figure of the battery, its target, and how it is printed.

Each part of the battery is a module beside this one with `measure(short: bool) -> list[Figure]`.
`short` is the form that CI can afford: fewer attempts against the same targets.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Comparison = Literal["<=", "<", ">=", ">", "=="]


@dataclass(frozen=True)
class Figure:
    """What was measured; `ok` says whether `value` stands to `target` as `comparison` demands."""

    name: str
    value: float
    unit: str
    target: float
    comparison: Comparison
    ok: bool


def figure(name: str, value: float, unit: str, comparison: Comparison, target: float) -> Figure:
    """The figure, compared. A value that is no number misses every target.

    >>> figure("replays accepted", 0, "of 100,000", "==", 0).ok
    True
    """
    ok = {
        "<=": value <= target,
        "<": value < target,
        ">=": value >= target,
        ">": value > target,
        "==": value == target,
    }[comparison]
    return Figure(name, value, unit, target, comparison, ok)


def line(one: Figure) -> str:
    """One line of the battery's output: verdict, name, figure, target.

    >>> line(figure("replays accepted", 0, "of 100,000", "==", 0))
    'yes replays accepted: 0 of 100,000 (target == 0)'
    """
    verdict = "yes" if one.ok else "NO "
    return (
        f"{verdict} {one.name}: {one.value:.6g} {one.unit} (target {one.comparison} {one.target:g})"
    )


def show(figures: Sequence[Figure]) -> int:
    """Prints the figures; how many missed their target."""
    for one in figures:
        print(line(one))
    return sum(not one.ok for one in figures)
