"""Heads of a size that vLLM's attention on a CPU has no kernel for, padded to one that it has.

The engine is told of a model with larger heads whose further dimensions are zero: rows of the
query, key and value projections, columns of the output projection. Rotary embedding turns dimension
i with dimension i + size/2 by θ^(−2i/size), so each half of a head is padded by itself, and θ is
raised to padded/true, which keeps every angle. The score's scale is 1/√size, so the query
projection is multiplied by √(padded / true). The two models are equal but for rounding.

For models that are laid out as Llama and normalise no heads; others are left as they are.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from transformers import PretrainedConfig

# `CPUAttentionBackend.get_supported_head_sizes` of vLLM 0.32.
HEAD_SIZES: Final = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
_FAMILIES: Final = ("llama", "mistral", "qwen2")


@dataclass(frozen=True, slots=True)
class HeadPadding:
    """From heads of `true` dimensions to heads of `padded`."""

    true: int
    padded: int
    rope: dict[str, Any]  # the model's own

    def overrides(self) -> dict[str, Any]:
        """What the engine's model has otherwise in its configuration."""
        theta = float(self.rope["rope_theta"]) ** (self.padded / self.true)
        return {"head_dim": self.padded, "rope_parameters": self.rope | {"rope_theta": theta}}

    def applied(self, weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        """The engine's weights; those that have nothing to do with heads as they are."""
        for name, tensor in weights:
            layer, _, kind = name.rpartition(".")
            module = layer.rpartition(".")[2]
            if module in ("q_proj", "k_proj", "v_proj"):
                scale = math.sqrt(self.padded / self.true) if module == "q_proj" else 1.0
                yield name, self._padded(tensor.detach() * scale, dim=0)
            elif module == "o_proj" and kind == "weight":
                yield name, self._padded(tensor.detach(), dim=1)
            else:
                yield name, tensor

    def _padded(self, tensor: Tensor, dim: int) -> Tensor:
        before, after = tensor.shape[:dim], tensor.shape[dim + 1 :]
        halves = tensor.reshape(*before, -1, self.true // 2, *after)
        room = (self.padded - self.true) // 2
        zeros = halves.new_zeros(*before, halves.shape[dim], room, *after)
        return torch.cat((halves, zeros), dim + 1).flatten(dim, dim + 1)


def head_padding(config: PretrainedConfig) -> HeadPadding | None:
    """What a CPU engine needs for this model; None where its heads fit, or padding does not."""
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    larger = [fitting for fitting in HEAD_SIZES if fitting >= size]
    if config.model_type not in _FAMILIES or not larger or larger[0] == size:
        return None
    rope = dict(config.rope_parameters)
    plain = rope.get("rope_type", "default") == "default" and "partial_rotary_factor" not in rope
    if not plain or size % 2:
        return None
    return HeadPadding(size, larger[0], rope)
