"""The fakes do what the real things do."""

import json
from pathlib import Path

import pytest
from fakes import FakeTasks

from protocol.limits import TASK_DIGEST_BYTES
from protocol.names import task_digest
from swarmnode.tasks.taskset import TaskSet, TaskSpec


def real_tasks(folder: Path) -> TaskSet:
    rows = [{"question": f"{n} + 1?", "answer": str(n + 1)} for n in range(50)]
    path = folder / "add.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tasks = TaskSet([TaskSpec("add", f"jsonl:{path}")], 0.1, "whole", task_digest)
    tasks.open()
    return tasks


@pytest.mark.parametrize("kind", ["fake", "real"])
def test_tasks_make_questions_from_name_and_seed(kind: str, tmp_path: Path) -> None:
    tasks = FakeTasks() if kind == "fake" else real_tasks(tmp_path)
    (name,) = tasks.names
    questions = [tasks.question(name, seed) for seed in range(50)]
    assert questions == [tasks.question(name, seed) for seed in range(50)]
    assert [question.seed for question in questions] == list(range(50))
    assert {question.task for question in questions} == {name}
    assert {question.digest for question in questions} == {tasks.digest(name)}
    assert len(tasks.digest(name)) == TASK_DIGEST_BYTES
    assert len({question.prompt for question in questions}) == 50
    assert {question.held_out for question in questions} == {True, False}
