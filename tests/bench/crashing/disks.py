"""A node whose disk is full, and one whose disk turns read-only under it. Needs root: it mounts.

Full: a tmpfs of 16 MB that somebody else fills. Read-only: ext4 on a file, told to act as after a
failed write to its medium (`mount -o remount,abort`), so that files that are open fail, too.
"""

import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from crashing import lives
from crashing.judge import Reference, judge
from crashing.outcome import Outcome

_MEGABYTES = 24
_GIVE_UP_S = 600.0


def full(folder: Path, times: int, expected: Reference, rng: random.Random) -> Outcome:
    """Lives on a disk that is filled at some moment and has room again for the next life."""
    outcome = Outcome("disk full")
    for _ in range(times):
        with lives.mounted(folder / "disk", "-t", "tmpfs", "-o", "size=16m", "tmpfs") as disk:
            run = _new_run(disk, folder)
            _disturbed(run, folder, rng, lambda on=disk: _fill(on), outcome, "No space left")
            outcome.note(judge(run, expected))
            (disk / "filler").unlink()
            _resumed(run, folder, expected, outcome)
    return outcome


def read_only(folder: Path, times: int, expected: Reference, rng: random.Random) -> Outcome:
    """Lives on a disk that turns read-only at some moment and is mounted afresh for the next."""
    outcome = Outcome("disk read-only")
    for _ in range(times):
        with _image(folder / "disk.ext4") as image:
            with lives.mounted(folder / "disk", "-o", "loop", str(image)) as disk:
                run = _new_run(disk, folder)
                _disturbed(run, folder, rng, lambda on=disk: _abort(on), outcome, "ead-only")
            with lives.mounted(folder / "disk", "-o", "loop", str(image)):
                outcome.note(judge(run, expected))
                _resumed(run, folder, expected, outcome)
    return outcome


def _new_run(disk: Path, folder: Path) -> Path:
    run = disk / "run"
    run.mkdir(mode=0o700)
    shutil.copy2(folder / "straight" / "identity.key", run / "identity.key")
    os.sync()  # the key is the harness's doing; what the node writes is on trial
    return run


def _disturbed(
    run: Path,
    folder: Path,
    rng: random.Random,
    disturb: Callable[[], None],
    outcome: Outcome,
    word: str,
) -> None:
    """A life that is disturbed in one of its first rounds, to its end."""
    said = folder / "said.txt"
    child = lives.begin(run, rounds=10_000, settings=folder / "node.toml", said=said)
    wanted, deadline = rng.randint(1, 4), time.monotonic() + _GIVE_UP_S
    while _rows(run) < wanted and not lives.has_ended(child) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(rng.uniform(0, 0.3))
    disturb()
    outcome.ended(lives.end(child), said.read_text(), 1, word)


def _resumed(run: Path, folder: Path, expected: Reference, outcome: Outcome) -> None:
    """The next life does two more rounds, which must be those of the uninterrupted run."""
    before = judge(run, expected).saved
    said = folder / "said.txt"
    rounds = min(before + 2, expected.last)
    code = lives.end(lives.begin(run, rounds=rounds, settings=folder / "node.toml", said=said))
    after = judge(run, expected)
    outcome.resumed(code == 0 and not after.corrupt and after.saved == rounds)


def _rows(run: Path) -> int:
    try:
        return (run / "rounds.jsonl").read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def _fill(disk: Path) -> None:
    with (disk / "filler").open("wb", buffering=0) as file:
        for size in (2**20, 2**12, 1):
            try:
                while file.write(b"\0" * size) == size:
                    pass
            except OSError:
                continue


def _abort(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,abort", str(disk)], check=True, capture_output=True)


@contextmanager
def _image(path: Path) -> Iterator[Path]:
    with path.open("wb") as file:
        file.truncate(_MEGABYTES * 2**20)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(path)], check=True)
    try:
        yield path
    finally:
        path.unlink()
