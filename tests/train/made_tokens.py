"""Tokens for tests of objectives, from probabilities. All in float64."""

from collections.abc import Sequence

import torch

from swarmnode.train.objectives.tokens import Tokens


def made_tokens(
    probabilities: Sequence[float],
    advantages: Sequence[float],
    *,
    old: Sequence[float] | None = None,
    sampler: Sequence[float] | None = None,
    lengths: Sequence[int] | None = None,
    external: Sequence[bool] | None = None,
) -> Tokens:
    """Probabilities and advantages per token; `lengths` and `external` per completion.

    By default every token is a completion of the node's own, the policy before the step gave it
    0.3, and the sampler was that policy.
    """
    count = len(probabilities)
    lengths = [1] * count if lengths is None else lengths
    sizes = torch.tensor(lengths)
    rows = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
    old_logps = torch.tensor([0.3] * count if old is None else old, dtype=torch.float64).log()
    sampler_logps = old_logps
    if sampler is not None:
        sampler_logps = torch.tensor(sampler, dtype=torch.float64).log()
    flags = torch.tensor([False] * len(sizes) if external is None else external)
    logps = torch.tensor(probabilities, dtype=torch.float64).log().requires_grad_(True)
    sums = torch.zeros(len(sizes), dtype=torch.float64)
    return Tokens(
        logps=logps,
        old_logps=old_logps,
        sampler_logps=sampler_logps,
        sampler_sums=sums.index_add(0, rows, sampler_logps),
        advantages=torch.tensor(advantages, dtype=torch.float64),
        rows=rows,
        external=flags[rows],
        lengths=sizes,
    )
