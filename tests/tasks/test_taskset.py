import dataclasses
from pathlib import Path

import pytest

from protocol.names import task_digest
from swarmnode.errors import ConfigError
from swarmnode.rollout import Question
from swarmnode.tasks import gym
from swarmnode.tasks.taskset import TaskSet, TaskSpec, best_constant

NAMES = sorted(gym.ALLOWED)


def opened(*specs: TaskSpec, ratio: float = 0.1, answer_format: str = "whole") -> TaskSet:
    tasks = TaskSet(specs, ratio, answer_format, task_digest)  # type: ignore[arg-type]
    tasks.open()
    return tasks


@pytest.mark.parametrize("name", NAMES)
def test_question_regenerates_equal(every_task: TaskSet, name: str) -> None:
    again = opened(TaskSpec(name, f"reasoning_gym:{name}"))
    for seed in (0, 1, 99, 2**32 - 1):
        assert every_task.question(name, seed) == again.question(name, seed)
    assert every_task.digest(name) == again.digest(name)
    assert len(again.digest(name)) == 4


@pytest.mark.parametrize("name", NAMES)
def test_held_out_questions_are_distinct_repeatable_and_never_trained_on(
    every_task: TaskSet, name: str
) -> None:
    held_out = every_task.held_out(name, 24)
    prompts = {question.prompt for question in held_out}
    assert len(held_out) == len(prompts) == 24
    assert all(question.held_out for question in held_out)
    assert held_out == every_task.held_out(name, 24)
    assert held_out[:5] == every_task.held_out(name, 5)
    drawn = [every_task.question(name, seed * 65_537) for seed in range(300)]
    assert prompts.isdisjoint(question.prompt for question in drawn if not question.held_out)
    # 300 draws at 10 %: 30 ± 5.2; six standard deviations either way.
    assert 0 < sum(question.held_out for question in drawn) < 62


@pytest.mark.slow
def test_a_small_configuration_gives_the_held_out_questions_that_exist() -> None:
    options = {"min_terms": 1, "max_terms": 1, "max_digits": 2}  # the numbers 0 to 99, no more
    tasks = opened(TaskSpec("t", "reasoning_gym:chain_sum", options))
    held_out = tasks.held_out("t", 100)
    assert 0 < len(held_out) < 30
    everything = [tasks.question("t", seed) for seed in range(3000)]
    assert {q.prompt for q in everything if q.held_out} == {q.prompt for q in held_out}


def test_the_split_does_not_depend_on_the_configuration() -> None:
    small = opened(TaskSpec("a", "reasoning_gym:lcm", {"max_value": 12}))
    large = opened(TaskSpec("b", "reasoning_gym:lcm", {"max_value": 20}))
    split = {q.prompt: q.held_out for q in (small.question("a", seed) for seed in range(500))}
    shared = [q for q in (large.question("b", s) for s in range(2000)) if q.prompt in split]
    assert len(shared) > 50
    assert all(split[question.prompt] == question.held_out for question in shared)


def test_digest_covers_everything_that_must_be_shared(tmp_path: Path) -> None:
    spec = TaskSpec("t", "reasoning_gym:lcm")
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"question": "1?", "answer": "1"}\n{"question": "2?", "answer": "2"}\n' * 9)
    specs = [
        spec,
        dataclasses.replace(spec, name="u"),
        dataclasses.replace(spec, source="reasoning_gym:gcd"),
        dataclasses.replace(spec, options={"max_value": 50}),
        dataclasses.replace(spec, source=f"jsonl:{rows}"),
    ]
    digests = [opened(other).digest(other.name) for other in specs]
    digests.append(opened(spec, ratio=0.2).digest("t"))
    digests.append(opened(spec, answer_format="tag").digest("t"))
    assert len(set(digests)) == len(digests)


def test_digest_does_not_cover_weight_path_or_the_order_of_options(tmp_path: Path) -> None:
    one, two = (
        TaskSpec("t", "reasoning_gym:lcm", {"min_value": 2, "max_value": 9}, 1.0),
        TaskSpec("t", "reasoning_gym:lcm", {"max_value": 9, "min_value": 2}, 3.0),
    )
    assert opened(one).digest("t") == opened(two).digest("t")
    line = '{"question": "What is 1 + 1?", "answer": "2"}\n'
    for name in ("a", "b"):
        (tmp_path / name).write_text(line)
    digests = {opened(TaskSpec("t", f"jsonl:{tmp_path / name}")).digest("t") for name in ("a", "b")}
    assert len(digests) == 1


@pytest.mark.parametrize("source", ["chain_sum", "csv:x", "", "reasoning-gym:lcm"])
def test_refuses_an_unknown_source(source: str) -> None:
    with pytest.raises(ConfigError, match="task t: unknown source"):
        opened(TaskSpec("t", source))


def test_refuses_two_tasks_of_one_name() -> None:
    with pytest.raises(ConfigError, match="same name"):
        opened(TaskSpec("t", "reasoning_gym:lcm"), TaskSpec("t", "reasoning_gym:gcd"))


def test_refuses_a_task_with_nothing_to_train_on(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"question": "1?", "answer": "1"}\n')
    with pytest.raises(ConfigError, match="held-out split"):
        opened(TaskSpec("t", f"jsonl:{rows}"), ratio=1.0)


def test_best_constant_averages_over_tasks() -> None:
    def question(task: str, answer: str) -> Question:
        return Question(task, b"1234", 0, "p", answer, True)

    # a: "1" is right in 2 of 3; b: any is right in 1 of 2. (2/3 + 1/2) / 2 = 7/12.
    questions = [*(question("a", answer) for answer in "112"), *(question("b", a) for a in "34")]
    assert best_constant(questions) == pytest.approx(7 / 12)
    with pytest.raises(ValueError, match="no questions"):
        best_constant([])
