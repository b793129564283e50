"""How peers' completions enter the loss under the `hybrid` rule.

SAPO (arXiv 2509.08721) treats them as if this node had sampled them: group-normalised advantages,
ratio 1, one divisor. Departures, each with its switch in `config.HybridSettings`:

1. `negatives`. "drop": only right answers are imitated; what a peer got wrong is its own policy's
   mistake, and pushing it down here lowers what this node would say instead of it. "taper": a
   wrong answer counts as far as it is likely here, min(1, π(y) / μ(y)), TOPR (arXiv 2503.14286).
2. `margin`. The baseline lies below the group's mean reward: below the sampler's value imitation
   keeps the support broad, above it the policy collapses (AsymRE, arXiv 2506.20520). With
   `own_baseline` it is not above this node's own rate at the task either.
3. `advantage` names what r − b is divided by: nothing (Dr. GRPO), the group's standard deviation
   (GRPO), or its mean (MaxRL), which weighs rare successes up.
4. `scaling`. Every completion is weighted by exp(mean log π − mean log μ), at most 1, after HACPO
   (arXiv 2603.02604) without its hard window; the sampler's mean is what it states of itself.
5. `max_gap` masks completions whose two means differ by more nats per token than that.
6. `shaping` γ replaces log p by p / (p + γ), LUFFY (arXiv 2504.14945).
7. `unverified` leaves out the tokens around the verified answer that this node would hardly have
   written, or all of them (`unverified.py`): what is not verified is not learnt from strangers.
8. `normaliser`. "separate": own and peers' parts are each divided by their own count, `weight` is
   λ between them. "joint": one divisor, as published, with λ in front of peers' terms.
"""

import math
import statistics
from collections.abc import Sequence

import torch
from torch import Tensor

from swarmnode.config import HybridSettings
from swarmnode.train.objectives.tokens import Terms, Tokens
from swarmnode.train.unverified import unimitated


def foreign_advantages(
    rewards: Sequence[float], own_rate: float | None, settings: HybridSettings
) -> tuple[float, ...]:
    """Of the completions of one question, in the order of `rewards`; `own_rate` is how often this
    node is right at the task. An exact 0 means "leave it out".

    >>> foreign_advantages((1.0, 0.0, 0.0, 0.0), 0.1, HybridSettings())
    (2.4, 0.0, 0.0, 0.0)
    """
    mean = statistics.fmean(rewards)
    baseline = mean if own_rate is None or not settings.own_baseline else min(mean, own_rate)
    scale = _scale(rewards, mean, settings.advantage)

    def value(reward: float) -> float:
        distance = (reward - baseline + settings.margin) / scale
        if reward >= mean and reward > 0:
            return distance
        # However low the baseline, what is wrong is never pushed up.
        return 0.0 if settings.negatives == "drop" else min(0.0, distance)

    return tuple(value(reward) for reward in rewards)


def foreign_terms(tokens: Tokens, settings: HybridSettings) -> Terms:
    """The loss of every token as if it were a peer's; `clipped` marks what `max_gap` and
    `unverified` mask."""
    gap = tokens.row_sums(tokens.logps.detach()) - tokens.sampler_sums  # (B,) log π(y) / μ(y)
    mean_gap = gap / tokens.lengths
    weight = torch.ones_like(gap)
    if settings.scaling:
        weight = mean_gap.clamp(max=0.0).exp()
    weight = weight[tokens.rows]  # (N,) from here on
    if settings.negatives == "taper":
        tapered = gap.clamp(max=0.0).exp()[tokens.rows]
        weight = torch.where(tokens.advantages < 0, weight * tapered, weight)
    masked = torch.zeros_like(tokens.external)
    if settings.max_gap > 0:
        masked = (mean_gap.abs() > settings.max_gap)[tokens.rows]
    if tokens.verified is not None and settings.unverified != "all":
        least = math.log(settings.least_probability) if settings.unverified == "likely" else 0.0
        masked |= unimitated(tokens.old_logps, tokens.verified, tokens.lengths, least)
    losses = -weight * tokens.advantages * _shaped(tokens, settings.shaping)
    return Terms(losses.masked_fill(masked, 0.0), masked)


def _scale(rewards: Sequence[float], mean: float, rule: str) -> float:
    """What r − b is divided by; 1 where a rule has nothing to divide by."""
    if rule == "mean_std" and len(set(rewards)) > 1:
        return statistics.stdev(rewards)
    if rule == "maxrl" and mean > 0:
        return mean
    return 1.0


def _shaped(tokens: Tokens, gamma: float) -> Tensor:
    """log p, or LUFFY's p / (p + γ) where the advantage is positive."""
    if gamma == 0:
        return tokens.logps
    p = tokens.logps.exp()
    return torch.where(tokens.advantages > 0, p / (p + gamma), tokens.logps)
