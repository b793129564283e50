"""What a generation engine that is another program must do, and what it is told.

The seam is narrow on purpose: token ids in, token ids with their log-probabilities out, weights by
name. `engine_client.py` is the real one, a process with vLLM in it; `vllm.py` drives either.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from swarmnode.errors import SwarmNodeError


class EngineFailed(SwarmNodeError):
    """The engine died, hung or refused. Its process is gone; `start` makes another."""


@dataclass(frozen=True, slots=True)
class Request:
    """One completion to sample. The same seed, prompt and weights give the same completion."""

    prompt: tuple[int, ...]
    seed: int
    max_new_tokens: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Requests that are answered together. `temperature` None: the most probable token."""

    requests: tuple[Request, ...]
    temperature: float | None


@dataclass(frozen=True, slots=True)
class Sampled:
    """One sequence as sampled, EOS included, with the log-probability of each token under the
    distribution that it was drawn from; for greedy ones under temperature 1."""

    ids: list[int]
    logps: list[float]


class Engine(Protocol):
    """Every call but `kill` may raise `EngineFailed`; after that only `start` and `kill` may
    follow. Used from one thread, the one that lives longest: the process dies with it."""

    @property
    def runs(self) -> bool:
        """Whether there is a process, as far as is known: a death is noticed at the next call."""

    @property
    def pid(self) -> int | None:
        """Its process, where it has one and that runs."""

    def start(self, context: int) -> None:
        """A fresh engine for sequences of up to `context` tokens, without usable weights."""

    def load(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Takes these weights over, all of them, and forgets what was computed with others."""

    def send(self, batch: Batch) -> None:
        """Begins to answer and returns at once."""

    def receive(self) -> Sequence[Sampled]:
        """The answers to the batch sent, in its order."""

    def sleep(self) -> None:
        """Gives the device's memory back, weights included."""

    def wake(self) -> None:
        """Takes memory for weights and cache again; the weights must be loaded anew."""

    def kill(self) -> None:
        """Ends the process. Idempotent."""

    def close(self) -> None:
        """Ends the process and gives back what was kept for the next one. Idempotent."""
