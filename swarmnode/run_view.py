"""How a run stands, read from its directory alone: what `status`, `top` and other readers show.

It needs neither the node nor a network, and reads the ends of files, whatever their length. Nothing
here writes or prints.
"""

import json
import time
import tomllib
import urllib.request
from collections import Counter
from collections.abc import Sequence, Sized
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

from swarmnode import life
from swarmnode.errors import ConfigError, SwarmNodeError
from swarmnode.life import Life, Phase
from swarmnode.rows import newest_rows

# Rounds that a mean is over: one alone is noise.
RECENT_ROUNDS = 10
# Rounds that tell whose rollouts came.
_MODEL_ROUNDS = 50
# Rows of models shown; the rest is counted as one.
_MAX_MODELS = 8
# A node is late after so many of its usual rounds without one, and not before so many seconds.
_LATE_ROUNDS, _LATE_S = 10.0, 60.0
_METRICS_S = 2.0
_MAX_METRICS_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class RunView:
    """A run at the moment `now`, Unix seconds.

    `rows` are its last rounds, oldest first; `settings` is the tree of its config.toml;
    `first_evaluation` and `evaluation` are the oldest and newest rows of evaluations.jsonl.
    """

    path: Path
    now: float
    life: Life
    settings: dict[str, Any]
    swarm: str
    device: str
    rows: Sequence[dict[str, Any]]
    first_evaluation: dict[str, Any] | None
    evaluation: dict[str, Any] | None
    metrics: str
    answers: bool | None
    last_log_line: str

    @property
    def row(self) -> dict[str, Any] | None:
        """The newest round, if there is one."""
        return self.rows[-1] if self.rows else None

    @property
    def quiet_s(self) -> float | None:
        """Seconds since the last round ended."""
        return max(0.0, self.now - self.row["time"]) if self.row else None

    @property
    def is_late(self) -> bool:
        """Whether a running node has done no round for far longer than its rounds take."""
        quiet = self.quiet_s
        if quiet is None:
            began = self.life.since or self.now
            return self.life.phase is Phase.RUNNING and self.now - began > _LATE_ROUNDS * _LATE_S
        usual = max(self.round_s, float(self.setting("run", "min_round_s", 0.0)))
        return self.life.phase is Phase.RUNNING and quiet > max(_LATE_S, _LATE_ROUNDS * usual)

    @property
    def round_s(self) -> float:
        """Seconds of work of a round lately."""
        return mean([row["seconds"]["total"] for row in self.rows[-RECENT_ROUNDS:]]) or 0.0

    def recent(self, key: str) -> float | None:
        """The mean of `key` over the last rounds in which it was measured."""
        return mean([row[key] for row in self.rows[-RECENT_ROUNDS:] if row.get(key) is not None])

    def setting(self, section: str, key: str, default: Any) -> Any:
        """A setting of the run, or the default for a run of another version."""
        return self.settings.get(section, {}).get(key, default)

    def models(self) -> dict[str, int]:
        """Groups that came lately by the model that their authors say they run, most first."""
        found: Counter[str] = Counter()
        for row in self.rows:
            found.update(row.get("external_by_model", {}))
        shown = dict(found.most_common(_MAX_MODELS))
        rest = found.total() - sum(shown.values())
        return shown | ({"others": rest} if rest else {})

    def rates(self) -> dict[str, float]:
        """Per second over the last rounds, rests included: tokens, bytes in and out, rounds."""
        rows = self.rows
        span = rows[-1]["time"] - rows[0]["time"] if len(rows) > 1 else 0.0
        if span <= 0:
            return {}
        first, last = rows[0]["totals"], rows[-1]["totals"]
        names = {"tokens": "tokens_generated", "bytes_in": "bytes_in", "bytes_out": "bytes_out"}
        rates = {name: max(0, last[key] - first[key]) / span for name, key in names.items()}
        return rates | {"rounds": (len(rows) - 1) / span}

    def phases(self) -> dict[str, float]:
        """The share of the time of the last rounds that each phase took; they sum to 1."""
        seconds: Counter[str] = Counter()
        for row in self.rows[-RECENT_ROUNDS:]:
            seconds.update(row["seconds"])
        total = seconds.pop("total", 0.0)
        if total <= 0:
            return {}
        shares = {name: value / total for name, value in seconds.items()}
        return shares | {"other": max(0.0, 1 - sum(shares.values()))}


