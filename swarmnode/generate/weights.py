"""The policy's weights as another program reads them: by the names of its safetensors files."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion

# peft's modules and tensors beside an adapted layer's own.
_PARTS_OF_ADAPTERS = ("lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B")


def handed_over(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """Name and tensor of every weight, live where nothing is to be converted or merged; of tied
    ones the first. peft's adapters are merged into copies, one tensor at a time.

    In the order of the model's layers, so that a reader can finish one before the next.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    adapted = {
        name: layer for name, layer in base.named_modules() if hasattr(layer, "get_delta_weight")
    }
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()
    # keep_vars gives the parameters themselves, so tied ones are the same object.
    for name, tensor in base.state_dict(keep_vars=True).items():
        is_part = any(f".{part}." in f".{name}" for part in _PARTS_OF_ADAPTERS)
        if id(tensor) not in seen and not is_part:
            seen.add(id(tensor))
            tensors[name] = tensor.detach()
    for name, tensor in revert_weight_conversion(base, tensors).items():
        layer, _, last = name.rpartition(".base_layer.")
        if not layer:
            yield name, tensor
        elif last != "weight":
            yield f"{layer}.{last}", tensor
        else:
            yield f"{layer}.{last}", _merged(adapted[layer], tensor)


def _merged(layer: Any, weight: Tensor) -> Tensor:
    """The layer's weight with what its active adapters add."""
    with torch.no_grad():
        for adapter in layer.active_adapters:
            if adapter in layer.scaling:
                weight = weight + layer.get_delta_weight(adapter).to(weight.dtype)
    return weight
