"""What the node asks of anything that answers questions with the current policy."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from swarmnode.rollout import Completion, Question


@dataclass(frozen=True, slots=True)
class EngineReport:
    """How the engine did, since the node was started."""

    name: Literal["hf", "vllm"]  # what answers now
    is_given_up: bool = False  # transformers answers in vLLM's place
    restarts: int = 0  # of its process, after the first start
    handover_s: float | None = None  # the last hand-over of weights; None: there was none


class Generator(Protocol):
    """Samples completions. The node calls it from one thread."""

    @property
    def version(self) -> int:
        """The policy version that the last answers come from."""

    def generate(self, questions: Sequence[Question], completions: int) -> list[list[Completion]]:
        """`completions` samples for each question, in the order of the questions."""

    def begin(self, questions: Sequence[Question], completions: int) -> None:
        """Starts `generate` with the weights as they are, beside whatever the node does next.
        `finish` must follow before the next `begin` or `generate`; `greedy` may come between."""

    def finish(self) -> list[list[Completion]]:
        """The answers to what was begun, waiting for them."""

    def greedy(self, questions: Sequence[Question]) -> list[Completion]:
        """The most probable token at every step, one completion per question: for evaluation."""

    def update(self, policy_version: int) -> None:
        """Takes over the policy's weights after an optimiser step."""

    def rest(self) -> None:
        """Leaves the device's memory to the trainer, as far as it can and nothing is begun."""

    def report(self) -> EngineReport:
        """What the round's row says of the engine."""

    def state(self) -> bytes:
        """The state of its chance, for a checkpoint."""

    def restore(self, state: bytes) -> None:
        """Continues exactly where `state` was taken; another engine's state is passed over."""

    def close(self) -> None:
        """Ends what it started. Idempotent."""
