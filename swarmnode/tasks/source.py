"""What a source of questions is: a pure function from a seed to a question and its answer."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Draft:
    """A question before it has a task and a split. `metadata` holds JSON values only: the name of
    the comparison under "compare", and what that comparison needs (see `compare.RULES`)."""

    prompt: str
    answer: str
    metadata: Mapping[str, Any]


class Source(Protocol):
    """`collection` names where the prompts come from, without the configuration: the held-out
    split is by it, so that a prompt is held out in all configurations or in none.
    `identity` holds, as JSON values, all that the drafts depend on besides the task's options.
    """

    @property
    def collection(self) -> str: ...

    @property
    def identity(self) -> Mapping[str, Any]: ...

    def draft(self, seed: int) -> Draft:
        """The question of a seed of 0 to 2**32 − 1, the same on every machine."""
        ...

    def evaluation_seeds(self) -> Iterator[int]:
        """The seeds in which held-out questions are looked for, in a fixed order."""
        ...
