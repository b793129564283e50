"""A run on disk: settings in force, manifest, environment, checkpoints, and two files of JSON
lines, `rounds.jsonl` (`report.RoundReport`) and `evaluations.jsonl` (`report.Evaluation`).

Exactly one process uses a run directory at a time; the lock is the kernel's, so it goes with the
process however that ends.
"""

import fcntl
import json
import os
import platform
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from swarmnode.errors import ConfigError, SwarmNodeError

MANIFEST = "manifest.toml"
_RECORDED_PACKAGES = (
    "torch", "transformers", "hivemind", "libp2p", "reasoning_gym", "msgspec", "PyNaCl"
)  # fmt: skip


class RunDirectory:
    """One run's folder. `open` takes the lock; `close` gives it back."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: IO[str] | None = None

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def identity(self) -> Path:
        return self.path / "identity.key"

    @property
    def log(self) -> Path:
        return self.path / "node.log"

    @property
    def rounds(self) -> Path:
        return self.path / "rounds.jsonl"

    @property
    def evaluations(self) -> Path:
        return self.path / "evaluations.jsonl"

    def open(self) -> None:
        """Creates the folder if need be and locks it.

        Raises `ConfigError` when it cannot be written to or another node is using it.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / "lock").open("w")
        except OSError as error:
            raise ConfigError(
                f"cannot write to the run directory {self.path} ({error.strerror}): "
                "choose another with --run, or make it writable"
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.close()
            raise ConfigError(
                f"another node is running in {self.path}: stop it, or choose another with --run"
            ) from error
        self._lock = lock

    def write(self, name: str, text: str) -> None:
        """Replaces one small file atomically. Raises `SwarmNodeError` when the disk refuses."""
        target, temporary = self.path / name, self.path / f".{name}.new"
        try:
            temporary.write_text(text, encoding="utf-8")
            os.replace(temporary, target)
        except OSError as error:
            raise SwarmNodeError(f"cannot write {target}: {error.strerror}") from error

    def keep_rows_up_to(self, round: int) -> None:
        """Drops the rows after `round`: a resumed run does those rounds again.

        Lines that are cut short are dropped, too.
        """
        for path in (self.rounds, self.evaluations):
            rows = [row for row in read_rows(path) if row["round"] <= round]
            self.write(path.name, "".join(_line(row) for row in rows))

    def append(self, path: Path, row: Mapping[str, Any]) -> None:
        """Adds one line to `rounds` or `evaluations`. `SwarmNodeError` when the disk refuses."""
        try:
            with path.open("ab") as file:
                file.write(_line(row).encode())
        except OSError as error:
            raise SwarmNodeError(f"cannot write {path}: {error.strerror}") from error

    def close(self) -> None:
        """Gives the lock back. May be called twice."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def first_free(name: str, parent: Path = Path("runs")) -> RunDirectory:
    """An opened run directory `parent/name`, or `name-2`, `name-3`, … if nodes run in those."""
    for number in range(1, 1000):
        directory = RunDirectory(parent / (name if number == 1 else f"{name}-{number}"))
        try:
            directory.open()
        except ConfigError as error:
            if isinstance(error.__cause__, BlockingIOError):
                continue
            raise
        return directory
    raise ConfigError(f"no free run directory under {parent}: choose one with --run")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines; none if it is absent. What a crash or a full disk cut short
    is left out, and so is a line that is being written."""
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    rows = []
    for line in lines:
        try:
            rows.append(json.loads(line))
        except ValueError:  # not JSON, or not even text: power cuts leave zeros
            continue
    return rows


def environment(seed: int, device: str, threads: int) -> dict[str, Any]:
    """Versions, seed and hardware, as recorded in `environment.json`."""
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "packages": _versions(),
        "swarmnode": metadata.version("swarmnode"),
        "seed": seed,
        "device": device,
        "threads": threads,
    }


def _versions() -> dict[str, str]:
    """Those of the recorded packages that are here: of the network's two libraries one may do."""
    found = {}
    for name in _RECORDED_PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, separators=(",", ":"), allow_nan=False) + "\n"
