"""One decoding step of Llama-like models (Llama, SmolLM, Mistral, Qwen 2 and 3), written by hand.

A small model's step on a CPU is mostly what surrounds its matrix products: masks, modules, copies
of the cache. Here a layer is about twenty calls, and the G completions of a prompt attend to one
copy of its keys and values in one product (Hydragen, arXiv 2402.05099); only what a completion
sampled itself is kept for each. The weights are the model's own modules', read at every step.

Which models decode so is measured (`decodes_lightly`): names of modules decide whether it is
tried, equality with the model's own forward whether it is used. Not here: the prompts' pass, which
is the model's own; GPUs, where transformers' kernels are as good and which no test here sees.
"""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache, DynamicLayer

log = logging.getLogger(__name__)

MODEL_TYPES = frozenset({"llama", "mistral", "qwen2", "qwen3"})
# Whose angles depend on the position alone, not on how long the sequence is.
ROPE_TYPES = frozenset({"default", "linear", "llama3", "yarn"})
# Between two ways to the same logits, relative to the largest: float32's rounding is 1e-6, a wrong
# position or mask changes the leading digit.
TOLERANCE = 1e-4
# Slots of a grouped batch may exceed its live sequences by this factor before prompts are copied.
MAX_SLOTS = 1.5


class LightRun:
    """Sequences of one batch, grouped by prompt: slot p·G + g is completion g of prompt p.

    `rows` maps slots to the batch's entries; several prompts with unequal numbers of sequences get
    a copy each, with G = 1. `logits` (slots, V) are those of the next token.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        cache: Any,
        logits: Tensor,
        prompt_lengths: Tensor,
        owners: Sequence[int],
        room: int,
    ) -> None:
        """`cache`, `logits` (P, V) and `prompt_lengths` (P,) are of the distinct prompts, padded
        on the left; sequence b continues prompt `owners[b]` by at most `room` tokens. Equal owners
        are neighbours."""
        self._model = model
        self._layers = _layers(model)
        counts = [owners.count(owner) for owner in dict.fromkeys(owners)]
        is_even = len(set(counts)) == 1 and list(dict.fromkeys(owners)) == sorted(set(owners))
        kept = torch.tensor(list(dict.fromkeys(owners)) if is_even else owners)
        self._group = counts[0] if is_even else 1
        # Each (P, heads, longest, D). Keys carry the scale of the scores.
        self._prompts = [
            (cached.keys[kept] * layer.self_attn.scaling, cached.values[kept])
            for cached, layer in zip(cache.layers, self._layers, strict=True)
        ]
        self._head_norms = [_head_norm(layer.self_attn) for layer in self._layers]
        keys = self._prompts[0][0]
        slots = len(owners)
        self._room = [
            keys.new_empty(2, len(kept), keys.shape[1], self._group, room, keys.shape[3])
            for _ in self._layers
        ]
        lengths = prompt_lengths[kept]
        places = torch.arange(keys.shape[2])
        padding = places < keys.shape[2] - lengths[:, None]  # (P, longest)
        self._padding = padding if bool(padding.any()) else None
        positions = prompt_lengths[list(owners)][:, None] + torch.arange(room)
        cosines, sines = _decoder(model).rotary_emb(keys, positions)  # (slots, room, D)
        half = keys.shape[3] // 2
        self._cosines = cosines
        self._sines = torch.cat([-sines[..., :half], sines[..., half:]], dim=-1)
        self._filled = 0
        self.rows = torch.arange(slots)
        self.alive = torch.ones(slots, dtype=torch.bool)
        self.logits = logits[list(owners)]

    def shrink(self) -> Tensor:
        """Drops finished sequences; returns which of the slots remain, in their new order."""
        alive = self.alive.view(-1, self._group)
        prompts = alive.any(dim=1).nonzero()[:, 0]
        most = int(alive.sum(dim=1).max())
        if len(prompts) * most > MAX_SLOTS * int(alive.sum()):
            return self._ungroup()
        # Live ones first, finished ones of the same prompt after them where another has more.
        order = alive[prompts].int().argsort(dim=1, descending=True, stable=True)[:, :most]
        picked = order[:, None, :, None, None]
        for number, (keys, values) in enumerate(self._prompts):
            self._prompts[number] = keys[prompts], values[prompts]
            room = self._room[number][:, prompts]
            self._room[number] = room.gather(
                3, picked.expand(2, -1, room.shape[2], -1, *room.shape[4:])
            )
        self._padding = None if self._padding is None else self._padding[prompts]
        slots = (prompts[:, None] * self._group + order).flatten()
        self._group = most
        return self._select(slots)

    def forward(self, token: Tensor) -> None:
        """Appends one token (slots,) to every sequence."""
        decoder = _decoder(self._model)
        hidden = decoder.embed_tokens(token)  # (slots, H)
        at = self._filled
        self._filled = at + 1
        angles = self._cosines[:, at, None], self._sines[:, at, None]
        for number, layer in enumerate(self._layers):
            hidden = self._attend(number, layer, hidden, angles)
            hidden = _mlp(layer, hidden)
        self.logits = self._model.lm_head(_norm(decoder.norm, hidden))

    def _attend(
        self, number: int, layer: Any, hidden: Tensor, angles: tuple[Tensor, Tensor]
    ) -> Tensor:
        """hidden + attention, (slots, H)."""
        attention = layer.self_attn
        slots, group, size = len(hidden), self._group, attention.head_dim
        prompt_keys, prompt_values = self._prompts[number]
        prompts, heads, longest, _ = prompt_keys.shape
        normed = _norm(layer.input_layernorm, hidden)
        both = torch.cat([attention.q_proj(normed), attention.k_proj(normed)], dim=1)
        both = both.view(slots, -1, size)
        head_norm = self._head_norms[number]
        if head_norm is not None:
            both = _rms(both, head_norm, attention.q_norm.variance_epsilon)
        turned = _rotate(both, *angles)
        room = self._room[number]
        at = self._filled - 1
        per_group = (prompts, group, heads, size)
        new_keys = turned[:, -heads:].reshape(per_group).transpose(1, 2)
        torch.mul(new_keys, attention.scaling, out=room[0, :, :, :, at])
        room[1, :, :, :, at] = attention.v_proj(normed).view(per_group).transpose(1, 2)
        # (P, heads, G, queries of one key head, D): one product with the prompt's keys for all G.
        asked = turned[:, :-heads].view(prompts, group, heads, -1, size).transpose(1, 2)
        asked = asked.reshape(prompts * heads, -1, size)
        scores = torch.bmm(
            asked, prompt_keys.flatten(0, 1).transpose(1, 2)
        )  # (P·heads, ·, longest)
        if self._padding is not None:
            padding = self._padding.repeat_interleave(heads, dim=0)[:, None]
            scores = scores.masked_fill(padding, -torch.inf)
        each = prompts * heads * group
        own_keys = room[0].flatten(0, 2)[:, : self._filled]
        own_scores = torch.bmm(asked.reshape(each, -1, size), own_keys.transpose(1, 2))
        scores = torch.cat([scores.view(each, -1, longest), own_scores], dim=-1)
        weights = scores.softmax(dim=-1)
        seen = torch.bmm(
            weights[..., :longest].reshape(prompts * heads, -1, longest),
            prompt_values.flatten(0, 1),
        )
        own_values = room[1].flatten(0, 2)[:, : self._filled]
        seen = seen.view(each, -1, size).baddbmm(weights[..., longest:], own_values)
        seen = seen.view(prompts, heads, group, -1, size).transpose(1, 2).reshape(slots, -1)
        return _add_projection(hidden, attention.o_proj, seen)

    def _ungroup(self) -> Tensor:
        """Gives every live sequence its own copy of its prompt; returns their slots."""
        slots = self.alive.nonzero()[:, 0]
        owners = slots // self._group
        for number, (keys, values) in enumerate(self._prompts):
            self._prompts[number] = keys[owners], values[owners]
            room = self._room[number].transpose(2, 3).flatten(1, 2)  # (2, slots, heads, room, D)
            self._room[number] = room[:, slots].unsqueeze(3)
        self._padding = None if self._padding is None else self._padding[owners]
        self._group = 1
        return self._select(slots)

    def _select(self, slots: Tensor) -> Tensor:
        self._cosines, self._sines = self._cosines[slots], self._sines[slots]
        self.rows, self.alive = self.rows[slots], self.alive[slots]
        return slots


@torch.no_grad()
def decodes_lightly(model: PreTrainedModel) -> bool:
    """Whether `LightRun` gives this model's own logits, measured on two ragged prompts.

    A "no" costs speed, never correctness, and is logged. The model must be in evaluation mode.
    """
    if reason := _objection(model):
        log.info("decoding with the model's own forward: %s", reason)
        return False
    prompts = torch.tensor([[1, 2, 3, 4, 5], [0, 0, 3, 1, 2]])
    mask = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]])
    lengths = mask.sum(dim=1)
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    first = model(
        input_ids=prompts, attention_mask=mask, position_ids=positions, use_cache=True,
        past_key_values=DynamicCache(config=model.config),
    )  # fmt: skip
    cache = first.past_key_values
    if any(type(layer) is not DynamicLayer for layer in cache.layers):
        log.info("decoding with the model's own forward: its cache is not plain")
        return False
    run = LightRun(model, cache, first.logits[:, -1], lengths, [0, 0, 1, 1], 2)
    error, scale = 0.0, 0.0
    given = torch.tensor([[1, 2], [2, 3], [3, 4], [4, 5]])
    cache.batch_select_indices(torch.tensor([0, 0, 1, 1]))
    for step in range(2):
        run.forward(given[:, step])
        mask = torch.cat([mask if step else mask.repeat_interleave(2, 0), mask.new_ones(4, 1)], 1)
        expected = model(
            input_ids=given[:, step : step + 1], attention_mask=mask,
            position_ids=mask.sum(dim=1, keepdim=True) - 1, past_key_values=cache, use_cache=True,
        ).logits[:, -1]  # fmt: skip
        error = max(error, float((run.logits - expected).abs().max()))
        scale = max(scale, float(expected.abs().max()))
    if not error <= TOLERANCE * scale:
        log.info("decoding with the model's own forward: a probe differed by %.1e", error)
        return False
    return True


def _objection(model: PreTrainedModel) -> str:
    """Why this model is not tried; empty if it is."""
    config = model.config
    if not type(model).__module__.startswith("transformers.models."):
        return "its class is not transformers' own"
    if model.device.type != "cpu":
        return f"it is on {model.device.type}"
    if model.dtype not in (torch.float32, torch.float64):
        return f"its weights are {model.dtype}"
    if config.model_type not in MODEL_TYPES:
        return f"{config.model_type} models are not written out by hand"
    if (getattr(config, "rope_parameters", None) or {}).get("rope_type") not in ROPE_TYPES:
        return "its rotary embedding depends on the length"
    if any(kind != "full_attention" for kind in getattr(config, "layer_types", None) or ()):
        return "it has a sliding window"
    if not hasattr(_decoder(model), "layers") or config.vocab_size < 6:
        return "its modules are not where they are expected"
    return ""


def _decoder(model: Any) -> Any:
    return model.get_decoder()


def _layers(model: Any) -> list[Any]:
    return list(_decoder(model).layers)


def _norm(norm: Any, hidden: Tensor) -> Tensor:
    weight: Tensor = norm.weight
    return _rms(hidden, weight, norm.variance_epsilon)


def _rms(states: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """RMS norm over the last axis; `functional.rms_norm` makes nearly twice as many calls."""
    norms: Tensor = torch.linalg.vector_norm(states, dim=-1, keepdim=True)
    scales = norms.square_().div_(states.shape[-1]).add_(epsilon).rsqrt_()
    return (states * scales).mul_(weight)


def _head_norm(attention: Any) -> Tensor | None:
    """Weights (heads, D) of the norms of queries and keys, one under the other; None without."""
    if not hasattr(attention, "q_norm"):
        return None
    size, groups = attention.head_dim, attention.num_key_value_groups
    keys = attention.k_proj.out_features // size
    return torch.cat([
        attention.q_norm.weight.expand(keys * groups, size),
        attention.k_norm.weight.expand(keys, size),
    ])  # fmt: skip


def _rotate(states: Tensor, cosines: Tensor, signed_sines: Tensor) -> Tensor:
    """Rotary embedding of (slots, heads, D); the sines carry the sign of "rotate half"."""
    half = states.shape[-1] // 2
    return torch.addcmul(states * cosines, states.roll(half, dims=-1), signed_sines)


def _mlp(layer: Any, hidden: Tensor) -> Tensor:
    """hidden + MLP, (slots, H)."""
    normed = _norm(layer.post_attention_layernorm, hidden)
    gate = layer.mlp.act_fn(layer.mlp.gate_proj(normed))
    return _add_projection(hidden, layer.mlp.down_proj, gate.mul_(layer.mlp.up_proj(normed)))


def _add_projection(hidden: Tensor, linear: Any, states: Tensor) -> Tensor:
    is_plain = type(linear) is nn.Linear and getattr(linear, "bias", None) is None
    if is_plain:
        return torch.addmm(hidden, states, linear.weight.t())
    added: Tensor = linear(states)
    return hidden + added
