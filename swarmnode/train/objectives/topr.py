"""Tapered Off-Policy REINFORCE (arXiv 2503.14286): negatives fade as they become unlikely.

    loss = −sg(α) A log π,   α = 1 if A ≥ 0, else min(1, π(y) / μ(y))

with π(y), μ(y) the probabilities of the whole completion. A positive example is imitated at full
weight however far its sampler is. A negative one stops pushing once the policy would hardly
produce it; without that, off-policy, its probability is driven to zero without end.

Departures from the paper:

1. A is the group-relative advantage, not the reward (the paper's baseline).
2. Token mean over the step. The paper sums over a completion's tokens and averages over
   completions; the two differ by one factor for the whole step.
3. For a peer's completion log μ(y) is the peer's stated mean log-probability times our number of
   tokens, exact only for equal tokenizers, and π_old(y) where none was stated. The statement cannot
   be verified; α ≤ 1 keeps a false one from doing more than today's weight.
"""

import torch

from swarmnode.config import TrainSettings
from swarmnode.train.objectives.tokens import Terms, Tokens


def topr(tokens: Tokens, _: TrainSettings) -> Terms:
    """REINFORCE, with the weight of negative completions tapered. Nothing counts as clipped."""
    sums = tokens.row_sums(tokens.logps.detach())  # (B,) log π(y)
    tapered = (sums - tokens.sampler_sums).clamp(max=0.0).exp()[tokens.rows]  # (N,)
    weight = tapered.masked_fill(tokens.advantages >= 0, 1.0)
    return Terms(-weight * tokens.advantages * tokens.logps, torch.zeros_like(tokens.external))
