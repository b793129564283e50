"""The policy's weights as another program reads them: by the names of its safetensors files."""

from collections.abc import Iterator

from torch import Tensor
from transformers import PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion


def handed_over(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """Name and tensor of every weight, live where no conversion is needed; of tied ones the first.

    In the order of the model's layers, so that a reader can finish one before the next.
    """
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()
    # keep_vars gives the parameters themselves, so tied ones are the same object.
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            tensors[name] = tensor.detach()
    yield from revert_weight_conversion(model, tensors).items()
