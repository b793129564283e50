"""The policy of the KL term: the model as it was when the trainer was made. With adapters it is the
model without them, which takes no memory; else a frozen copy.

A node makes its trainer before it resumes, so this is the model the run started from, also after a
restart. Memory: one more set of weights in the model's dtype (1 GB for 0.5 billion parameters in
bfloat16), no gradients and no moments; time: one more forward pass per step, whatever the epochs.
"""

import copy
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from swarmnode.errors import SwarmNodeError
from swarmnode.train.batch import MicroBatch
from swarmnode.train.logprob import Shortcuts, completion_logps
from swarmnode.train.lora import has_adapters, without_adapters


class Reference:
    """Holds the copy, which nothing changes. Raises `SwarmNodeError` where it does not fit."""

    def __init__(self, model: nn.Module, temperature: float) -> None:
        self._is_base = has_adapters(model)
        self._temperature = temperature
        if self._is_base:
            self._model = model
            return
        try:
            self._model = copy.deepcopy(model).eval().requires_grad_(False)
        except torch.OutOfMemoryError as error:
            raise SwarmNodeError(
                "out of memory for the reference policy: set train.kl_weight to 0 or use a "
                "smaller model"
            ) from error

    @torch.no_grad()
    def logps(self, batch: MicroBatch, shortcuts: Shortcuts) -> Tensor:
        """log π_ref (N,) of the batch's completion tokens, at the sampler's temperature."""
        with without_adapters(self._model) if self._is_base else nullcontext():
            return completion_logps(
                self._model,
                batch.input_ids,
                batch.attention_mask,
                batch.completion_mask,
                shortcuts=shortcuts,
                temperature=self._temperature,
            ).logps
