import hashlib
from collections.abc import Iterator

import pytest
from swarmnode.tasks import gym
from swarmnode.tasks.scorer import Scorer
from swarmnode.tasks.taskset import TaskSet, TaskSpec


def four_bytes(canonical: bytes) -> bytes:
    return hashlib.sha256(canonical).digest()[:4]


@pytest.fixture(scope="session")
def every_task() -> TaskSet:
    """All allowed data sets with the library's or our defaults, each as the task of its name."""
    specs = [TaskSpec(name, f"reasoning_gym:{name}") for name in gym.ALLOWED]
    tasks = TaskSet(specs, 0.1, "whole", four_bytes)
    tasks.open()
    return tasks


@pytest.fixture
def scorer() -> Iterator[Scorer]:
    scorer = Scorer("whole", time_limit_s=20.0)
    yield scorer
    scorer.close()
