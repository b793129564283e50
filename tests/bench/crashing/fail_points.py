"""Every disk operation of the node as a named fail point, found by itself.

Python's profiler tells of each call of a C function, before and after it. Of those that change
what is on disk, the name is where in `swarmnode/` the call came from and what it was:

    train/checkpoint.py:save rename      before | after, the first, the second … time in a life

The code under test is neither changed nor replaced: it is watched. New code that writes files has
fail points without a word here.
"""

import json
import os
import signal
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import swarmnode

ROOT = str(Path(swarmnode.__file__).parent) + os.sep
OPERATIONS = frozenset({
    "fsync", "mkdir", "pwrite", "remove", "rename", "replace", "rmdir", "serialize_file",
    "truncate", "unlink", "write",
})  # fmt: skip
# What is written through these is no state: the log, and what is said to other processes.
_NOT_STATE = (f"{os.sep}logging{os.sep}", f"{os.sep}subprocess.py", "tasks/scorer.py")
_WHEN = {"c_call": "before", "c_return": "after"}


@dataclass(frozen=True, slots=True, order=True)
class FailPoint:
    """A place in the code, and before or after the operation there."""

    name: str
    when: str


class Observer:
    """Counts fail points passed; kills its own process at `target`, the `count`-th time."""

    def __init__(self, target: FailPoint | None = None, count: int = 1) -> None:
        self.passed: Counter[FailPoint] = Counter()
        self._target = target
        self._count = count

    def start(self) -> None:
        sys.setprofile(self._told)

    def stop(self) -> None:
        sys.setprofile(None)

    def _told(self, frame: FrameType, event: str, function: Any) -> None:
        when = _WHEN.get(event)
        if when is None or function.__name__ not in OPERATIONS:
            return
        name = _name(frame, function.__name__)
        if name is None:
            return
        point = FailPoint(name, when)
        self.passed[point] += 1
        if point == self._target and self.passed[point] == self._count:
            os.kill(os.getpid(), signal.SIGKILL)


def write(path: Path, passed: Counter[FailPoint]) -> None:
    """What a life passed, for the process that forked it."""
    path.write_text(json.dumps([[p.name, p.when, n] for p, n in passed.items()]))


def read(path: Path) -> Counter[FailPoint]:
    """What `write` wrote."""
    return Counter({FailPoint(name, when): n for name, when, n in json.loads(path.read_text())})


def _name(frame: FrameType, operation: str) -> str | None:
    """None for what does not come from the node's code, or is no state of it."""
    at: FrameType | None = frame
    while at is not None:
        file = at.f_code.co_filename
        if file.endswith(_NOT_STATE) or any(part in file for part in _NOT_STATE):
            return None
        if file.startswith(ROOT):
            return f"{file.removeprefix(ROOT)}:{at.f_code.co_qualname} {operation}"
        at = at.f_back
    return None
