"""A run's rows as a few hundred points per figure, whatever their number.

The file is read once, line by line: memory does not grow with it, and of a row only what is drawn
is decoded.
"""

import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from swarmnode.errors import ConfigError, SwarmNodeError
from swarmnode.rows import newest_rows
from swarmnode.run_view import check_is_run, mean_accuracy

# Points of a curve. More cannot be told apart in a picture of 1,300 pixels.
MAX_BINS = 400

# Means over the rounds of a bin in which they were measured.
MEANS = (
    "own_reward", "external_reward", "loss", "grad_norm", "kl", "kl_external", "entropy",
    "clip_fraction", "staleness_s", "staleness_rounds", "effective_ratio", "foreign_share",
    "sharing_gain", "pool_groups", "peers",
)  # fmt: skip
# Counts since the run began, as they were at the end of a bin.
COUNTS = (
    "tokens_generated", "bytes_in", "bytes_out", "own_groups_trained", "external_groups_trained",
    "published", "fetched", "accepted", "rounds_without_step", "rounds_failed",
)  # fmt: skip


class _Totals(msgspec.Struct):
    """Of a row's totals what is drawn; an older version's row may lack some."""

    tokens_generated: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    own_groups_trained: int = 0
    external_groups_trained: int = 0
    published: int = 0
    fetched: int = 0
    accepted: int = 0
    rounds_without_step: int = 0
    rounds_failed: int = 0
    refused: dict[str, int] = {}
    missed: dict[str, int] = {}
    trained_from: dict[str, int] = {}
    trained_from_others: int = 0


class _Row(msgspec.Struct):
    """Of a row what is drawn."""

    round: int
    time: float
    totals: _Totals
    own_reward: float | None = None
    external_reward: float | None = None
    loss: float | None = None
    grad_norm: float | None = None
    kl: float | None = None
    kl_external: float | None = None
    entropy: float | None = None
    clip_fraction: float | None = None
    staleness_s: float | None = None
    staleness_rounds: float | None = None
    effective_ratio: float | None = None
    foreign_share: float | None = None
    sharing_gain: float | None = None
    sharing_gain_error: float | None = None
    pool_groups: float | None = None
    peers: float | None = None
    seconds: dict[str, float] = {}


@dataclass(slots=True)
class Bin:
    """Neighbouring rounds, from `first` to `last`; `time` is when the last ended, Unix seconds.

    `seconds` are sums by phase; `spread` are standard deviations over the rounds.
    """

    first: int
    last: int = 0
    rounds: int = 0
    time: float = 0.0
    means: dict[str, float] = field(default_factory=dict)
    spread: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    refused: int = 0
    missed: int = 0
    seconds: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class History:
    """A run, from its first round to its last. `refused`, `missed` and `trained_from` are its final
    counts; `evaluations` are all rows of evaluations.jsonl; `facts` are its environment.json."""

    name: str
    path: Path
    bins: Sequence[Bin]
    rounds: int
    began: float
    refused: Mapping[str, int]
    missed: Mapping[str, int]
    trained_from: Mapping[str, int]
    trained_from_others: int
    gain: tuple[float, float] | None
    evaluations: Sequence[Mapping[str, Any]]
    settings: Mapping[str, Any]
    manifest: Mapping[str, Any]
    facts: Mapping[str, Any]

    @property
    def is_binned(self) -> bool:
        """Whether a point stands for several rounds."""
        return self.rounds > len(self.bins)

    def curve(self, key: str) -> tuple[list[float], list[float], list[float]]:
        """Rounds, means and standard deviations of `key` where it was measured."""
        points = [
            ((b.first + b.last) / 2, b.means[key], b.spread[key])
            for b in self.bins
            if key in b.means
        ]
        xs, means, spreads = zip(*points, strict=True) if points else ((), (), ())
        return list(xs), list(means), list(spreads)

    def rate(self, key: str) -> tuple[list[float], list[float]]:
        """Rounds, and what was added to the count `key` per second since the bin before."""
        xs, ys = [], []
        pairs = zip(self.bins, self.bins[1:], strict=False)
        for before, after in pairs:
            span = after.time - before.time
            added = after.counts[key] - before.counts[key]
            if span > 0 and added >= 0:
                xs.append((after.first + after.last) / 2)
                ys.append(added / span)
        return xs, ys

    def held_out(self) -> tuple[list[int], list[float]]:
        """Rounds and mean accuracies of the evaluations."""
        return (
            [row["round"] for row in self.evaluations],
            [mean_accuracy(dict(row)) for row in self.evaluations],
        )

    def share(self, last: float) -> Sequence[Bin]:
        """The bins of the last share of the run, one at least."""
        return self.bins[-max(1, round(len(self.bins) * last)) :]


