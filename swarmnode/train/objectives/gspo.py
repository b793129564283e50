"""GSPO (arXiv 2507.18071): one ratio, and one clip, per completion of |y| tokens.

    s = (π(y) / π_old(y))^(1/|y|) = exp((1/|y|) Σ_t log ρ_t)
    loss = (1 / S) Σ_completions −min(sA, clip(s, 1 − gspo_clip_low, 1 + gspo_clip_high) A)

with S completions in the step. The mean of many log-ratios stays near 0, so the bounds are of
another size than a token's: 3e-4 and 4e-4, the paper's as TRL's documentation quotes them.

Departure from the paper: with own and peers' completions together S counts both.
"""

from swarmnode.config import TrainSettings
from swarmnode.train.objectives.tokens import Terms, Tokens, bounded_exp, clipped_terms


def gspo(tokens: Tokens, settings: TrainSettings) -> Terms:
    """The completion's loss at each of its tokens; their mean is the completion's again."""
    log_ratios = tokens.row_sums(tokens.logps - tokens.old_logps) / tokens.lengths  # (B,)
    ratios = bounded_exp(log_ratios, settings.max_log_ratio)[tokens.rows]  # (N,)
    low, high = settings.gspo_clip_low, settings.gspo_clip_high
    return clipped_terms(ratios, tokens.advantages, low, high)
