"""The step's loss: an objective's terms, averaged over own and peers' completions.

    joint (`train.external_weight` not given):  L = Σ terms / D
    separate (`train.external_weight` = λ):     L = Σ_own terms / D_own + λ Σ_peers' terms / D_peers

D counts tokens, completions or completions times a constant length, as the objective's line in
`objectives/table.py` says, always over the *whole step*, so that the parts of its micro-batches add
up to the same loss however memory forced it to be split. SAPO (arXiv 2509.08721) is joint: peers'
completions weigh by their tokens, and long ones push the node's own aside. Separate divisors keep
the two parts' weights at 1 : λ.

Departures from SAPO, beside those of the objectives (`objectives/`) and of peers' part
(`foreign.py`):

1. `train.engine_max_weight` = C > 0. A generation engine that is another program than the trainer
   (vLLM) samples from a slightly different distribution μ, and with overlap from an older policy.
   Each own token's term is multiplied by min(π_old / μ, C), truncated importance sampling (IMPALA,
   arXiv 1802.01561; for this mismatch: Yao et al., "Your efficient RL framework secretly brings
   you off-policy RL training", 2025). Not where the objective reads μ itself (`dppo_tv`, `topr`,
   `decoupled`), where tokens carry no μ, nor where transformers sampled: the two differ by rounding
   only, and None, the default, is off there (`assembly.py`).

Two optional penalties are added: the KL divergence to a reference, token by token under the same
divisors, and EPO's entropy terms on own tokens (`entropy.py`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from swarmnode.config import HybridSettings, TrainSettings
from swarmnode.train.batch import MicroBatch, Sample
from swarmnode.train.foreign import foreign_terms
from swarmnode.train.objectives.table import OBJECTIVES
from swarmnode.train.objectives.tokens import Terms, Tokens, bounded_exp


@dataclass(frozen=True, slots=True)
class StepSize:
    """Counts over all samples of a step, the divisors of its loss."""

    own_tokens: int
    external_tokens: int
    own_completions: int
    external_completions: int
    foreign_share: float = 1.0  # multiplies the weight of peers' part


@dataclass(frozen=True, slots=True)
class LossTerms:
    """Sums over one micro-batch's tokens; add them up over the step."""

    loss: Tensor  # () the part of the step's loss, already divided
    clipped_tokens: Tensor  # () int64, tokens that the objective clipped or masked
    reference_kl: Tensor  # () sum of `reference_kl` over the tokens; 0 without a reference


def step_size(samples: Sequence[Sample], foreign_share: float = 1.0) -> StepSize:
    """The counts of `samples`, and the share."""
    own = [len(s.completion_ids) for s in samples if not s.external]
    external = [len(s.completion_ids) for s in samples if s.external]
    return StepSize(sum(own), sum(external), len(own), len(external), foreign_share)


def tokens_of(batch: MicroBatch, logps: Tensor, old_logps: Tensor) -> Tokens:
    """What an objective is given: `logps` (N,), differentiable, and `old_logps` (N,) of `batch`."""
    rows = batch.token_rows
    old_logps = old_logps.detach()
    sampler_logps = torch.where(batch.sampler_logps.isnan(), old_logps, batch.sampler_logps)
    lengths = batch.completion_mask.sum(dim=1)
    sums = torch.zeros_like(batch.advantages).to(old_logps).index_add(0, rows, sampler_logps)
    # Peers state a mean per token of their tokenizer.
    stated = batch.external & ~batch.sampler_mean_logps.isnan()
    return Tokens(
        logps=logps,
        old_logps=old_logps,
        sampler_logps=sampler_logps,
        sampler_sums=torch.where(stated, batch.sampler_mean_logps * lengths, sums),
        advantages=batch.advantages[rows],
        rows=rows,
        external=batch.external[rows],
        lengths=lengths,
        verified=batch.verified,
    )


def step_loss(
    tokens: Tokens,
    size: StepSize,
    settings: TrainSettings,
    reference_logps: Tensor | None = None,
    foreign: HybridSettings | None = None,
) -> LossTerms:
    """This micro-batch's part of the loss of a step of `size`, by `settings.objective`.

    `reference_logps` (N,) are those of the reference policy; without them there is no KL term.
    """
    objective = OBJECTIVES[settings.objective]
    terms = objective.terms(tokens, settings)
    if settings.engine_max_weight and not objective.reads_sampler:
        weights = engine_weights(tokens, settings.engine_max_weight)
        terms = Terms(terms.losses * weights, terms.clipped)
    if foreign is not None:
        peers = foreign_terms(tokens, foreign)
        terms = Terms(
            torch.where(tokens.external, peers.losses, terms.losses),
            torch.where(tokens.external, peers.clipped, terms.clipped),
        )
    losses, kl = terms.losses, terms.losses.new_zeros(())
    if reference_logps is not None:
        token_kl = reference_kl(tokens.logps, reference_logps, settings.max_log_ratio)
        losses, kl = losses + settings.kl_weight * token_kl, token_kl.detach().sum()
    if objective.average == "completions":
        losses = losses / tokens.lengths[tokens.rows]
    own, external = _divisors(objective.average, size, settings.length_tokens)
    weight, separate = _weight(settings, foreign)
    weight *= size.foreign_share
    if weight != 1.0:
        losses = torch.where(tokens.external, weight * losses, losses)
    if separate:
        # A part that is empty here adds an exact 0; one that is empty in the step is divided by 1.
        own_sum = losses.masked_fill(tokens.external, 0.0).sum()
        external_sum = losses.masked_fill(~tokens.external, 0.0).sum()
        loss = own_sum / max(own, 1) + external_sum / max(external, 1)
    else:
        loss = losses.sum() / (own + external)
    return LossTerms(loss, terms.clipped.sum(), kl)


def engine_weights(tokens: Tokens, limit: float) -> Tensor:
    """min(π_old / μ, `limit`) of each own token (N,), without gradient; 1 for peers' tokens."""
    log_weights = (tokens.old_logps - tokens.sampler_logps).clamp(max=math.log(limit))
    return log_weights.exp().detach().masked_fill(tokens.external, 1.0)


def _weight(settings: TrainSettings, foreign: HybridSettings | None) -> tuple[float, bool]:
    """λ, and whether own and peers' parts are divided each by its own count."""
    if foreign is not None:
        return foreign.weight, foreign.normaliser == "separate"
    if settings.external_weight is not None:
        return settings.external_weight, True
    return 1.0, False


def reference_kl(logps: Tensor, reference_logps: Tensor, max_log_ratio: float) -> Tensor:
    """Per-token estimate of KL(π ‖ reference), ≥ 0: e^d − d − 1 with d = log π_ref − log π.

    The k3 estimate of GRPO (arXiv 2402.03300). Unbiased in value for tokens that π sampled; on
    peers' tokens it is only a penalty that is least where the two agree. d is held within
    ±`max_log_ratio` in the exponential.
    """
    difference = reference_logps.detach() - logps
    return bounded_exp(difference, max_log_ratio) - difference - 1


def _divisors(average: str, size: StepSize, length_tokens: int) -> tuple[int, int]:
    """Of the own and of the external part."""
    if average == "tokens":
        return size.own_tokens, size.external_tokens
    scale = length_tokens if average == "length" else 1
    return scale * size.own_completions, scale * size.external_completions
