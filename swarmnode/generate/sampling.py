"""Draws one token per row from logits, and says how likely it was.

A token is drawn by inverting the cumulative distribution with one uniform number per row.
`torch.multinomial` draws a random number for every entry of the vocabulary instead: at 32,000
entries that took ten times as long as everything here.
"""

import torch
from torch import Tensor

# Entries summed up before the cumulative sum, which is sequential: about the square root of the
# vocabularies that are large enough to matter.
BLOCK = 256


def choose(
    logits: Tensor, temperature: float | None, chance: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Token ids (B,) int64 drawn from softmax(logits / temperature), and their log-probabilities.

    `logits` is (B, V). Temperature None takes the most probable token, uses no chance and reports
    the log-probability at temperature 1. Both are computed in float32 at least.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if temperature is None:
        token = logits.argmax(dim=-1)
        picked = logits.gather(1, token[:, None])[:, 0]
        return token, picked - logits.logsumexp(dim=-1)
    if temperature != 1.0:
        logits = logits / temperature
    probabilities = logits.softmax(dim=-1)
    token = draw(probabilities, chance)
    return token, probabilities.gather(1, token[:, None])[:, 0].log()


def draw(probabilities: Tensor, chance: torch.Generator) -> Tensor:
    """One index (B,) per row of `probabilities` (B, V); never one whose probability is 0."""
    rows, size = probabilities.shape
    # float64: a float32 uniform knows no tail below 2⁻²⁴.
    uniform = torch.rand(
        rows, 1, dtype=torch.float64, generator=chance, device=probabilities.device
    )
    if size <= 2 * BLOCK:
        return _invert(probabilities, uniform)[0][:, 0]
    if size % BLOCK:
        probabilities = torch.nn.functional.pad(probabilities, (0, -size % BLOCK))
    blocks = probabilities.view(rows, -1, BLOCK)
    block, rest = _invert(blocks.sum(dim=-1), uniform)
    inside = blocks.gather(1, block[:, :, None].expand(-1, 1, BLOCK))[:, 0]
    return (block * BLOCK + _invert(inside, rest)[0])[:, 0]


def _invert(weights: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """The index (B, 1) at which the share `uniform` (B, 1) in [0, 1) of the weights (B, n) is
    passed, and how far into that entry it lies, again in [0, 1)."""
    sums = weights.double().cumsum(dim=-1)
    target = uniform * sums[:, -1:]
    # Rounding may bring the product to the sum itself, which no entry passes.
    target = torch.minimum(target, torch.nextafter(sums[:, -1:], torch.zeros_like(target)))
    index = (sums <= target).sum(dim=-1, keepdim=True)
    weight = weights.gather(1, index).double()
    before = sums.gather(1, index) - weight
    return index, ((target - before) / weight).clamp(0.0, 1.0 - 2**-53)
