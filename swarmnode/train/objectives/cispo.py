"""CISPO (MiniMax-M1, arXiv 2506.13585): the importance weight is bounded, not the update.

    loss = −sg(min(ρ, cispo_max_weight)) A log π,   ρ = π / π_old

Averaged over tokens. Every token keeps a gradient, also where PPO's clip would stop it.

Departures from the paper:

1. One bound, on the weight itself (as in TRL): the paper's form has 1 − ε_low too and sets it so
   wide that it does not act.
2. The bound is 5, from ScaleRL (arXiv 2510.13786) as TRL's documentation quotes it.
"""

from swarmnode.config import TrainSettings
from swarmnode.train.objectives.tokens import Terms, Tokens, bounded_exp


def cispo(tokens: Tokens, settings: TrainSettings) -> Terms:
    """REINFORCE with a bounded importance weight."""
    log_ratio = (tokens.logps - tokens.old_logps).detach()
    ratio = bounded_exp(log_ratio, settings.max_log_ratio)
    weight = ratio.clamp(max=settings.cispo_max_weight)
    return Terms(-weight * tokens.advantages * tokens.logps, ratio > weight)
