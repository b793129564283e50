"""How often this node is right, task by task: a decayed mean of its own fresh rewards."""

from collections.abc import Iterable, Mapping

from swarmnode.rollout import Group

# What a group still counts after one more of its task: the newest ten weigh two thirds.
_DECAY = 0.9


class Ability:
    """Own success rates by task. A task that the node never practised has none."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[float, float]] = {}  # task → decayed (rewards, weights)

    def note(self, groups: Iterable[Group]) -> None:
        """Takes in own groups, before any filtering."""
        for group in groups:
            rewards, weights = self._sums.get(group.question.task, (0.0, 0.0))
            self._sums[group.question.task] = (
                _DECAY * rewards + group.mean_reward,
                _DECAY * weights + 1.0,
            )

    def rate(self, task: str) -> float | None:
        """Between 0 and 1; None for a task not practised."""
        if task not in self._sums:
            return None
        rewards, weights = self._sums[task]
        return rewards / weights

    def state(self) -> dict[str, list[float]]:
        """What `load_state` restores, JSON-able."""
        return {task: list(sums) for task, sums in self._sums.items()}

    def load_state(self, state: Mapping[str, list[float]]) -> None:
        """Takes over what `state` returned."""
        self._sums = {task: (rewards, weights) for task, (rewards, weights) in state.items()}
