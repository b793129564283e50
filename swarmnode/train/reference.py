"""The policy of the KL term: a frozen copy of the model as it was when the trainer was made.

A node makes its trainer before it resumes, so this is the model the run started from, also after a
restart. Memory: one more set of weights in the model's dtype (1 GB for 0.5 billion parameters in
bfloat16), no gradients and no moments; time: one more forward pass per step, whatever the epochs.
"""

import copy

import torch
from torch import Tensor, nn

from swarmnode.errors import SwarmNodeError
from swarmnode.train.batch import MicroBatch
from swarmnode.train.logprob import Shortcuts, completion_logps


class Reference:
    """Holds the copy; nothing changes it. Raises `SwarmNodeError` where it does not fit."""

    def __init__(self, model: nn.Module, temperature: float) -> None:
        try:
            self._model = copy.deepcopy(model).eval().requires_grad_(False)
        except torch.OutOfMemoryError as error:
            raise SwarmNodeError(
                "out of memory for the reference policy: set train.kl_weight to 0 or use a "
                "smaller model"
            ) from error
        self._temperature = temperature

    @torch.no_grad()
    def logps(self, batch: MicroBatch, shortcuts: Shortcuts) -> Tensor:
        """log π_ref (N,) of the batch's completion tokens, at the sampler's temperature."""
        return completion_logps(
            self._model,
            batch.input_ids,
            batch.attention_mask,
            batch.completion_mask,
            shortcuts=shortcuts,
            temperature=self._temperature,
        ).logps
