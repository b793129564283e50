"""What the node asks of anything that answers questions with the current policy."""

from collections.abc import Sequence
from typing import Protocol

from swarmnode.rollout import Completion, Question


class Generator(Protocol):
    """Samples completions. The node calls it from one thread."""

    def generate(self, questions: Sequence[Question], completions: int) -> list[list[Completion]]:
        """`completions` samples for each question, in the order of the questions."""

    def greedy(self, questions: Sequence[Question]) -> list[Completion]:
        """The most probable token at every step, one completion per question: for evaluation."""

    def update(self, policy_version: int) -> None:
        """Takes over the policy's weights after an optimiser step."""

    def state(self) -> bytes:
        """The state of its chance, for a checkpoint."""

    def restore(self, state: bytes) -> None:
        """Continues exactly where `state` was taken."""
