"""Which tokens of a peer's completion are imitated outside its answer, which alone was verified.

A scorer says that an answer is right; it says nothing of the text around it. So a token there is
imitated only where this node might have written it: `least_probability` is what its policy, before
the step, must give it. From the first one below that on the text is not this node's any more, and
nothing of it is imitated, not even the answer: to give it after a text that says otherwise is what
an attacker on the arithmetic wants to be learnt (tried: answers were imitated behind any text, and
a tenth of the answers no longer agreed with their working). The answer's own tokens may be as
unlikely as they like. An attack that never enters the gradient needs no detector.

Related: DPPO (arXiv 2602.04879) masks by the distance of probabilities; here the bound is
one-sided, absolute, for peers alone, and holds for all that follows.
"""

import torch
from torch import Tensor


def unimitated(logps: Tensor, verified: Tensor, lengths: Tensor, least_logp: float) -> Tensor:
    """The tokens (N,) that are left out: an unlikely one that is not verified, and all behind it.

    `logps` (N,) are the policy's before the step, `verified` (N,) marks the answer's tokens,
    `lengths` (B,) are the completions', in order. `least_logp` of 0 leaves out whatever is
    unverified, and nothing else.
    """
    if least_logp >= 0:
        return ~verified
    surprising = (logps < least_logp) & ~verified
    sums = surprising.long().cumsum(dim=0)
    ends = lengths.cumsum(dim=0)
    before = torch.where(ends > lengths, sums[(ends - lengths - 1).clamp(min=0)], 0)
    return sums > torch.repeat_interleave(before, lengths)
