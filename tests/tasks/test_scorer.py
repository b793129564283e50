import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from swarmnode.errors import SwarmNodeError
from swarmnode.rollout import Question
from swarmnode.tasks import gym
from swarmnode.tasks.scorer import MAX_TEXT_CHARACTERS, ScoreFailed, Scorer
from swarmnode.tasks.taskset import TaskSet

MISBEHAVING = Path(__file__).parent / "misbehaving_scorer.py"
NAMES = sorted(gym.ALLOWED)

HOSTILE = {
    "parentheses": "(" * 65_536,
    "nested brackets": "[" * 65_536 + "]" * 65_536,
    "digits": "9" * 65_536,
    "fractions": "1/" * 32_768,
    "latex": "\\frac{" * 10_000,
    "tags": "<answer>" * 8_192 + "</answer>" * 8_192,
    "spaces": " " * 65_536 + "x" + " " * 65_536,
    "commas": "1" + ",111" * 16_384,
    "exponent": "1e999999999",
    "power": "9**9**9**9",
    "program": "__import__('os').system('true')",
    "not a number": "NaN",
    "infinity": "-Infinity",
    "arabic digits": "١٢٣",
    "null": "\0" * 100,
    "lone surrogate": "\ud800",
    "long line of lines": "\n" * 65_536,
    "empty": "",
    "end of text marks": "\u2028\x1c\x85<|im_end|>",
    "longest": "(" * MAX_TEXT_CHARACTERS,
    "longer": "1" * (MAX_TEXT_CHARACTERS + 1),
}


def integer_question(answer: str = "5") -> Question:
    return Question("t", b"1234", 0, "2 + 3", answer, False, {"compare": "integer"})


@pytest.fixture(scope="module")
def tag_scorer() -> Iterator[Scorer]:
    scorer = Scorer("tag", time_limit_s=20.0)
    yield scorer
    scorer.close()


def misbehaving(manner: str, time_limit_s: float = 20.0) -> Scorer:
    return Scorer("whole", time_limit_s, command=(sys.executable, str(MISBEHAVING), manner))


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize("name", NAMES)
def test_scores_right_and_wrong_answers(every_task: TaskSet, scorer: Scorer, name: str) -> None:
    questions = [every_task.question(name, seed) for seed in range(10)]
    for question, other in pairwise(questions):
        texts = [question.answer, f" {question.answer}\n", f"It is {question.answer}", other.answer]
        same = 1.0 if other.answer == question.answer else 0.0
        assert scorer.score(question, texts) == (1.0, 1.0, 0.0, same)
    assert scorer.restarts == 0


@pytest.mark.parametrize("name", NAMES)
def test_hostile_answers_score_zero_and_cost_nothing(
    every_task: TaskSet, tag_scorer: Scorer, scorer: Scorer, name: str
) -> None:
    question = every_task.question(name, 1)
    texts = list(HOSTILE.values())
    tagged = [f"<answer>{text}</answer>" for text in texts]
    assert scorer.score(question, texts) == (0.0,) * len(texts)
    assert tag_scorer.score(question, texts + tagged) == (0.0,) * 2 * len(texts)
    assert scorer.restarts == tag_scorer.restarts == 0


def test_tag_format_reads_the_tag(tag_scorer: Scorer) -> None:
    texts = ["5", "I think <answer>5</answer>", "<answer>6</answer>", "<answer>5"]
    assert tag_scorer.score(integer_question(), texts) == (0.0, 1.0, 0.0, 0.0)


def test_no_texts_have_no_scores(scorer: Scorer) -> None:
    assert scorer.score(integer_question(), []) == ()


def test_a_hanging_scorer_costs_one_rollout(every_task: TaskSet) -> None:
    scorer = Scorer("whole", time_limit_s=0.2)
    scorer.open()
    first = scorer.pid
    assert first is not None
    os.kill(first, signal.SIGSTOP)
    with pytest.raises(ScoreFailed, match="in time"):
        scorer.score(integer_question(), ["5"])
    assert not is_alive(first)
    scorer._time_limit_s = 20.0  # the fresh process may be slow on a busy machine
    assert scorer.score(integer_question(), ["5"]) == (1.0,)
    assert scorer.pid != first
    assert scorer.restarts == 1
    scorer.close()


