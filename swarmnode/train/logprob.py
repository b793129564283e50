"""Per-token log-probabilities and entropies of completions under a causal language model.

The LM head is the largest matrix product of a small model, and its (B, T, V) output the largest
tensor; only the positions that predict a completion token need it. So the decoder runs alone, its
hidden states are gathered at those positions, and the head is applied to them in tiles whose
logits are recomputed in the backward pass. Models that do something to the logits after the head
(Gemma 2 caps them, Granite and Cohere scale them) go through their own forward instead; which way
a model goes is measured on it (`head_is_plain`), not looked up in a list of names.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

# Logits of one tile of the LM head, in elements. 2**26 float32 logits are 256 MiB: about 440
# tokens of a 150,000-word vocabulary. Twice this doubles the head's memory; much less leaves
# matrix products too small to fill a GPU. With one tile nothing is recomputed.
TILE_LOGITS = 2**26


@dataclass(frozen=True, slots=True)
class TokenStatistics:
    """Both (N,), float32 (float64 for a float64 model), in nats."""

    logps: Tensor  # differentiable
    entropies: Tensor  # detached


def completion_logps(
    model: nn.Module,
    input_ids: Tensor,
    attention_mask: Tensor,
    completion_mask: Tensor,
    *,
    plain_head: bool,
    temperature: float = 1.0,
    tile_logits: int = TILE_LOGITS,
) -> TokenStatistics:
    """log π(token | all before it) of every completion token, flattened row by row.

    `input_ids` and `attention_mask` are (B, T) int64, right-padded, `completion_mask` (B, T) bool
    and never true in column 0. π is softmax(logits / temperature), the distribution the sampler
    drew from, so sampled tokens are on-policy at any temperature. `plain_head` is `head_is_plain`
    of this model. The softmax is computed in float32 whatever the model's dtype.
    """
    predicting = completion_mask[:, 1:]  # (B, T-1): position t predicts token t + 1
    targets = input_ids[:, 1:][predicting]  # (N,)
    if not plain_head:
        logits = _own_logits(model, input_ids, attention_mask)[:, :-1][predicting]  # (N, V)
        return TokenStatistics(*_from_logits(logits, targets, temperature))
    hidden = _hidden_states(model, input_ids, attention_mask)[:, :-1][predicting]  # (N, H)
    head = _output_embeddings(model)
    assert head is not None  # what plain_head says
    rows = max(1, tile_logits // _vocabulary(head))
    if len(targets) <= rows:
        return TokenStatistics(*_tile(head, hidden, targets, temperature))
    tiles = [
        checkpoint(_tile, head, h, t, temperature, use_reentrant=False, preserve_rng_state=False)
        for h, t in zip(torch.split(hidden, rows), torch.split(targets, rows), strict=True)
    ]
    return TokenStatistics(
        logps=torch.cat([logps for logps, _ in tiles]),
        entropies=torch.cat([entropies for _, entropies in tiles]),
    )


@torch.no_grad()
def head_is_plain(model: nn.Module) -> bool:
    """Whether the model's logits are exactly its LM head applied to its decoder's last states.

    Measured on a four-token probe, bit for bit: the same operations on the same input give the
    same bits, and a cap or a scale changes some even where logits are small. A false "no" costs
    speed, never correctness. The model must be in evaluation mode.
    """
    head = _output_embeddings(model)
    if head is None or not hasattr(model, "get_decoder"):
        return False
    input_ids = torch.arange(4, device=_device(model)).remainder(_vocabulary(head))[None]  # (1, 4)
    mask = torch.ones_like(input_ids)
    hidden = _hidden_states(model, input_ids, mask)
    if hidden is None:
        return False
    return torch.equal(head(hidden), _own_logits(model, input_ids, mask))


def _tile(
    head: nn.Module, hidden: Tensor, targets: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    return _from_logits(head(hidden), targets, temperature)


def _from_logits(logits: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probabilities of `targets` (N,) and entropies (N,) from `logits` (N, V)."""
    # At least float32: a bfloat16 log-softmax is off by about 0.01 nat at a logit of 4.
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature
    all_logps = logits.log_softmax(dim=-1)
    logps = all_logps.gather(-1, targets[:, None])[:, 0]
    # Entropy comes last: a recomputation in the backward pass stops before it.
    with torch.no_grad():
        entropies = -(all_logps.exp() * all_logps).sum(dim=-1)
    return logps, entropies


def _own_logits(model: nn.Module, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    output = model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
    logits: Tensor = output.logits
    return logits


def _hidden_states(model: Any, input_ids: Tensor, attention_mask: Tensor) -> Any:
    """(B, T, H) after the final norm, or None where the decoder does not name them."""
    decoder = model.get_decoder()
    output = decoder(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
    return getattr(output, "last_hidden_state", None)


def _output_embeddings(model: Any) -> nn.Module | None:
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    return head if isinstance(head, nn.Module) else None


def _vocabulary(head: nn.Module) -> int:
    weight = head.weight
    assert isinstance(weight, Tensor)
    return len(weight)


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
