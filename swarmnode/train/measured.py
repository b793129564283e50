"""What one pass over a step's samples adds up, micro-batch by micro-batch."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from swarmnode.train.batch import MicroBatch
from swarmnode.train.logprob import TokenStatistics
from swarmnode.train.loss import LossTerms


@dataclass(frozen=True, slots=True)
class PassSums:
    """Sums over one pass (one epoch); `loss` is whole, the others are still to be divided."""

    micro_batches: int
    loss: float
    clipped_tokens: float
    reference_kl: float
    entropy: float
    own_entropy: float
    kl_own: float
    kl_own_tokens: float
    kl_external: float
    kl_external_samples: float
    weights: float  # Σ and Σ of squares over those samples: our probability over the sampler's
    weight_squares: float
    gap_own: float  # over the tokens of `kl_own`: Σ |log μ − log π|
    kl_own_k3: float


def measure_batch(batch: MicroBatch, terms: LossTerms, statistics: TokenStatistics) -> Tensor:
    """One micro-batch's summands of `PassSums` after its first field, (13,) float32."""
    external = batch.external[batch.token_rows]
    entropies = statistics.entropies
    summands = (
        terms.loss.detach(),
        terms.clipped_tokens,
        terms.reference_kl,
        entropies.sum(),
        entropies.masked_fill(external, 0.0).sum(),
        *_divergences(batch, statistics.logps.detach()),
    )
    return torch.stack([x.float() for x in summands])


def add_up(batches: Sequence[Tensor]) -> PassSums:
    """The sums of a pass. Reads from the GPU once: each read would wait for it."""
    return PassSums(len(batches), *torch.stack(list(batches)).sum(dim=0).tolist())


def _divergences(batch: MicroBatch, logps: Tensor) -> tuple[Tensor, ...]:
    """Sum and count of `StepReport.kl_own` (tokens) and of `kl_external` (completions), the
    sums of the latter's weights and of their squares, and the sums of the former's other two."""
    own = ~batch.external[batch.token_rows] & ~batch.sampler_logps.isnan()  # (N,)
    token_gaps = (batch.sampler_logps - logps)[own]
    ones = torch.ones_like(logps)
    row_logps = torch.zeros_like(batch.advantages).to(logps).index_add(0, batch.token_rows, logps)
    row_tokens = torch.zeros_like(row_logps).index_add(0, batch.token_rows, ones)
    external = batch.external & ~batch.sampler_mean_logps.isnan()  # (B,)
    row_gaps = (batch.sampler_mean_logps - row_logps / row_tokens)[external]
    weights = (-row_gaps).exp()
    return (
        token_gaps.sum(),
        own.sum(),
        row_gaps.sum(),
        external.sum(),
        weights.sum(),
        weights.square().sum(),
        token_gaps.abs().sum(),
        ((-token_gaps).exp() + token_gaps - 1).sum(),
    )