def view(run: Path, now: float | None = None) -> RunView:
    """How the run in `run` stands. Raises `ConfigError` for a folder that is no run, and
    `SwarmNodeError` when it cannot be read."""
    check_is_run(run)
    try:
        evaluations = run / "evaluations.jsonl"
        newest = newest_rows(evaluations, 1)
        metrics = _first_line(run / "metrics.txt")
        said = life.look(run)
        return RunView(
            path=run,
            now=time.time() if now is None else now,
            life=said,
            settings=_toml(run / "config.toml"),
            swarm=str(_toml(run / "manifest.toml").get("name", "")),
            device=str(_json(run / "environment.json").get("device", "")),
            rows=newest_rows(run / "rounds.jsonl", _MODEL_ROUNDS),
            first_evaluation=_first_row(evaluations) if newest else None,
            evaluation=newest[0] if newest else None,
            metrics=metrics,
            answers=_answers(metrics) if metrics and said.phase.is_alive else None,
            last_log_line=_last_line(run / "node.log"),
        )
    except OSError as error:
        raise SwarmNodeError(f"cannot read the run in {run}: {error.strerror}") from error


def check_is_run(run: Path) -> None:
    """Raises `ConfigError` unless `run` is the run directory of one node."""
    if (run / "lock").exists() or (run / "rounds.jsonl").exists():
        return
    if nodes := nodes_of(run):
        listed = ", ".join(map(str, nodes))
        raise ConfigError(f"{run} holds the nodes of a demo: give one of them, {listed}")
    what = "has no run in it" if run.is_dir() else "is no folder"
    raise ConfigError(f"{run} {what}: give the run directory of a node (join's --run)")


def nodes_of(folder: Path) -> list[Path]:
    """The run directories of a demo's nodes, in order."""
    found = [path for path in folder.glob("node-*") if (path / "lock").exists()]
    return sorted(found, key=lambda path: (len(path.name), path.name))


def alone_because(row: dict[str, Any]) -> str:
    """Why the node had no peer in that round, in words; empty when it had one."""
    if row.get("alone_because"):
        return str(row["alone_because"])
    return "" if row["peers"] else str(row["waiting_for"]) or "no peer is connected"


def mean(values: Sequence[float]) -> float | None:
    """The mean; None of nothing."""
    return sum(values) / len(values) if values else None


def peers_trained_from(named: Sized, others: int) -> str:
    """How many peers gave groups that were trained on, of `Totals`, for a person."""
    return f"more than {len(named):,}" if others else f"{len(named):,}"


def mean_accuracy(evaluation: dict[str, Any], key: str = "accuracy") -> float:
    """The mean over tasks of a row of evaluations.jsonl."""
    return mean(list(evaluation[key].values())) or 0.0


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return found if type(found) is dict else {}


def _first_line(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").partition("\n")[0]
    except FileNotFoundError:
        return ""


def _first_row(path: Path) -> dict[str, Any] | None:
    with path.open("rb") as file:
        try:
            row = json.loads(file.readline())
        except ValueError:
            return None
    return row if type(row) is dict else None


def _last_line(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 4096))
            lines = file.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return ""
    return lines[-1] if lines else ""


def _answers(url: str) -> bool:
    """Whether the node's metrics address answers at once, with its metrics."""
    if not url.startswith("http://"):
        return False
    try:
        with urllib.request.urlopen(url, timeout=_METRICS_S) as answer:  # noqa: S310  http only
            return b"swarmnode_rounds_total" in answer.read(_MAX_METRICS_BYTES)
    except (OSError, HTTPException):
        return False
