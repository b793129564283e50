"""Soft Adaptive Policy Optimization (Qwen, arXiv 2511.20347): a gate instead of a clip.

    loss = −(4/τ) σ(τ (ρ − 1)) A,   ρ = π / π_old,   τ = gate_positive if A > 0, else gate_negative

σ is the logistic function. Mean over each completion's tokens, then over completions. At ρ = 1 the
gradient is that of REINFORCE, −A per token, and fades smoothly on both sides; the larger τ for
A ≤ 0 fades it faster. 1.0 and 1.05 are the paper's as TRL's documentation quotes them.

The paper calls it SAPO. Here SAPO is Swarm sAmpling Policy Optimization (arXiv 2509.08721), which
is another thing: a way to exchange rollouts.
"""

import torch

from swarmnode.config import TrainSettings
from swarmnode.train.objectives.tokens import Terms, Tokens, bounded_exp


def soft_gate(tokens: Tokens, settings: TrainSettings) -> Terms:
    """The gated surrogate. Nothing is clipped."""
    ratio = bounded_exp(tokens.logps - tokens.old_logps, settings.max_log_ratio)
    slope = torch.full_like(ratio, settings.gate_negative)
    slope = slope.masked_fill(tokens.advantages > 0, settings.gate_positive)
    gate = torch.sigmoid(slope * (ratio - 1)) * 4 / slope
    return Terms(-gate * tokens.advantages, torch.zeros_like(tokens.external))
