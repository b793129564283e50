"""SIGKILL at random moments and at named fail points, judged each time.

Half of the kills fall at fail points, each of which gets its turn before any gets a second; of the
others half fall anywhere in a start, half anywhere in the rounds after it.
"""

import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from crashing import fail_points, lives
from crashing.fail_points import FailPoint, Observer
from crashing.judge import Reference, Verdict, judge, reference

# How often a fail point is aimed at in vain before another is.
_LOOK_S = 0.004
_GIVE_UP_S = 600.0
# Rounds that a life aimed at a fail point does: enough to come by every point, its end included.
_SHORT = 2


@dataclass(slots=True)
class Tally:
    """What the kills did. `lost` counts finished rounds that had to be done again."""

    kills: Counter[str] = field(default_factory=Counter)
    where: Counter[str] = field(default_factory=Counter)
    corrupt: list[str] = field(default_factory=list)
    lost: Counter[int] = field(default_factory=Counter)
    resumed: int = 0
    went_on: int = 0
    rounds_equal: int = 0
    ended: int = 0
    points: Counter[FailPoint] = field(default_factory=Counter)

    @property
    def total(self) -> int:
        return sum(self.kills.values())


class KillLoop:
    """Kills one run after another, all with one identity, below `folder`."""

    def __init__(self, folder: Path, rounds: int, rng: random.Random) -> None:
        self._folder = folder
        self._rounds = rounds
        self._rng = rng
        self._run = folder / "run-0"
        self._settings = folder / "node.toml"
        self._said = folder / "said.txt"
        self._runs = 0
        self._start_s = self._round_s = 1.0  # how long these take now, on this machine

    def prepare(self) -> tuple[Reference, list[FailPoint]]:
        """Runs the uninterrupted run, and finds the fail points of a start, rounds and an end."""
        self._settings.write_text(lives.CONFIG.format(keep=2))
        (self._folder / "swarm.toml").write_text(lives.MANIFEST)
        keep_all = self._folder / "reference.toml"
        keep_all.write_text(lives.CONFIG.format(keep=self._rounds))
        straight = self._folder / "straight"
        found = Counter(self._observed(straight, self._rounds, keep_all))
        expected = reference(straight)
        watched = self._new_run()
        for rounds in (_SHORT, 2 * _SHORT):
            found |= self._observed(watched, rounds, self._settings)
        shutil.rmtree(watched)
        self._run = self._new_run()
        return expected, sorted(found)

    def kill(self, count: int, expected: Reference, points: list[FailPoint], until: float) -> Tally:
        """Kills `count` lives, fewer if it is `until` (Unix seconds) before."""
        tally = Tally()
        turns, shown = self._turns(points), 0
        before = Verdict((), 0, 0)
        while tally.total < count and time.time() < until:
            if tally.total % 100 == 0 and tally.total > shown:
                shown = tally.total
                told = f"{shown} kills, corrupt {len(tally.corrupt)}, lost {dict(tally.lost)}"
                print(told, file=sys.stderr, flush=True)
            if before.saved + 2 * _SHORT >= self._rounds:
                shutil.rmtree(self._run)
                self._run, before = self._new_run(), Verdict((), 0, 0)
            kind = "fail point" if tally.total % 2 == 0 else "random moment"
            if kind == "fail point":
                point = next(turns)
                code = self._life_to(point, before.saved)
            else:
                point = None
                code = self._life_for(before.saved)
            after = judge(self._run, expected)
            tally.corrupt += [f"{self._run.name}, {kind} {point or ''}: {c}" for c in after.corrupt]
            if code == -signal.SIGKILL:
                tally.kills[kind] += 1
                tally.lost[after.lost] += 1
                tally.where[self._where(before, after)] += 1
                if point is not None:
                    tally.points[point] += 1
            elif code:
                tally.corrupt.append(f"ended with {code}: {self._said.read_text()[-300:]}")
            else:
                tally.ended += 1
            tally.resumed += before.saved > 0
            tally.went_on += after.saved > before.saved > 0
            tally.rounds_equal += max(0, after.saved - before.saved) if before.saved else 0
            before = after
            if after.corrupt:  # counted; what follows from it is not a new one
                shutil.rmtree(self._run)
                self._run, before = self._new_run(), Verdict((), 0, 0)
        return tally

    def _turns(self, points: list[FailPoint]) -> Iterator[FailPoint]:
        while True:
            yield from self._rng.sample(points, len(points))

    def _new_run(self) -> Path:
        """An empty run directory of the one identity; its key is made by the first run."""
        self._runs += 1
        run = self._folder / f"run-{self._runs}"
        run.mkdir(mode=0o700)
        shutil.copy2(self._folder / "straight" / "identity.key", run / "identity.key")
        return run

    def _observed(self, run: Path, rounds: int, settings: Path) -> Counter[FailPoint]:
        observer, told = Observer(), self._folder / "points.json"

        def finish() -> None:
            observer.stop()
            fail_points.write(told, observer.passed)

        child = lives.begin(
            run, rounds=rounds, settings=settings, said=self._said, prepare=observer.start,
            finish=finish,
        )  # fmt: skip
        with _killed_at_the_end(child):
            code = lives.end(child)
        if code:
            raise RuntimeError(
                f"a life that nobody disturbed ended with {code}: {self._said.read_text()}"
            )
        return fail_points.read(told)

    def _life_to(self, point: FailPoint, saved: int) -> int:
        """A short life, killed when it comes by `point`, often not the first time."""
        observer = Observer(point, self._rng.choice((1, 1, 2, 3)))
        child = self._begin(saved + _SHORT, observer)
        with _killed_at_the_end(child):
            return lives.end(child)

    def _life_for(self, saved: int) -> int:
        """A life killed somewhere in its start, or somewhere in its rounds."""
        began = time.monotonic()
        child = self._begin(self._rounds, None)
        with _killed_at_the_end(child):
            if self._rng.random() < 0.5:
                self._wait(child, began + self._rng.uniform(0, 1.2 * self._start_s))
            else:
                self._await_row(child, began)
                delay = self._rng.uniform(0, 3 * self._round_s)
                first, size = time.monotonic(), self._size()
                self._wait(child, first + delay)
                rows = (self._size() - size) / 1400  # bytes of a row, about
                if rows >= 1:
                    self._round_s += 0.1 * ((time.monotonic() - first) / rows - self._round_s)
            if not lives.has_ended(child):
                os.kill(child, signal.SIGKILL)
            return lives.end(child)

    def _begin(self, rounds: int, observer: Observer | None) -> int:
        return lives.begin(
            self._run, rounds=rounds, settings=self._settings, said=self._said,
            prepare=observer.start if observer else lambda: None,
        )  # fmt: skip

    def _wait(self, child: int, until: float) -> None:
        while time.monotonic() < until and not lives.has_ended(child):
            time.sleep(_LOOK_S)

    def _await_row(self, child: int, began: float) -> None:
        """Until this life has finished its first round. A resume cuts rows off, so that a row is
        new when the file grows."""
        size = self._size()
        while not lives.has_ended(child):
            now = self._size()
            if now > size:
                self._start_s += 0.2 * (time.monotonic() - began - self._start_s)
                return
            size = now
            if time.monotonic() > began + _GIVE_UP_S:
                raise RuntimeError("a node does no round")
            time.sleep(_LOOK_S)

    def _size(self) -> int:
        try:
            return (self._run / "rounds.jsonl").stat().st_size
        except FileNotFoundError:
            return 0

    def _where(self, before: Verdict, after: Verdict) -> str:
        """What the killed life was at, as the disk shows it."""
        names = [path.name for path in (self._run / "checkpoints").glob(".*")]
        if any(name.startswith(".saving-") for name in names):
            return "a checkpoint being written"
        if any(name.startswith(".removing-") for name in names):
            return "an old checkpoint being deleted"
        if after.lost:
            return "between a round's row and its checkpoint"
        if after.saved == before.saved:
            return "the start, or the first round"
        return "a later round, or the end"


@contextmanager
def _killed_at_the_end(child: int) -> Iterator[None]:
    """Leaves no life behind when this program is stopped."""
    try:
        yield
    except BaseException:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise
