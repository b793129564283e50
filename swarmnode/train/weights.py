"""A model's tensors by name, and the check that two sets of them are of one model.

Of a model with adapters (`lora.py`) only these: the base is as it was loaded.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from swarmnode.errors import SwarmNodeError
from swarmnode.train.lora import MARK, has_adapters


def persistent_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The model's parameters and persistent buffers, live; of tied ones the first name only. With
    adapters theirs only."""
    adapters_only = has_adapters(model)
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()
    # keep_vars gives the parameters themselves, so tied ones are the same object.
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen and (MARK in name or not adapters_only):
            seen.add(id(tensor))
            tensors[name] = tensor.detach()
    return tensors


def require_alike(own: Mapping[str, Tensor], stored: Mapping[str, Tensor]) -> None:
    """Raises `SwarmNodeError` when names, shapes or dtypes differ."""
    for name in sorted(own.keys() | stored.keys()):
        if _kind(own.get(name)) != _kind(stored.get(name)):
            raise SwarmNodeError(
                f"the checkpoint is of another model: {name} is {_kind(stored.get(name))} "
                f"there and {_kind(own.get(name))} here"
            )


def _kind(tensor: Tensor | None) -> str:
    return "absent" if tensor is None else f"{tensor.dtype} {tuple(tensor.shape)}"
