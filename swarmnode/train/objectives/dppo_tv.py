"""DPPO with the binary total variation (arXiv 2602.04879, equations 12 and 13).

    loss = −M ρ A,   ρ = π / μ
    M = 0 where |π − μ| > δ and the update would go further: A > 0 and π > μ, or A < 0 and π < μ
    M = 1 elsewhere

Averaged over tokens; δ is `train.dppo_threshold`. A ratio judges a rare token harshly (from 0.001
to 0.002 is a ratio of 2) and a likely one mildly; the change of probability does not. The paper
finds that the mask must be anchored to μ, not to a recomputed π_old.

Departures from the paper:

1. For peers' completions μ is unknown per token and π_old stands in for it.
2. Token mean; the paper writes a sum per completion.

The paper's δ is 0.2 in most of its experiments, 0.15 in the others (appendices C.1 and E). ρ is not
truncated here; the paper does so at 5 in its larger experiments and finds in section 5.4 that it
harms.
"""

from swarmnode.config import TrainSettings
from swarmnode.train.objectives.tokens import Terms, Tokens, bounded_exp


def dppo_tv(tokens: Tokens, settings: TrainSettings) -> Terms:
    """Importance-weighted policy gradient, masked by the change of the token's probability."""
    change = (tokens.logps.exp() - tokens.sampler_logps.exp()).detach()
    further = change * tokens.advantages > 0
    stopped = further & (change.abs() > settings.dppo_threshold)
    ratio = bounded_exp(tokens.logps - tokens.sampler_logps, settings.max_log_ratio)
    return Terms(-(ratio * tokens.advantages).masked_fill(stopped, 0.0), stopped)
