"""Questions that are answered while the round before them is still trained on (`--overlap`).

The answers come from the policy before that round's step: one step of staleness, never more, since
the next questions are asked only once these are answered.

What is in flight at a checkpoint is not in it. The checkpoint is as if it had not been asked yet: a
resumed node draws the same questions again and asks them with the same chance, of the checkpoint's
weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from swarmnode.rollout import Question


@dataclass(frozen=True, slots=True)
class Asked:
    """A round's questions: fresh ones with their numbers, and peers' that are answered too."""

    questions: Sequence[tuple[int, Question]]
    paired: Sequence[Question]

    @property
    def all(self) -> list[Question]:
        """In the order in which they are answered."""
        return [*(question for _, question in self.questions), *self.paired]


@dataclass(frozen=True, slots=True)
class Ahead:
    """Questions in flight, and what a checkpoint says instead: how things stood before them."""

    asked: Asked
    next_number: int
    rng: tuple[Any, ...]  # `random.Random.getstate`
    chance: bytes  # `Generator.state`
