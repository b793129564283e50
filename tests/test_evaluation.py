"""What is said about held-out questions before anything is evaluated."""

import logging
from pathlib import Path

import pytest

from protocol.names import task_digest
from swarmnode.errors import ConfigError
from swarmnode.evaluation import check_held_out
from swarmnode.tasks.taskset import TaskSet, TaskSpec


def opened(folder: Path, ratio: float = 0.5, **rows: int) -> TaskSet:
    """Tasks by name, each with so many rows, of which `ratio` are held out on average."""
    specs = []
    for name, count in rows.items():
        path = folder / f"{name}.jsonl"
        lines = [f'{{"question": "{name} {n}?", "answer": "{n}"}}\n' for n in range(count)]
        path.write_text("".join(lines))
        specs.append(TaskSpec(name, f"jsonl:{path}"))
    tasks = TaskSet(specs, ratio, "whole", task_digest)
    tasks.open()
    return tasks


def test_tasks_with_few_held_out_questions_are_warned_of_in_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tasks = opened(tmp_path, small=9, large=200)
    count = len(tasks.held_out("small", 64))
    assert 0 < count < 20
    check_held_out(tasks, 64)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        f"held-out accuracy is coarse: small ± {1 / count:.2f} ({count} questions)"
    )


def test_few_questions_by_choice_are_warned_of_as_well(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    check_held_out(opened(tmp_path, large=200), 4)
    assert "large ± 0.25 (4 questions)" in caplog.text


def test_enough_questions_are_nothing_to_speak_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    check_held_out(opened(tmp_path, large=200), 20)
    assert caplog.records == []


def test_a_task_without_held_out_questions_is_refused(tmp_path: Path) -> None:
    tasks = opened(tmp_path, 0.01, tiny=3)
    with pytest.raises(ConfigError, match="tiny: none of its questions falls into the held-out"):
        check_held_out(tasks, 32)
