"""Per-token log-probabilities and entropies of completions under a causal language model.

The LM head is the largest matrix product of a small model, and its (B, T, V) output the largest
tensor; only the positions that predict a completion token need it. So the decoder runs alone, its
hidden states are gathered at those positions, and the head is applied to them in tiles whose
logits are recomputed in the backward pass (`head.py`). Models that do something to the logits
after the head (Gemma 2 caps them, Granite and Cohere scale them) go through their own forward
instead; which way a model goes is measured on it (`measure`), not looked up in a list of names.
"""

import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from swarmnode.train.head import head_logps
from swarmnode.train.precision import autocast_inputs
from swarmnode.train.prefix import predicting_states, predicting_states_shared, shares_prompts

log = logging.getLogger(__name__)

# Logits of one tile of the LM head, in elements: on a GPU 256 MiB in float32, less leaves matrix
# products too small to fill it; on a CPU 4 MiB, what its caches hold. Where all logits fit into one
# tile they are kept, and nothing is recomputed.
TILE_LOGITS, TILE_LOGITS_CPU = 2**26, 2**20


@dataclass(frozen=True, slots=True)
class Shortcuts:
    """Which ways around the model's own full forward give the same numbers for it."""

    plain_head: bool = False  # logits are the LM head of the decoder's last hidden states
    shared_prompts: bool = False  # `prefix.predicting_states_shared`; only with a plain head


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
    shortcuts: Shortcuts,
    temperature: float = 1.0,
    tile_logits: int | None = None,
) -> TokenStatistics:
    """log π(token | all before it) of every completion token, flattened row by row.

    `input_ids` and `attention_mask` are (B, T) int64, right-padded, `completion_mask` (B, T) bool
    and never true in column 0. π is softmax(logits / temperature), the distribution the sampler
    drew from, so sampled tokens are on-policy at any temperature. `shortcuts` is `measure` of this
    model; `tile_logits` is chosen by the device if not given. The softmax is computed in float32
    whatever the model's dtype.
    """
    targets = input_ids[completion_mask]  # (N,)
    if not shortcuts.plain_head:
        # Position t predicts token t + 1.
        logits = _own_logits(model, input_ids, attention_mask)[:, :-1][completion_mask[:, 1:]]
        return TokenStatistics(*_from_logits(logits, targets, temperature))
    states = predicting_states_shared if shortcuts.shared_prompts else predicting_states
    hidden = states(_decoder(model), input_ids, attention_mask, completion_mask)  # (N, H)
    head = _output_embeddings(model)
    assert head is not None  # what plain_head says
    if tile_logits is None:
        tile_logits = TILE_LOGITS_CPU if hidden.device.type == "cpu" else TILE_LOGITS
    rows = max(1, tile_logits // _vocabulary(head))
    if len(targets) <= rows:
        return TokenStatistics(*_tile(head, hidden, targets, temperature))
    if type(head) is nn.Linear:
        inputs = autocast_inputs(hidden, head.weight, head.bias)
        with torch.autocast(hidden.device.type, enabled=False):
            return TokenStatistics(*head_logps(*inputs, targets, temperature, tile_logits))
    tiles = [
        checkpoint(_tile, head, h, t, temperature, use_reentrant=False, preserve_rng_state=False)
        for h, t in zip(torch.split(hidden, rows), torch.split(targets, rows), strict=True)
    ]
    return TokenStatistics(
        logps=torch.cat([logps for logps, _ in tiles]),
        entropies=torch.cat([entropies for _, entropies in tiles]),
    )


def measure(model: nn.Module) -> Shortcuts:
    """The shortcuts that hold for this model, tried on small probes.

    A false "no" costs speed, never correctness; it is logged. The model must be in evaluation mode.
    """
    if not _head_is_plain(model):
        log.info("training by the model's own forward: it changes what its head gives")
        return Shortcuts()
    shared = shares_prompts(model)
    if not shared:
        log.info("training on whole sequences: the model's cache does not let prompts be shared")
    return Shortcuts(plain_head=True, shared_prompts=shared)


@torch.no_grad()
def _head_is_plain(model: nn.Module) -> bool:
    """Bit for bit: the same operations on the same input give the same bits, and a cap or a scale
    changes some even where logits are small."""
    head = _output_embeddings(model)
    if head is None or not hasattr(model, "get_decoder"):
        return False
    device = next(model.parameters()).device
    input_ids = torch.arange(4, device=device).remainder(_vocabulary(head))[None]  # (1, 4)
    mask = torch.ones_like(input_ids)
    output = _decoder(model)(input_ids=input_ids, attention_mask=mask, use_cache=False)
    hidden = getattr(output, "last_hidden_state", None)
    return hidden is not None and torch.equal(head(hidden), _own_logits(model, input_ids, mask))


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


def _decoder(model: Any) -> Any:
    return model.get_decoder()


def _output_embeddings(model: Any) -> nn.Module | None:
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    return head if isinstance(head, nn.Module) else None


def _vocabulary(head: nn.Module) -> int:
    weight = head.weight
    assert isinstance(weight, Tensor)
    return len(weight)
