"""From a manifest to questions: the swarm's tasks, opened, and the swarm's id."""

from protocol.names import task_digest
from swarmnode.errors import ConfigError
from swarmnode.manifest import Manifest
from swarmnode.tasks.taskset import TaskSet, TaskSpec


def open_tasks(swarm: Manifest) -> TaskSet:
    """The manifest's tasks, opened. Raises `ConfigError` for a task that cannot be had."""
    specs = [TaskSpec(task.name, task.source, task.options, task.weight) for task in swarm.tasks]
    tasks = TaskSet(specs, swarm.held_out_ratio, swarm.answer_format, task_digest)
    tasks.open()
    seen: dict[bytes, str] = {}
    for name in tasks.names:
        other = seen.setdefault(tasks.digest(name), name)
        if other != name:
            raise ConfigError(
                f"tasks {other!r} and {name!r} have the same digest by chance: rename one of them"
            )
    return tasks


def swarm_id(swarm: Manifest, tasks: TaskSet) -> bytes:
    """The 32-byte id of the swarm, from the digests of its opened tasks."""
    return swarm.swarm_id({name: tasks.digest(name) for name in tasks.names})
