"""EPO's entropy terms (arXiv 2509.22576): a bonus, and a corridor around past entropy.

    L = L_policy − bonus · H + corridor · P
    H = mean over own tokens of the entropy H_t
    P = mean over own tokens of max(0, low · H̄ − h) + max(0, h − high · H̄)

with h the mean entropy of the token's completion and H̄ the mean of past steps' entropies. Without a
past step there is no corridor.

The corridor is checked against the code the paper points to (`generate_entropy_penalty`: 0 within
[0.8, 1.2] times the historical mean, a constant outside), not against its equations.

Departures from the paper:

1. In that code the penalty outside the corridor is a constant, which has no gradient. Here it grows
   with the distance, so it pulls the entropy back.
2. The entropy's gradient is estimated from the token drawn instead of computed over the vocabulary
   (the logits are not kept): for a token drawn from π, −sg(log π + H_t) ∇ log π has the mean ∇H_t.
   From the second epoch on it is weighted by π / π_old. Peers' tokens were not drawn from π and
   take no part.
3. One historical mean, over the last `train.entropy_window` steps; the paper keeps one per turn of
   its multi-turn episodes. The weights do not change over the run.
"""

from torch import Tensor

from swarmnode.config import TrainSettings
from swarmnode.train.objectives.tokens import Tokens, bounded_exp


def entropy_loss(
    tokens: Tokens,
    entropies: Tensor,
    own_tokens: int,
    past: float | None,
    settings: TrainSettings,
) -> Tensor:
    """This micro-batch's part (()) of the entropy terms of a step of `own_tokens` own tokens.

    `entropies` (N,) in nats, constants; `past` is H̄.
    """
    weights = entropies.new_full(entropies.shape, -settings.entropy_bonus)
    outside = entropies.new_zeros(entropies.shape)
    if past is not None and settings.entropy_corridor > 0:
        means = (tokens.row_sums(entropies) / tokens.lengths)[tokens.rows]  # (N,) h
        low, high = settings.entropy_low * past, settings.entropy_high * past
        below, above = (low - means).clamp(min=0), (means - high).clamp(min=0)
        outside = settings.entropy_corridor * (below + above)
        # dP/dh is −1 below and 1 above; dh/dH_t is 1 over the length, h stands at every token.
        sign = (above > 0).to(entropies) - (below > 0).to(entropies)
        weights = weights + settings.entropy_corridor * sign
    logps = tokens.logps.detach()
    ratio = bounded_exp(logps - tokens.old_logps, settings.max_log_ratio)
    # Value 0, gradient that of H_t.
    gradients = -ratio * (logps + entropies) * (tokens.logps - logps)
    values = outside - settings.entropy_bonus * entropies
    losses = (weights * gradients + values).masked_fill(tokens.external, 0.0)
    return losses.sum() / max(own_tokens, 1)
