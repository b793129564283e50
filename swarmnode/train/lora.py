"""Low-rank adapters (LoRA, arXiv 2106.09685): the base weights stay as they are, and small matrices
beside every linear layer but the head are trained.

    y = W x + (alpha / rank) B A x,   A random, B zero at the start

They are put into the model itself, which stays of its class. Needs the extra `lora` (peft). Not
here: where they are saved (`weights.py` says what belongs to a checkpoint).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from swarmnode.errors import ConfigError

ADAPTER = "default"
# In the name of each of an adapter's parameters, and of no other parameter.
MARK = ".lora_"


def add_adapters(model: nn.Module, rank: int, alpha: float) -> None:
    """Puts adapters beside the linear layers of `model` and freezes everything else.

    Raises `ConfigError` where peft is missing or finds no layer to adapt.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ConfigError(
            "model.lora_rank needs peft: pip install 'swarmnode[lora]', or leave --lora-rank out"
        ) from error
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules="all-linear",
        lora_dropout=0.0,
        # GPT-2's layers hold their weights the other way round.
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
    )
    try:
        inject_adapter_in_model(config, model, ADAPTER)
    except ValueError as error:
        raise ConfigError(f"this model takes no LoRA adapters: {error}") from error
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(MARK in name)


def has_adapters(model: nn.Module) -> bool:
    """Whether `add_adapters` was called on it."""
    return any(MARK in name for name, _ in model.named_parameters())


@contextmanager
def without_adapters(model: nn.Module) -> Iterator[None]:
    """The model as it was before adapters, until the end of the block. By their scale, so that no
    parameter's `requires_grad` changes between a forward pass and its backward pass."""
    layers = list(_adapted(model).values())
    scales = [layer.scaling[ADAPTER] for layer in layers]
    try:
        for layer in layers:
            layer.scaling[ADAPTER] = 0.0
        yield
    finally:
        for layer, scale in zip(layers, scales, strict=True):
            layer.scaling[ADAPTER] = scale


@torch.no_grad()
def merged_state(model: nn.Module) -> dict[str, Tensor]:
    """The state of the model without adapters whose weights are W + (alpha / rank) B A, computed
    in float32 and rounded to the weights' dtype."""
    layers = _adapted(model)
    merged: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        if MARK in name:
            continue
        owner, _, rest = name.rpartition(".base_layer.")
        if owner and rest == "weight":
            delta = layers[owner].get_delta_weight(ADAPTER)
            tensor = (tensor.float() + delta.float()).to(tensor.dtype)
        merged[f"{owner}.{rest}" if owner else name] = tensor
    return merged


def _adapted(model: nn.Module) -> dict[str, Any]:
    """The layers that have an adapter, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if hasattr(module, "base_layer") and hasattr(module, "scaling")
    }