def test_a_hanging_scorer_that_no_longer_reads_cannot_block_the_node() -> None:
    scorer = Scorer("whole", time_limit_s=0.2)
    scorer.open()
    assert scorer.pid is not None
    os.kill(scorer.pid, signal.SIGSTOP)
    with pytest.raises(ScoreFailed, match="in time"):
        scorer.score(integer_question(), ["5" * MAX_TEXT_CHARACTERS] * 8)  # fills the pipe


def test_a_crashed_scorer_costs_one_rollout(scorer: Scorer) -> None:
    scorer.open()
    assert scorer.pid is not None
    os.kill(scorer.pid, signal.SIGKILL)
    with pytest.raises(ScoreFailed, match="died"):
        scorer.score(integer_question(), ["5"])
    assert scorer.score(integer_question(), ["5"]) == (1.0,)
    assert scorer.restarts == 1


@pytest.mark.parametrize(
    ("manner", "message"),
    [
        ("crashes", "died"),
        ("huge", "reply of 2147483648 bytes"),
        ("not_json", "not reply in JSON"),
        ("nested", "not reply in JSON"),
        ("too_few", "0 or 1 for each"),
        ("not_a_list", "0 or 1 for each"),
        ("partial", "0 or 1 for each"),
        ("nan", "0 or 1 for each"),
        ("integers", "0 or 1 for each"),
        ("booleans", "0 or 1 for each"),
    ],
)
def test_a_scorer_that_answers_nonsense_is_killed(manner: str, message: str) -> None:
    scorer = misbehaving(manner)
    scorer.open()
    pid = scorer.pid
    assert pid is not None
    with pytest.raises(ScoreFailed, match=message):
        scorer.score(integer_question(), ["5", "6"])
    assert not is_alive(pid)
    assert scorer.pid is None


def test_half_an_answer_is_a_hang() -> None:
    with pytest.raises(ScoreFailed, match="in time"):
        misbehaving("half", time_limit_s=0.2).score(integer_question(), ["5"])


def test_the_same_program_behaving_well_is_believed() -> None:
    scorer = misbehaving("honest")
    assert scorer.score(integer_question(), ["5", "6"]) == (1.0, 0.0)
    scorer.close()


@pytest.mark.slow
def test_what_the_scorer_started_dies_with_it() -> None:
    scorer = misbehaving("starts_a_child_and_hangs", time_limit_s=1.0)
    with pytest.raises(ScoreFailed, match=r"child \d+") as raised:
        scorer.score(integer_question(), ["5"])
    child = int(str(raised.value).partition("child ")[2].partition("'")[0])
    deadline = time.monotonic() + 20
    while is_alive(child) and time.monotonic() < deadline:
        os.sched_yield()  # its new parent has yet to collect it
    assert not is_alive(child)


def test_says_why_it_cannot_be_started() -> None:
    with pytest.raises(SwarmNodeError, match="cannot be started"):
        Scorer("whole", command=("/no/such/program",)).open()
    with pytest.raises(SwarmNodeError, match=r"at its start .*no memory") as raised:
        misbehaving("dies_at_start").open()
    assert "\x1b" not in str(raised.value)


def test_memory_is_bounded_and_running_out_costs_one_rollout(scorer: Scorer) -> None:
    texts = ["5" * MAX_TEXT_CHARACTERS] * 64  # 16 MiB, and as much again to read them
    assert scorer.score(integer_question(), texts) == (0.0,) * 64
    small = Scorer("whole", time_limit_s=20.0, memory_bytes=16 * 1024 * 1024)
    with pytest.raises(ScoreFailed, match="died"):
        small.score(integer_question(), texts)
    assert small.score(integer_question(), ["5"]) == (1.0,)
    small.close()


