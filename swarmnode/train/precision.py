"""Matrix products in bfloat16 around float32 weights: torch's autocast, where a GPU computes in it.

What autocast casts are copies, so weights, gradients and the optimiser stay in their own dtype, and
the log-softmax is float32 (`logprob.py`). For a model that was loaded in bfloat16 (`model.dtype`,
with float32 masters in `optimizer.py`) it keeps norms and softmaxes in float32. Generation runs
without it; the difference is part of the measured mismatch (`StepReport.gap_own`).
"""

from typing import Literal

import torch
from torch import Tensor


def autocast(setting: Literal["auto", "bfloat16", "off"], device: torch.device) -> torch.autocast:
    """The context of a forward pass; without effect on a CPU unless chosen."""
    fits = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    enabled = setting == "bfloat16" or (setting == "auto" and fits)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


def autocast_inputs(
    hidden: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """What autocast would give to a linear layer, for one whose backward pass runs outside it and
    has to compute the same numbers again. Gradients flow back through the cast."""
    device = hidden.device.type
    if not torch.is_autocast_enabled(device):
        return hidden, weight, bias
    dtype = torch.get_autocast_dtype(device)
    return hidden.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
