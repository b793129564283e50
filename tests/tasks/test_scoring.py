"""Strangers' texts beside the round loop: order, bounds, and a scorer that hangs, dies or lies."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarmnode.errors import SwarmNodeError
from swarmnode.rollout import Question
from swarmnode.tasks.scorer import Scorer
from swarmnode.tasks.scoring import Scoring

MISBEHAVING = Path(__file__).parent / "misbehaving_scorer.py"
LONG_S = 60.0  # a busy machine is no failure


def question(answer: str = "5") -> Question:
    return Question("t", b"1234", 0, "2 + 3", answer, False, {"compare": "integer"})


@pytest.fixture
def scoring() -> Iterator[Scoring[int]]:
    scoring = Scoring[int](Scorer("whole", time_limit_s=LONG_S), max_waiting=4)
    scoring.open()
    yield scoring
    scoring.close()


def all_finished(scoring: Scoring[int]) -> list[tuple[int, tuple[float, ...] | None]]:
    found = []
    while scoring.waiting:
        found += scoring.finished(LONG_S)
    return found


def test_gives_back_rewards_in_order(scoring: Scoring[int]) -> None:
    for item in range(4):
        assert scoring.submit(item, question(str(item)), ["1", "2"])
    assert all_finished(scoring) == [
        *((0, (0.0, 0.0)), (1, (1.0, 0.0)), (2, (0.0, 1.0)), (3, (0.0, 0.0)))
    ]
    assert scoring.finished() == []


def test_takes_no_more_than_its_bound(scoring: Scoring[int]) -> None:
    assert [scoring.submit(item, question(), ["5"]) for item in range(6)] == [True] * 4 + [
        False
    ] * 2
    assert scoring.waiting == 4
    assert len(all_finished(scoring)) == 4
    assert scoring.submit(7, question(), ["5"])


def test_a_hanging_scorer_holds_up_nobody_and_costs_one_rollout() -> None:
    """Stopped, it answers nothing: what waits is taken later, when it was killed and replaced."""
    scorer = Scorer("whole", time_limit_s=0.3)
    scoring = Scoring[int](scorer)
    scoring.open()
    assert scorer.pid is not None
    os.kill(scorer.pid, signal.SIGSTOP)
    scoring.submit(1, question(), ["5"])
    assert scoring.finished(wait_s=0) == []
    assert scoring.waiting == 1
    assert all_finished(scoring) == [(1, None)]
    scorer._time_limit_s = LONG_S
    scoring.submit(2, question(), ["5"])
    assert all_finished(scoring) == [(2, (1.0,))]
    scoring.close()
    assert scorer.pid is None


def test_closing_does_not_wait_for_all_that_waits() -> None:
    command = (sys.executable, str(MISBEHAVING), "hangs")
    scorer = Scorer("whole", time_limit_s=0.2, command=command)
    scoring = Scoring[int](scorer)
    scoring.open()
    for item in range(200):
        scoring.submit(item, question(), ["5"])
    scoring.close()
    assert scorer.pid is None
    assert scorer.restarts <= 2
    scoring.close()


def test_says_at_once_that_no_process_can_be_started() -> None:
    scoring = Scoring[int](Scorer("whole", command=("/no/such/program",)))
    with pytest.raises(SwarmNodeError, match="cannot be started"):
        scoring.open()


def test_a_process_that_cannot_be_started_again_is_told(tmp_path: Path) -> None:
    program = tmp_path / "scorer"
    program.write_text(f"#!/bin/sh\nexec {sys.executable} {MISBEHAVING} crashes\n")
    program.chmod(0o755)
    scoring = Scoring[int](Scorer("whole", time_limit_s=LONG_S, command=(str(program),)))
    scoring.open()
    scoring.submit(1, question(), ["5"])
    assert all_finished(scoring) == [(1, None)]
    program.unlink()
    scoring.submit(2, question(), ["5"])
    with pytest.raises(SwarmNodeError, match="cannot be started"):
        all_finished(scoring)
    scoring.close()
