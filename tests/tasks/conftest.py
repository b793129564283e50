from collections.abc import Iterator

import pytest

from protocol.names import task_digest
from swarmnode.tasks import gym
from swarmnode.tasks.scorer import Scorer
from swarmnode.tasks.taskset import TaskSet, TaskSpec


@pytest.fixture(scope="session")
def every_task() -> TaskSet:
    """All allowed data sets with the library's or our defaults, each as the task of its name."""
    specs = [TaskSpec(name, f"reasoning_gym:{name}") for name in gym.ALLOWED]
    tasks = TaskSet(specs, 0.1, "whole", task_digest)
    tasks.open()
    return tasks


@pytest.fixture
def scorer() -> Iterator[Scorer]:
    scorer = Scorer("whole", time_limit_s=20.0)
    yield scorer
    scorer.close()
