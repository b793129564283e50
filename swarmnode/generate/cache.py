"""A key-value cache that has room for all it will hold, so that a token is written, not appended.

transformers' `DynamicLayer` concatenates at every step: it copies the whole cache for each token.
Here each layer's room is made once, behind the prompt, and the model gets a view of what is filled.
"""

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer


class RoomyLayer(DynamicLayer):  # type: ignore[misc]
    """A `DynamicLayer` whose `keys` and `values`, (B, H, filled, D), are views of larger ones."""

    def __init__(self, filled: DynamicLayer, copies: Tensor, room: int) -> None:
        """Row b holds row `copies[b]` of `filled`, with room for as many tokens more."""
        super().__init__()
        self.lazy_initialization(filled.keys, filled.values)
        self._all_keys = _with_room(filled.keys, copies, room)
        self._all_values = _with_room(filled.values, copies, room)
        self._show(filled.keys.shape[-2])

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Writes the new keys and values, (B, H, new, D), behind the others; returns all."""
        start = self.keys.shape[-2]
        end = start + key_states.shape[-2]
        self._all_keys[:, :, start:end] = key_states
        self._all_values[:, :, start:end] = value_states
        self._show(end)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keeps these rows."""
        filled = self.keys.shape[-2]
        self._all_keys, self._all_values = self._all_keys[indices], self._all_values[indices]
        self._show(filled)

    def _show(self, filled: int) -> None:
        self.keys = self._all_keys[:, :, :filled]
        self.values = self._all_values[:, :, :filled]


def make_room(cache: Any, copies: Tensor, room: int) -> None:
    """Selects the rows `copies` (B,) of a prompt's cache, with room for so many tokens behind it.

    Layers that are not plain, such as sliding windows, select their rows and grow as they do.
    """
    for number, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer:
            cache.layers[number] = RoomyLayer(layer, copies, room)
        else:
            layer.batch_select_indices(copies)


def _with_room(filled: Tensor, copies: Tensor, room: int) -> Tensor:
    _, heads, length, size = filled.shape
    whole = filled.new_empty(len(copies), heads, length + room, size)
    torch.index_select(filled, 0, copies, out=whole[:, :, :length])
    return whole
