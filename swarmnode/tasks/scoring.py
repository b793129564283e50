"""Scores strangers' texts beside the round loop, so that none of them can stop it.

A thread of its own hands one rollout after the other to a scorer process of its own and kills that
at its limit, whatever the loop does meanwhile. The loop submits, and takes what is done: it waits
for honest answers as long as they need, which is milliseconds, and never longer than it says. What
is not done in time is taken in a later round.

Two queues and no lock: the thread sees no pool, model or counter.
"""

import threading
from collections.abc import Sequence
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Final, Generic, TypeVar

from swarmnode.errors import SwarmNodeError
from swarmnode.rollout import Question
from swarmnode.tasks.scorer import ScoreFailed, Scorer

T = TypeVar("T")

# Seconds that a stranger's rollout may take: eight honest answers take milliseconds, and a hanging
# scorer must be gone 2 s after its rollout was given to it.
TIME_LIMIT_S: Final = 1.5
# Seconds that the round loop waits for strangers' scores, in all: a round takes longer by this at
# most when a scorer hangs.
WAIT_S: Final = 0.05
# Rollouts that wait to be scored. A node asks for some tens a round and for fewer while some wait.
MAX_WAITING: Final = 256

Rewards = tuple[float, ...]


class Scoring(Generic[T]):
    """Scores what is submitted, in order. `T` is whatever the caller wants back with the rewards.

    `scorer` belongs to the thread from `open` on, which starts its process and ends it.
    """

    def __init__(self, scorer: Scorer, max_waiting: int = MAX_WAITING) -> None:
        self._scorer = scorer
        self._max_waiting = max_waiting
        self._todo: SimpleQueue[tuple[T, Question, Sequence[str]] | None] = SimpleQueue()
        self._done: SimpleQueue[tuple[T, Rewards | SwarmNodeError]] = SimpleQueue()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._waiting = 0

    @property
    def waiting(self) -> int:
        """Rollouts submitted whose rewards were not taken yet."""
        return self._waiting

    def open(self) -> None:
        """Starts the thread and waits until its process runs; raises `SwarmNodeError` if that
        cannot be started."""
        if self._thread is not None:
            return
        started: SimpleQueue[SwarmNodeError | None] = SimpleQueue()
        # A daemon: a bug that stops the node must not wait for it.
        self._thread = threading.Thread(
            target=self._run, args=(started,), name="scoring", daemon=True
        )
        self._thread.start()
        problem = started.get()
        if problem is not None:
            self.close()
            raise problem

    def submit(self, item: T, question: Question, texts: Sequence[str]) -> bool:
        """Hands in a rollout; False when too many wait, and then it is not scored."""
        if self._waiting >= self._max_waiting:
            return False
        self._waiting += 1
        self._todo.put((item, question, texts))
        return True

    def finished(self, wait_s: float = WAIT_S) -> list[tuple[T, Rewards | None]]:
        """What has been scored, in order, waiting at most `wait_s` for what has not; None for a
        rollout that cannot be scored. Raises `SwarmNodeError` when no process can be started."""
        deadline = monotonic() + wait_s
        found: list[tuple[T, Rewards | None]] = []
        while self._waiting:
            try:
                item, result = self._done.get(timeout=max(deadline - monotonic(), 0))
            except Empty:
                break
            self._waiting -= 1
            if isinstance(result, SwarmNodeError) and not isinstance(result, ScoreFailed):
                raise result
            found.append((item, None if isinstance(result, SwarmNodeError) else result))
        return found

    def close(self) -> None:
        """Ends the thread and its process, after at most the scorer's time limit. Idempotent."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._closing.set()
            self._todo.put(None)
            thread.join()

    def _run(self, started: "SimpleQueue[SwarmNodeError | None]") -> None:
        try:
            self._scorer.open()
        except SwarmNodeError as error:
            started.put(error)
            return
        started.put(None)
        while (job := self._todo.get()) is not None and not self._closing.is_set():
            item, question, texts = job
            try:
                result: Rewards | SwarmNodeError = self._scorer.score(question, texts)
            except SwarmNodeError as error:
                result = error
            self._done.put((item, result))
        self._scorer.close()
