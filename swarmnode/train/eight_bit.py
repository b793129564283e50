"""AdamW whose two moments take 8 bits each, in blocks with a scale (arXiv 2110.02861).

2 bytes per parameter instead of 8; tensors of fewer than 4,096 numbers keep float32. The optimiser
is torchao's (extra `eight-bit`). On a CPU its step runs as written instead of compiled: a compiler
may be missing there.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from swarmnode.errors import ConfigError

# The parts of a quantised moment, beside its codes: a scale for each block, what a code means.
PARTS = ("scale", "qmap")


def adamw8bit(groups: list[dict[str, Any]], lr: float, betas: tuple[float, float]) -> Any:
    """torchao's optimiser. Raises `ConfigError` where it is missing."""
    try:
        from torchao.optim import AdamW8bit
    except ImportError as error:
        raise ConfigError(
            "train.optimizer adamw8bit needs torchao: pip install 'swarmnode[eight-bit]', "
            "or take adamw"
        ) from error
    return AdamW8bit(groups, lr=lr, betas=betas)


def stepping(device: torch.device) -> AbstractContextManager[object]:
    """In which `adamw8bit`'s step is taken."""
    if device.type != "cpu":
        return nullcontext()
    stance: AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
    return stance


def taken_apart(kind: str, name: str, moment: Tensor) -> dict[str, Tensor]:
    """A moment as plain tensors: "<kind>.<name>", with "<kind>-<part>.<name>" if quantised."""
    codes = getattr(moment, "codes", None)
    if codes is None:
        return {f"{kind}.{name}": moment}
    parts = {f"{kind}-{part}.{name}": getattr(moment, part) for part in PARTS}
    return {f"{kind}.{name}": codes, **parts}


def put_together(kind: str, name: str, tensors: Mapping[str, Tensor], like: Tensor) -> Tensor:
    """A copy of the moment of the parameter `like` that `taken_apart` took apart."""
    if f"{kind}-scale.{name}" not in tensors:
        return tensors[f"{kind}.{name}"].to(like, copy=True)
    from torchao.optim.subclass_8bit import OptimState8bit

    codes, scale, qmap = (
        tensors[key].to(like.device, copy=True)
        for key in (f"{kind}.{name}", *(f"{kind}-{part}.{name}" for part in PARTS))
    )
    # The first moment has a sign, the second has none.
    moment: Tensor = OptimState8bit(codes, scale, qmap, kind == "exp_avg", dtype=like.dtype)
    return moment
