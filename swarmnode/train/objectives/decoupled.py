"""Decoupled PPO in AReaL's three-policy form (arXiv 2505.24298).

    loss = −w min(uA, clip(u, 1 − clip_low, 1 + clip_high) A)
    u = π / π_old,   w = sg(π_old / μ)

Averaged over tokens. The clip holds the update near the step's start; w corrects for data that an
older policy, or another engine's arithmetic, sampled. Checked against AReaL's `ppo_actor_loss_fn`.

Departures from the paper and its code:

1. A token with w > `decoupled_max_weight` is left out, with w = 0; 5 and this way of capping were
   the default of AReaL's code.
2. For peers' completions μ is unknown per token; there w is 1 and the objective is `dapo`.
"""

from swarmnode.config import TrainSettings
from swarmnode.train.objectives.dapo import dapo
from swarmnode.train.objectives.tokens import Terms, Tokens, bounded_exp


def decoupled(tokens: Tokens, settings: TrainSettings) -> Terms:
    """The clipped surrogate times the importance weight of the step's start against the sampler."""
    terms = dapo(tokens, settings)
    weight = bounded_exp(tokens.old_logps - tokens.sampler_logps, settings.max_log_ratio)
    left_out = weight > settings.decoupled_max_weight
    losses = terms.losses * weight.masked_fill(left_out, 0.0)
    return Terms(losses, terms.clipped | left_out)
