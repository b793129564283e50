"""AdamW on float32 copies of the weights, and the rule that a bad step is not taken.

bfloat16 keeps 8 bits of a weight: at 0.02 its neighbours are 6e-5 away, so an update of
lr = 1e-6 rounds to nothing and the model never changes, while loss and gradient norm look healthy.
Parameters below float32 therefore get a float32 master that the optimiser owns; gradients are
added up on it over micro-batches and the rounded result is copied into the model after each step.
Memory beside such a model: 16 bytes per parameter (master, gradient, two moments).
"""

import math
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from swarmnode.config import TrainSettings
from swarmnode.errors import SwarmNodeError
from swarmnode.train.eight_bit import PARTS, adamw8bit, put_together, stepping, taken_apart

# AdamW's per-parameter state, as torch names it.
MOMENTS = ("step", "exp_avg", "exp_avg_sq")
FULL_PRECISION = (torch.float32, torch.float64)


class MasterAdamW:
    """AdamW over the parameters that require a gradient when it is made."""

    def __init__(self, model: nn.Module, settings: TrainSettings) -> None:
        self._max_grad_norm = settings.max_grad_norm
        self._model = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self._master = {
            name: p if p.dtype in FULL_PRECISION else p.detach().float()
            for name, p in self._model.items()
        }
        for tensor in self._master.values():
            tensor.requires_grad_(True)
        # Decay pulls matrices towards zero; on norms and biases it would only change the scale.
        matrices = [p for p in self._master.values() if p.ndim >= 2]
        vectors = [p for p in self._master.values() if p.ndim < 2]
        groups = [
            {"params": matrices, "weight_decay": settings.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        betas = (settings.beta1, settings.beta2)
        self._is_8bit = settings.optimizer == "adamw8bit"
        self._adamw: Any = (
            adamw8bit(groups, settings.lr, betas)
            if self._is_8bit
            else torch.optim.AdamW(groups, lr=settings.lr, betas=betas, fused=True)
        )

    def collect_gradients(self) -> None:
        """Moves the model's gradients to the float32 masters; call after each backward pass."""
        for name, master in self._master.items():
            parameter = self._model[name]
            if master is parameter or parameter.grad is None:
                continue
            gradient = parameter.grad.float()
            master.grad = gradient if master.grad is None else master.grad.add_(gradient)
            parameter.grad = None

    def clear_gradients(self) -> None:
        """Forgets every gradient collected so far."""
        for tensor in (*self._model.values(), *self._master.values()):
            tensor.grad = None

    def sampled_gradient(self, coordinates: int) -> Tensor:
        """About so many coordinates at most, evenly spread, of the gradient collected so far, in
        one float32 vector (C,); 0 where there is none. Always the same ones."""
        masters = self._master.values()
        stride = max(1, math.ceil(sum(master.numel() for master in masters) / coordinates))
        return torch.cat([
            torch.zeros_like(master.detach().flatten()[::stride], dtype=torch.float32)
            if master.grad is None
            else master.grad.flatten()[::stride].float()
            for master in masters
        ])  # fmt: skip

    def step(self) -> float | None:
        """Clips, updates the model and returns the gradient's norm before clipping.

        None, with weights and moments untouched, when that norm is not finite. Gradients are
        cleared either way.
        """
        masters = list(self._master.values())
        norm = float(nn.utils.clip_grad_norm_(masters, self._max_grad_norm))
        if math.isfinite(norm):
            try:
                with stepping(masters[0].device) if self._is_8bit else nullcontext():
                    self._adamw.step()
            except torch.OutOfMemoryError as error:
                raise SwarmNodeError(
                    "out of memory for AdamW's moments: use a smaller model or model.dtype"
                ) from error
            self._copy_to_model()
        self.clear_gradients()
        return norm if math.isfinite(norm) else None

    @torch.no_grad()
    def _copy_to_model(self) -> None:
        """Rounds the masters into the model's own parameters."""
        for name, master in self._master.items():
            if master is not self._model[name]:
                self._model[name].copy_(master)

    def state(self) -> dict[str, Tensor]:
        """Live tensors by "<kind>.<parameter name>": the moments, and masters where they exist."""
        tensors: dict[str, Tensor] = {}
        for name, master in self._master.items():
            if master is not self._model[name]:
                tensors[f"master.{name}"] = master.detach()
            for kind, value in self._adamw.state.get(master, {}).items():
                tensors |= taken_apart(kind, name, value)
        return tensors

    @torch.no_grad()
    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes over what `state` gave, by copy. The model's own weights are loaded before.

        Raises `SwarmNodeError` when the tensors belong to another model or dtype.
        """
        expected = set(self._expected_names(tensors))
        if not self._is_8bit and any(key.startswith("exp_avg-scale.") for key in tensors):
            raise SwarmNodeError(
                "the optimiser state has 8-bit moments: go on with train.optimizer adamw8bit"
            )
        if expected != set(tensors):
            odd = sorted(expected ^ set(tensors))[0]
            raise SwarmNodeError(
                f"the optimiser state is of another model or dtype: {odd!r} does not match"
            )
        for name, master in self._master.items():
            if f"master.{name}" in tensors:
                master.copy_(tensors[f"master.{name}"])
            self._adamw.state.pop(master, None)
            if f"step.{name}" in tensors:
                self._adamw.state[master] = {
                    "step": tensors[f"step.{name}"].to(master.device, copy=True),
                    **{kind: put_together(kind, name, tensors, master) for kind in MOMENTS[1:]},
                }

    def _expected_names(self, tensors: Mapping[str, Tensor]) -> Iterable[str]:
        for name, master in self._master.items():
            if master is not self._model[name]:
                yield f"master.{name}"
            # A parameter that never had a gradient has no moments yet.
            if f"step.{name}" in tensors:
                yield from (f"{kind}.{name}" for kind in MOMENTS)
            if f"exp_avg-scale.{name}" in tensors:
                yield from (f"{kind}-{part}.{name}" for kind in MOMENTS[1:] for part in PARTS)
