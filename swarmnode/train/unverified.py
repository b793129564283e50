"""Which tokens of a peer's completion are imitated outside its answer, which alone was verified.

A scorer says that an answer is right; it says nothing of the text around it. So a token there is
imitated only where this node might have written it: `least_probability` is what its policy, before
the step, must give it. From the first one below that on the text is not this node's any more, and
nothing of it is imitated but the answer. An attack that never enters the gradient needs no
detector.

Related: DPPO (arXiv 2602.04879) masks by the distance of probabilities; here the bound is
one-sided, absolute, for peers alone, and holds for all that follows.
"""

import torch
from torch import Tensor


def unimitated(
    logps: Tensor, verified: Tensor, lengths: Tensor, least_logp: float
) -> Tensor:
    """The tokens (N,) that are left out: unverified and at or behind an unlikely unverified one.

    `logps` (N,) are the policy's before the step, `verified` (N,) marks the answer's tokens,
    `lengths` (B,) are the completions', in order. `least_logp` of 0 leaves out all that is
    unverified.
    """
    surprising = (logps < least_logp) & ~verified
    sums = surprising.long().cumsum(dim=0)
    ends = lengths.cumsum(dim=0)
    before = torch.where(ends > lengths, sums[(ends - lengths - 1).clamp(min=0)], 0)
    rows = torch.repeat_interleave(torch.arange(len(lengths), device=logps.device), lengths)
    behind = sums > before[rows]
    everything = torch.full_like(behind, least_logp >= 0)
    return (behind | everything) & ~verified
