"""What every objective is given and what it returns, over the N tokens of one micro-batch.

A micro-batch holds whole completions, so a sum over one completion is the same however the step
was split.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Tokens:
    """Completion tokens of one micro-batch, flattened row by row. Only `logps` is differentiable.

    A peer's per-token log-probabilities never reach a node; there the sampler's are taken to be
    those of the policy at the start of the step, as SAPO (arXiv 2509.08721) does.
    """

    logps: Tensor  # (N,) log π
    old_logps: Tensor  # (N,) log π_old
    sampler_logps: Tensor  # (N,) log μ; log π_old where the sampler's is unknown
    # (B,) log μ of the whole completion, the sum of the line above; for a peer's completion with a
    # stated mean: that mean times our number of tokens, exact only for equal tokenizers.
    sampler_sums: Tensor
    advantages: Tensor  # (N,) of the token's completion
    rows: Tensor  # (N,) int64, completion of each token, in 0 … B − 1
    external: Tensor  # (N,) bool, the completion is a peer's
    lengths: Tensor  # (B,) tokens of each completion, each ≥ 1
    verified: Tensor | None = None  # (N,) bool, tokens of a verified answer; None: all

    def row_sums(self, values: Tensor) -> Tensor:
        """Sums of `values` (N,) over each completion: (B,)."""
        return values.new_zeros(len(self.lengths)).index_add(0, self.rows, values)


@dataclass(frozen=True, slots=True)
class Terms:
    """One objective over the same tokens."""

    losses: Tensor  # (N,) differentiable; averaged as the table says
    clipped: Tensor  # (N,) bool: a bound stopped this token's gradient or cut its weight


def clipped_terms(ratio: Tensor, advantages: Tensor, low: float, high: float) -> Terms:
    """PPO's clipped surrogate: −min(ρA, clip(ρ, 1 − low, 1 + high) A). All tensors (N,).

    Source: PPO (arXiv 1707.06347), with DAPO's two bounds (arXiv 2503.14476).
    """
    objective = ratio * advantages
    bounded = ratio.clamp(1 - low, 1 + high) * advantages
    return Terms(-torch.minimum(objective, bounded), bounded < objective)


def bounded_exp(log_ratio: Tensor, limit: float) -> Tensor:
    """exp of `log_ratio` held within ±`limit`; outside it the gradient is zero.

    The pre-clip of StableReinforce (arXiv 2505.02835), whose code takes ln 1000 as the limit.
    """
    return log_ratio.clamp(-limit, limit).exp()