def read(path: Path, name: str) -> History:
    """The run in `path`. Raises `ConfigError` for what is no run or has no round yet."""
    check_is_run(path)
    newest = newest_rows(path / "rounds.jsonl", 1)
    if not newest:
        raise ConfigError(f"{path} has no round yet: report it once it has")
    try:
        bins, last = _binned(path / "rounds.jsonl", newest[0]["round"])
    except OSError as error:
        raise SwarmNodeError(f"cannot read the run in {path}: {error.strerror}") from error
    row = msgspec.convert(newest[0], _Row)
    has_gain = row.sharing_gain is not None and row.sharing_gain_error is not None
    return History(
        name=name,
        path=path,
        bins=bins,
        rounds=last,
        began=bins[0].time,
        refused=row.totals.refused,
        missed=row.totals.missed,
        trained_from=row.totals.trained_from,
        trained_from_others=row.totals.trained_from_others,
        gain=(row.sharing_gain or 0.0, row.sharing_gain_error or 0.0) if has_gain else None,
        evaluations=_evaluations(path / "evaluations.jsonl"),
        settings=_toml(path / "config.toml"),
        manifest=_toml(path / "manifest.toml"),
        facts=_json(path / "environment.json"),
    )


def _binned(path: Path, last_round: int) -> tuple[list[Bin], int]:
    """The bins that have rounds, and the last round."""
    decoder = msgspec.json.Decoder(_Row)
    count = min(MAX_BINS, last_round)
    bins: list[Bin] = []
    current: tuple[int, _Sums] | None = None
    last = 0
    with path.open("rb") as file:
        for line in file:
            try:
                row = decoder.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue  # cut short by a crash, or being written
            if not last < row.round <= last_round:
                continue  # of a round that was done twice, or newer than this look
            last = row.round
            index = (row.round - 1) * count // last_round
            if current is None or current[0] != index:
                if current is not None:
                    bins.append(current[1].bin())
                current = (index, _Sums(row.round))
            current[1].add(row)
    if current is not None:
        bins.append(current[1].bin())
    return bins, last


class _Sums:
    """A bin while it is filled."""

    def __init__(self, first: int) -> None:
        self._bin = Bin(first)
        self._sums: dict[str, list[float]] = {}  # key → count, sum, sum of squares

    def add(self, row: _Row) -> None:
        found, totals = self._bin, row.totals
        found.last, found.time = row.round, row.time
        found.rounds += 1
        for key in MEANS:
            value = getattr(row, key)
            if value is not None:
                sums = self._sums.setdefault(key, [0.0, 0.0, 0.0])
                sums[0] += 1
                sums[1] += value
                sums[2] += value * value
        found.counts = {key: getattr(totals, key) for key in COUNTS}
        found.refused, found.missed = sum(totals.refused.values()), sum(totals.missed.values())
        found.seconds.update(row.seconds)

    def bin(self) -> Bin:
        for key, (count, total, squares) in self._sums.items():
            mean = total / count
            self._bin.means[key] = mean
            self._bin.spread[key] = max(0.0, squares / count - mean * mean) ** 0.5
        return self._bin


def _evaluations(path: Path) -> list[dict[str, Any]]:
    rows = []
    try:
        with path.open("rb") as file:
            for line in file:
                try:
                    rows.append(msgspec.json.decode(line, type=dict[str, Any]))
                except (msgspec.DecodeError, UnicodeDecodeError):
                    continue
    except FileNotFoundError:
        return []
    every = -(-len(rows) // MAX_BINS)  # as many points as a curve has, the last one always
    return rows[::-1][:: max(1, every)][::-1]


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _json(path: Path) -> dict[str, Any]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError):
        return {}