def test_probe_finds_nothing_in_reach(scorer: Scorer) -> None:
    probe = scorer.probe()
    assert probe["environment"] == []
    assert probe["can_open_file"] is False
    assert probe["can_open_socket"] is False
    assert probe["can_allocate_limit"] is False
    assert probe["dies_with_parent"] is True
    assert probe["no_new_privileges"] is True
    if os.geteuid() != 0:  # the kernel exempts root from RLIMIT_NPROC
        assert probe["can_start_process"] is False
    assert {"torch", "reasoning_gym", "numpy", "protocol"}.isdisjoint(probe["modules"])


def test_without_the_lock_down_the_same_probe_reaches_everything() -> None:
    scorer = Scorer(
        "whole",
        time_limit_s=20.0,
        command=(
            sys.executable,
            "-c",
            f"import sys; sys.path[:0] = [{str(MISBEHAVING.parents[2])!r},"
            f" {str(MISBEHAVING.parent)!r}]; import misbehaving_scorer as m;"
            " import resource; resource.setrlimit(resource.RLIMIT_AS, (2**34, 2**34));"
            " m.main('locked_down_not')",
        ),
    )
    probe = scorer.probe()
    assert probe["can_open_file"] is True
    assert probe["can_open_socket"] is True
    assert probe["can_start_process"] is True
    scorer.close()


def test_limits_are_in_force(scorer: Scorer) -> None:
    scorer.open()
    limits = Path(f"/proc/{scorer.pid}/limits").read_text()
    found = {line[:26].strip(): line[26:].split()[:2] for line in limits.splitlines()}
    assert found["Max address space"] == [str(256 * 1024 * 1024)] * 2
    assert found["Max open files"] == ["3", "3"]
    assert found["Max processes"] == ["0", "0"]
    assert found["Max file size"] == ["0", "0"]
    assert found["Max core file size"] == ["0", "0"]


def test_sees_nothing_of_the_node_s_environment(
    scorer: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWARMNODE_SECRET", "key")
    scorer.open()
    assert b"SECRET" not in Path(f"/proc/{scorer.pid}/environ").read_bytes()


def test_terminal_interrupt_does_not_reach_it(scorer: Scorer) -> None:
    scorer.open()
    assert scorer.pid is not None
    assert os.getsid(scorer.pid) == scorer.pid != os.getsid(0)
    os.kill(scorer.pid, signal.SIGINT)
    assert scorer.score(integer_question(), ["5"]) == (1.0,)


def test_ends_when_its_input_ends(scorer: Scorer) -> None:
    scorer.open()
    assert scorer._process is not None
    assert scorer._process.stdin is not None
    scorer._process.stdin.close()
    assert scorer._process.wait(timeout=20) == 0


def test_dies_with_the_node() -> None:
    program = (
        "from swarmnode.tasks.scorer import Scorer; import os, signal; s = Scorer('whole');"
        "s.open(); print(s.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    node = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(MISBEHAVING.parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    pid = int(node.stdout)
    deadline = time.monotonic() + 20
    while is_alive(pid) and time.monotonic() < deadline:
        os.sched_yield()
    assert not is_alive(pid)


def test_close_is_idempotent_and_open_starts_anew(scorer: Scorer) -> None:
    scorer.close()
    scorer.open()
    pid = scorer.pid
    scorer.open()
    assert scorer.pid == pid
    scorer.close()
    scorer.close()
    assert scorer.pid is None
    assert scorer.score(integer_question(), ["5"]) == (1.0,)


def test_a_question_with_an_unknown_rule_fails_alone(scorer: Scorer) -> None:
    metadata: dict[str, Any] = {"compare": "no such rule"}
    question = Question("t", b"1234", 0, "p", "5", False, metadata)
    with pytest.raises(ScoreFailed, match="no comparison"):
        scorer.score(question, ["5"])
    assert scorer.score(integer_question(), ["5"]) == (1.0,)
