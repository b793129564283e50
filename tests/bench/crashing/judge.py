"""What a crash left on disk, judged against a run that was never interrupted.

A state is corrupt when anything that the next start reads is damaged or is not, bit for bit, what
the uninterrupted run had at that round: weights, optimiser, random generators, counters, rows.
Only what a clock measured may differ.
"""

import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from swarmnode import identity, life
from swarmnode.errors import SwarmNodeError
from swarmnode.run_directory import read_rows
from swarmnode.train import checkpoint

_OF_A_ROW = ("own_reward", "loss", "grad_norm", "entropy", "own_groups_with_signal")


@dataclass(frozen=True, slots=True)
class Reference:
    """The uninterrupted run: by round, its state's digests and its row."""

    states: Mapping[int, tuple[str, str, str]]
    rows: Mapping[int, tuple[Any, ...]]

    @property
    def last(self) -> int:
        return max(self.states)


@dataclass(frozen=True, slots=True)
class Verdict:
    """`saved`: the round of the newest checkpoint, 0 without any; `finished`: of the newest row."""

    corrupt: tuple[str, ...]
    saved: int
    finished: int

    @property
    def lost(self) -> int:
        """Finished rounds that must be done again. The one in hand is done again in any case."""
        return max(0, self.finished - self.saved)


def reference(run: Path) -> Reference:
    """Of a run that kept every checkpoint."""
    states = {
        int(path.name.removeprefix("round-")): _state(path)
        for path in (run / "checkpoints").glob("round-*")
    }
    return Reference(states, {row["round"]: _row(row) for row in read_rows(run / "rounds.jsonl")})


def judge(run: Path, expected: Reference) -> Verdict:
    """Looks as the next start does; changes nothing."""
    latest = checkpoint.load_latest(run / "checkpoints")
    saved = latest.checkpoint.round if latest.checkpoint else 0
    corrupt = [f"{skipped.name}: {skipped.reason}" for skipped in latest.skipped]
    for path in sorted((run / "checkpoints").glob("round-*")):
        number = int(path.name.removeprefix("round-"))
        if _state(path) != expected.states.get(number):
            corrupt.append(f"{path.name}: not what an uninterrupted run has")
    rows = read_rows(run / "rounds.jsonl")
    numbers = [row["round"] for row in rows]
    if numbers != list(range(1, len(numbers) + 1)):
        corrupt.append(f"rows {numbers}")
    corrupt += [
        f"row {row['round']}: not what an uninterrupted run has"
        for row in rows
        if _row(row) != expected.rows.get(row["round"])
    ]
    if len(rows) < saved:
        corrupt.append(f"{len(rows)} rows, but a checkpoint of round {saved}")
    return Verdict((*corrupt, *_damaged_files(run)), saved, len(rows))


def _damaged_files(run: Path) -> list[str]:
    """Other files that the next start, `status` or `export` reads; they may be absent."""
    readers: dict[str, Callable[[Path], object]] = {
        "config.toml": lambda path: tomllib.loads(path.read_text()),
        "manifest.toml": lambda path: tomllib.loads(path.read_text()),
        "environment.json": lambda path: json.loads(path.read_text()),
        "identity.key": identity.load,
        "model": lambda path: load_file(path / "model.safetensors"),
        "model/config.json": lambda path: json.loads(path.read_text()),
        "model/tokenizer.json": lambda path: json.loads(path.read_text()),
    }
    damaged = []
    for name, read in readers.items():
        if not (run / name).exists():
            continue
        try:
            read(run / name)
        except (OSError, ValueError, SafetensorError, SwarmNodeError) as error:
            damaged.append(f"{name}: {error!r}")
    if life.look(run).phase.is_alive:
        damaged.append("life.json: says that the node runs")
    return damaged


def _state(path: Path) -> tuple[str, str, str]:
    """Digests of the tensors, and what else is in a checkpoint but for times.

    `evaluated_round` differs by right: a life that reaches its last round evaluates there.
    """
    files = json.loads((path / checkpoint.MANIFEST).read_bytes())["files"]
    state = json.loads((path / checkpoint.STATE).read_bytes())
    del state["totals"]["wall_s"], state["evaluated_round"]
    tensors = (files[name]["sha256"] for name in (checkpoint.MODEL, checkpoint.OPTIMIZER))
    return (*tensors, json.dumps(state, sort_keys=True))  # type: ignore[return-value]  # three


def _row(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in _OF_A_ROW)
