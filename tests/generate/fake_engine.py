"""An engine without vLLM: what it answers is a pure function of weights, prompt and seed.

It has in common with the real one what `engine_contract.py` checks, which `tests/with_vllm` does.
"""

import hashlib
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from swarmnode.generate.engine import Batch, EngineFailed, Sampled

EOS = 7


class FakeEngine:
    """Fails at the calls whose names `failing` lists, each once, in that order."""

    def __init__(self, failing: Sequence[str] = ()) -> None:
        self.failing = list(failing)
        self.calls: list[str] = []
        self.weights: dict[str, Tensor] = {}
        self.contexts: list[int] = []
        self.versions: list[int] = []
        self.is_running = False
        self._answers: list[Sampled] = []

    @property
    def runs(self) -> bool:
        return self.is_running

    pid = None

    def start(self, context: int) -> None:
        self.is_running = True
        self.weights = {}
        self.contexts.append(context)
        self._called("start")

    def load(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        self._called("load")
        self.weights = {name: tensor.clone() for name, tensor in weights}
        self.versions.append(version)

    def send(self, batch: Batch) -> None:
        self._called("send")
        assert self.weights, "asked before it had weights"
        self._answers = [
            self._answer(one.prompt, one.seed, one.max_new_tokens, batch.temperature)
            for one in batch.requests
        ]

    def receive(self) -> Sequence[Sampled]:
        self._called("receive")
        return self._answers

    def sleep(self) -> None:
        self._called("sleep")
        self.weights = {}

    def wake(self) -> None:
        self._called("wake")

    def kill(self) -> None:
        self.is_running = False

    def close(self) -> None:
        self.kill()

    def _called(self, name: str) -> None:
        if not self.is_running:
            raise EngineFailed("the engine is not running")
        self.calls.append(name)
        if self.failing and self.failing[0] == name:
            del self.failing[0]
            self.is_running = False
            raise EngineFailed("the engine died")

    def _answer(
        self, prompt: tuple[int, ...], seed: int, most: int, temperature: float | None
    ) -> Sampled:
        total = sum(float(tensor.double().sum()) for tensor in self.weights.values())
        chance = seed if temperature is not None else None
        digest = hashlib.sha256(repr((total, prompt, chance)).encode()).digest()
        ids = [1 + byte % EOS for byte in digest[:most]]
        if EOS in ids:
            ids = ids[: ids.index(EOS) + 1]
        return Sampled(ids, [-0.5] * len(ids))


def weights_of(value: float) -> list[tuple[str, Tensor]]:
    """A model of one layer, all `value`."""
    return [("layer.weight", torch.full((2, 3), value)), ("layer.bias", torch.full((2,), value))]
