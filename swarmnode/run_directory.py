"""A run on disk: settings in force, manifest, environment, checkpoints, and two files of JSON
lines, `rounds.jsonl` (`report.RoundReport`) and `evaluations.jsonl` (`report.Evaluation`).

Exactly one process uses a run directory at a time; the lock is the kernel's, so it goes with the
process however that ends.
"""

import errno
import fcntl
import json
import logging
import os
import platform
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from swarmnode import rows
from swarmnode.errors import ConfigError, SwarmNodeError
from swarmnode.life import Phase, Teller

log = logging.getLogger(__name__)

MANIFEST = "manifest.toml"
_RECORDED_PACKAGES = (
    "torch", "transformers", "hivemind", "libp2p", "reasoning_gym", "msgspec", "PyNaCl"
)  # fmt: skip
# Whoever looks whether a node runs shares the lock for microseconds (`life.look`).
_LOCK_TRIES, _LOCK_PAUSE_S = 5, 0.02


class RunDirectory:
    """One run's folder. `open` takes the lock; `close` gives it back."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: IO[str] | None = None
        self._teller = Teller(path)

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
            _take(lock)
        except OSError as error:
            lock.close()
            raise ConfigError(
                f"another node is running in {self.path}: stop it, or choose another with --run"
            ) from error
        self._lock = lock

    def write(self, name: str, text: str) -> None:
        """Replaces one small file atomically. Raises `SwarmNodeError` when the disk refuses.

        A power cut leaves the old one or the new one: an empty `config.toml` would be taken for
        one that sets nothing.
        """
        target, temporary = self.path / name, self.path / f".{name}.new"
        try:
            with temporary.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except OSError as error:
            raise SwarmNodeError(f"cannot write {target}: {error.strerror}") from error

    def tell(self, phase: Phase, why: str = "") -> None:
        """Says in `life.json` what the node is at. A disk that refuses is logged and no more: what
        a node says of itself must not end it."""
        try:
            self._teller.tell(phase, why)
        except OSError as error:
            log.warning("cannot write life.json phase=%s error=%s", phase, error.strerror)

    def keep_rows_up_to(self, round: int) -> None:
        """Drops the rows after `round`: a resumed run does those rounds again.

        What a crash cut short at the end is dropped, too. `SwarmNodeError` when the disk refuses.
        """
        for path in (self.rounds, self.evaluations):
            try:
                rows.keep_up_to(path, round)
            except OSError as error:
                raise SwarmNodeError(f"cannot write {path}: {error.strerror}") from error

    def flush_rows(self) -> None:
        """Waits until the rows are on the disk: a checkpoint must not outlive those before it.
        `SwarmNodeError` when the disk refuses."""
        for path in (self.rounds, self.evaluations):
            if not path.exists():
                continue
            try:
                with path.open("rb") as file:
                    os.fsync(file.fileno())
            except OSError as error:
                raise SwarmNodeError(f"cannot write {path}: {error.strerror}") from error

    def append(self, path: Path, row: Mapping[str, Any]) -> None:
        """Adds one line to `rounds` or `evaluations`, whole or not at all. `SwarmNodeError` when
        the disk refuses."""
        line = _line(row).encode()
        try:
            with path.open("ab", buffering=0) as file:
                end = file.tell()
                try:
                    if file.write(line) < len(line):
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                except OSError:
                    file.truncate(end)  # half a line would spoil the next one
                    raise
        except OSError as error:
            raise SwarmNodeError(f"cannot write {path}: {error.strerror}") from error

    def close(self) -> None:
        """Gives the lock back. May be called twice."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def _take(lock: IO[str]) -> None:
    """Takes the exclusive lock; raises `BlockingIOError` when another process keeps it."""
    for tries_left in reversed(range(_LOCK_TRIES)):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not tries_left:
                raise
            time.sleep(_LOCK_PAUSE_S)
        else:
            return


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
    found = []
    for line in lines:
        try:
            found.append(json.loads(line))
        except ValueError:  # not JSON, or not even text: power cuts leave zeros
            continue
    return found


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
