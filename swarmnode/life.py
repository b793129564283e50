"""What a node says of itself in its run directory, for those who look from outside: is it at work,
paused, waiting, done, or did it fail, and since when.

`life.json` has a fixed size and is written over in place: a full disk does not keep a node from
saying that the disk is full. A node that was killed says nothing; the lock then tells (`look`).
"""

import enum
import fcntl
import json
import os
import time
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

LIFE = "life.json"
# One page: a write of it is seen whole or not at all, and a file system gives it in one piece.
_BYTES = 4096
_MAX_WHY = 1000  # characters; escaped to six bytes each they might not fit


class Phase(enum.StrEnum):
    """What a node is at. The last three are said by a process that ends."""

    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    WAITING = "waiting"  # a round failed; it tries again
    DONE = "done"  # its rounds are done, or its time is over
    STOPPED = "stopped"  # by a signal
    FAILED = "failed"
    CRASHED = "crashed"  # never said: the process is gone and had said nothing of ending
    UNKNOWN = "unknown"  # never said: a run without this file

    @property
    def is_alive(self) -> bool:
        """Whether a process is behind it."""
        return self in (Phase.STARTING, Phase.RUNNING, Phase.PAUSED, Phase.WAITING)


@dataclass(frozen=True, slots=True)
class Life:
    """`why` is one line for a person, empty when there is nothing to explain. Times are Unix
    seconds: `since` of the phase, `started` of the process."""

    phase: Phase
    why: str = ""
    since: float = 0.0
    started: float = 0.0
    pid: int = 0
    version: str = ""


class Teller:
    """Writes the phases of this process into `folder`."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / LIFE
        self._started = time.time()

    def tell(self, phase: Phase, why: str = "") -> None:
        """Replaces what was said before. Raises `OSError` when the disk refuses."""
        life = Life(
            phase, why, time.time(), self._started, os.getpid(), metadata.version("swarmnode")
        )
        _write(self._path, life)


def look(folder: Path) -> Life:
    """What the node in `folder` last said, or that it crashed. Raises `OSError`."""
    said = _read(folder / LIFE)
    is_held = _is_locked(folder / "lock")
    if said is None:
        return Life(Phase.RUNNING if is_held else Phase.UNKNOWN)
    if said.phase.is_alive and not is_held:
        return Life(Phase.CRASHED, said.why, said.since, said.started, said.pid, said.version)
    if is_held and not said.phase.is_alive:  # a new process has not spoken yet, or leaves just now
        return Life(Phase.STARTING, version=said.version)
    return said


def _write(path: Path, life: Life) -> None:
    text = json.dumps(asdict(life) | {"why": life.why[:_MAX_WHY]}, ensure_ascii=False)
    data = text.encode("utf-8", "replace")
    if len(data) >= _BYTES:
        data = json.dumps(asdict(life) | {"why": ""}).encode()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        os.pwrite(descriptor, data.ljust(_BYTES - 1) + b"\n", 0)
    finally:
        os.close(descriptor)


def _read(path: Path) -> Life | None:
    try:
        said = json.loads(path.read_bytes())
        return Life(**said | {"phase": Phase(said["phase"])})
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None


def _is_locked(path: Path) -> bool:
    """Whether a node holds the lock. To find out it is shared for an instant."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
