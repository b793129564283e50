"""The objective: a clipped surrogate on group-relative advantages, averaged over tokens.

For token i with advantage A and ratio ρ = π(token) / π_old(token):

    loss = −(1 / M) Σ_i min(ρ_i A_i, clip(ρ_i, 1 − clip_low, 1 + clip_high) A_i)

with M the completion tokens of the whole step, own and external together.

Departures from SAPO (arXiv 2509.08721), GRPO (arXiv 2402.03300) and DAPO (arXiv 2503.14476):

1. π_old is *this node's* policy at the start of the step, also for peers' completions, as SAPO
   publishes it: the sampler's log-probabilities never enter. In the first epoch ρ is 1, so the
   clip does not act and the gradient is REINFORCE with a group baseline; it acts from the second
   epoch on.
2. Token mean over the whole step (DAPO, equation 8), not GRPO's mean per completion and then over
   completions. SAPO does not say; its published implementation averages over tokens.
3. No KL term and no reference model: SAPO's experiments set its weight to 0.
4. DAPO's clip range 0.2 / 0.28 (SAPO's too), without DAPO's overlong penalty. Its dynamic
   sampling is the caller's choice of groups.
5. |log ρ| is bounded at 20 before the exponential. Beyond it a token has no gradient; e^20 is far
   outside any clip range, so this only keeps one broken token from overflowing the step's sum.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

# Natural-log units, see departure 5. e^88 overflows float32; e^20 times any advantage does not.
MAX_LOG_RATIO = 20.0


@dataclass(frozen=True, slots=True)
class SurrogateTerms:
    """Sums over one micro-batch's tokens; add them up over the step."""

    loss: Tensor  # () the part of the step's loss, already divided by the step's token count
    clipped_tokens: Tensor  # () int64, tokens whose gradient the clip stops


def clipped_surrogate(
    logps: Tensor,
    old_logps: Tensor,
    advantages: Tensor,
    *,
    step_tokens: int,
    clip_low: float,
    clip_high: float,
) -> SurrogateTerms:
    """The step's loss over these N tokens, as a share of `step_tokens` completion tokens.

    `logps` (differentiable), `old_logps` and `advantages` are (N,), the advantage being that of
    the token's completion. `old_logps` is treated as a constant.
    """
    log_ratio = (logps - old_logps.detach()).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    ratio = log_ratio.exp()
    clipped_ratio = ratio.clamp(1 - clip_low, 1 + clip_high)
    objective = ratio * advantages
    clipped_objective = clipped_ratio * advantages
    loss = -torch.minimum(objective, clipped_objective).sum() / step_tokens
    return SurrogateTerms(loss, (clipped_objective < objective).sum())
