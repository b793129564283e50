"""DAPO's clipped surrogate (arXiv 2503.14476), the default; averaged over tokens.

    loss = −min(ρA, clip(ρ, 1 − clip_low, 1 + clip_high) A),   ρ = π / π_old

Departures from SAPO (arXiv 2509.08721), GRPO (arXiv 2402.03300) and DAPO:

1. π_old is *this node's* policy at the start of the step, also for peers' completions, as SAPO
   publishes it: the sampler's log-probabilities never enter. In the first epoch ρ is 1, so the
   clip does not act and the gradient is REINFORCE with a group baseline; it acts from the second
   epoch on.
2. Token mean over the whole step (DAPO, equation 8), not GRPO's mean per completion and then over
   completions. SAPO does not say; its published implementation averages over tokens.
3. DAPO's clip range 0.2 / 0.28 (SAPO's too), without DAPO's overlong penalty. Its dynamic
   sampling is the caller's choice of groups.
"""

from swarmnode.config import TrainSettings
from swarmnode.train.objectives.tokens import Terms, Tokens, bounded_exp, clipped_terms


def dapo(tokens: Tokens, settings: TrainSettings) -> Terms:
    """The clipped surrogate on token ratios against the start of the step."""
    ratio = bounded_exp(tokens.logps - tokens.old_logps, settings.max_log_ratio)
    return clipped_terms(ratio, tokens.advantages, settings.clip_low, settings.clip_high)
