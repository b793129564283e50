"""Log-probabilities and entropies straight from hidden states, without ever holding all logits.

The vocabulary is cut into tiles of columns. Each tile's logits (N, columns) update a running
log-sum-exp and are forgotten; the backward pass computes them again (online softmax, arXiv
1805.02867; the idea of Cut Your Losses, arXiv 2411.09009). Kept are four numbers per token, so the
memory does not depend on V, and a tile that fits into a processor's cache is several times quicker
than one that does not. Every row of the weight's gradient is written once, from one product.

    log p = z_t − lse,   H = lse − Σ p z,   ∂ log p / ∂ z_j = (j = t) − p_j,   z = (h Wᵀ + b) / T

A head that is not a plain `nn.Linear` is `logprob.py`'s to compute.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Columns of a tile at least: narrower matrix products are inefficient.
MIN_COLUMNS = 128


def head_logps(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    temperature: float,
    tile_logits: int,
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of `targets` (N,), differentiable once, and entropies (N,), detached.

    `hidden` (N, H), `weight` (V, H), `bias` (V,) or None. About `tile_logits` logits exist at a
    time. The softmax is float32, or float64 for float64 weights.
    """
    columns = max(MIN_COLUMNS, tile_logits // max(1, len(targets)))
    logps, entropies = _HeadLogps.apply(  # type: ignore[no-untyped-call]  # torch has no types here
        hidden, weight, bias, targets, temperature, columns
    )
    return logps, entropies


class _HeadLogps(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        temperature: float,
        columns: int,
    ) -> tuple[Tensor, Tensor]:
        tokens = len(targets)
        precise = torch.promote_types(hidden.dtype, torch.float32)
        top = hidden.new_full((tokens,), -torch.inf, dtype=precise)  # largest logit so far
        total = hidden.new_zeros(tokens, dtype=precise)  # Σ e^(z − top)
        weighted = torch.zeros_like(total)  # Σ e^(z − top) (z − top)
        chosen = torch.zeros_like(total)  # z of the target
        for start in range(0, len(weight), columns):
            logits = _logits(hidden, weight, bias, start, columns, temperature)
            inside, place = _place(targets, start, logits.shape[1])
            chosen = torch.where(inside, logits.gather(1, place)[:, 0], chosen)
            highest = torch.maximum(top, logits.amax(dim=1))
            rescale = (top - highest).exp()
            # −∞ · 0 before the first tile is no number; there is nothing to rescale then.
            shift = torch.where(total > 0, total * (top - highest), 0.0)
            logits.sub_(highest[:, None])
            powers = logits.exp()
            weighted = rescale * (weighted + shift) + torch.linalg.vecdot(powers, logits)
            total = rescale * total + powers.sum(dim=1)
            top = highest
        log_total = total.log()
        log_sum = top + log_total
        ctx.save_for_backward(hidden, weight, bias, targets, log_sum)
        ctx.temperature, ctx.columns = temperature, columns
        entropies = log_total - weighted / total
        ctx.mark_non_differentiable(entropies)
        return chosen - log_sum, entropies

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slopes: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        """`slopes` (N,) of the log-probabilities."""
        hidden, weight, bias, targets, log_sum = ctx.saved_tensors
        slopes = slopes.to(log_sum.dtype) / ctx.temperature
        wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        for_hidden = torch.zeros_like(hidden, dtype=log_sum.dtype) if wants_hidden else None
        for_weight = torch.empty_like(weight) if wants_weight else None
        for_bias = torch.empty_like(bias) if wants_bias else None
        for start in range(0, len(weight), ctx.columns):
            slope = _logits(hidden, weight, bias, start, ctx.columns, ctx.temperature)
            inside, place = _place(targets, start, slope.shape[1])
            slope.sub_(log_sum[:, None]).exp_().mul_(-slopes[:, None])
            slope.scatter_add_(1, place, torch.where(inside, slopes, 0.0)[:, None])
            slope = slope.to(weight.dtype)
            part = slice(start, start + slope.shape[1])
            if for_hidden is not None:
                if for_hidden.dtype == slope.dtype:
                    for_hidden.addmm_(slope, weight[part])
                else:
                    for_hidden += slope @ weight[part]
            if for_weight is not None:
                torch.mm(slope.t(), hidden, out=for_weight[part])
            if for_bias is not None:
                torch.sum(slope, dim=0, out=for_bias[part])
        return (
            None if for_hidden is None else for_hidden.to(hidden.dtype),
            for_weight, for_bias, None, None, None,
        )  # fmt: skip


def _logits(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    start: int,
    columns: int,
    temperature: float,
) -> Tensor:
    """A tile, (N, columns or fewer), of its own memory."""
    part = slice(start, start + columns)
    logits = torch.nn.functional.linear(hidden, weight[part], None if bias is None else bias[part])
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return logits if temperature == 1.0 else logits.div_(temperature)


def _place(targets: Tensor, start: int, width: int) -> tuple[Tensor, Tensor]:
    """Whether each target lies in the tile (N,), and its column there (N, 1), else any."""
    place = targets - start
    inside = (place >= 0) & (place < width)
    return inside, place.clamp(0, width - 1)[:, None]
