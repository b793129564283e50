"""An engine that is a second copy of the shipped model: for the round loop, without vLLM."""

import copy
import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from swarmnode.config import ModelSettings
from swarmnode.generate.engine import Batch, EngineFailed, Request, Sampled
from swarmnode.train.policy import load as load_policy


class CopyEngine:
    """Generates only when it is asked for the answers, as late as any engine could: with the
    weights that it was given, whatever the trainer did since. Dies at the calls of `receive` whose
    numbers, from 1, are in `dying`."""

    pid = None

    def __init__(self, dying: Sequence[int] = ()) -> None:
        self.dying = dying
        self.batches: list[Batch] = []
        self.received = 0
        self.runs = False
        self._stop_ids: set[int] = set()
        self._model = copy.deepcopy(load_policy(ModelSettings(name="demo")).model)

    def __call__(
        self, options: object, environment: object, stop_ids: Sequence[int], silence_s: float
    ) -> "CopyEngine":
        """Itself, as a `StartEngine`."""
        self._stop_ids = set(stop_ids)
        return self

    def start(self, context: int) -> None:
        self.runs = True

    def load(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        own = self._model.state_dict()
        with torch.no_grad():
            for name, tensor in weights:
                own[name].copy_(unpadded(name, tensor, own[name].shape))

    def send(self, batch: Batch) -> None:
        self.batches.append(batch)

    def receive(self) -> list[Sampled]:
        self.received += 1
        if self.received in self.dying:
            self.runs = False
            raise EngineFailed("the engine died")
        batch = self.batches[-1]
        return [self._answer(one, batch.temperature) for one in batch.requests]

    def sleep(self) -> None: ...

    def wake(self) -> None: ...

    def kill(self) -> None:
        self.runs = False

    def close(self) -> None:
        self.runs = False

    @torch.no_grad()
    def _answer(self, request: Request, temperature: float | None) -> Sampled:
        chance = torch.Generator().manual_seed(request.seed)
        ids: list[int] = []
        logps: list[float] = []
        tokens, cache = torch.tensor([request.prompt]), None
        while len(ids) < request.max_new_tokens and not self._stop_ids & set(ids[-1:]):
            output = self._model(tokens, past_key_values=cache, use_cache=True)
            logp = torch.log_softmax(output.logits[0, -1] / (temperature or 1.0), dim=-1)
            token = logp.argmax()
            if temperature is not None:
                token = torch.multinomial(logp.exp(), 1, generator=chance)[0]
            ids.append(int(token))
            logps.append(float(logp[token]))
            tokens, cache = token.view(1, 1), output.past_key_values
        return Sampled(ids, logps)


def unpadded(name: str, tensor: Tensor, shape: torch.Size) -> Tensor:
    """What `generate/padding.py` did to heads of 24 dimensions, undone."""
    if tensor.shape == shape:
        return tensor
    if name.endswith("o_proj.weight"):
        return tensor.view(shape[0], -1, 16)[:, :, :12].reshape(shape)
    scale = math.sqrt(24 / 32) if "q_proj" in name else 1.0
    return scale * tensor.view(-1, 16, shape[1])[:, :12].reshape(shape)
