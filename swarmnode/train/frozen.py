"""In the trainer's place on a node that only generates: it keeps its weights and has no optimiser.

Its checkpoints are those of a trainer that has just begun with these weights, so a run can change
its role.
"""

from collections.abc import Sequence

import torch
from torch import nn

from swarmnode.train.batch import Sample
from swarmnode.train.optimizer import FULL_PRECISION
from swarmnode.train.trainer import StepReport, TrainerState
from swarmnode.train.weights import persistent_tensors, require_alike


class Frozen:
    """`Trainer` as the node sees it, without training. Turns the model's gradients off."""

    def __init__(self, model: nn.Module) -> None:
        self.policy_version = 0
        # What would be trained: with LoRA the adapters only.
        self._trainable = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self._model = model.requires_grad_(False)

    def step(
        self, samples: Sequence[Sample], foreign_share: float = 1.0, *, is_measured: bool = False
    ) -> StepReport:
        """Does nothing and says so."""
        self._model.eval()
        return StepReport(
            loss=None,
            grad_norm=None,
            entropy=None,
            clip_ratio=None,
            kl_own=None,
            kl_external=None,
            tokens_own=0,
            tokens_external=0,
            samples=0,
            micro_batches=0,
            optimizer_steps=0,
            skipped="role",
        )

    def state(self) -> TrainerState:
        """The weights, and what an optimiser would begin with: float32 copies of lesser ones."""
        masters = {
            f"master.{name}": parameter.detach().float()
            for name, parameter in self._trainable.items()
            if parameter.dtype not in FULL_PRECISION
        }
        return TrainerState(persistent_tensors(self._model), masters, self.policy_version)

    def load_state(self, state: TrainerState) -> None:
        """Takes over the weights of another trainer's state by copy, and leaves its optimiser.

        Raises `SwarmNodeError`, with the model unchanged, when it is of another model or dtype.
        """
        own = persistent_tensors(self._model)
        require_alike(own, state.model)
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(state.model[name])
        self.policy_version = state.policy_version
