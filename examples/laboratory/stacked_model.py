"""N Llama models of one shape as one: every matrix has a leading node axis.

The mathematics is that of transformers' Llama; `tests/test_stacked.py` compares the two. The G
completions of a question stand behind its prompt in one sequence of the cache and attend to the
prompt and to their own tokens: column P + t·G + g holds token t of completion g. So a prompt is
computed and kept once. Beyond some hundred columns the masked ones would cost more than that saves;
the laboratory has a few dozen.

Not done: dropout, biases, scaled rotary embeddings, a limit on positions.

Axes: N nodes, Q questions of a node, G completions of a question, P longest prompt, L tokens of one
pass, H hidden size, V vocabulary.
"""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlamaForCausalLM

# Of the configuration: what models of one stack have in common.
_SHAPE = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "max_position_embeddings",
    "rms_norm_eps",
)


def shape_of(model: LlamaForCausalLM) -> Hashable:
    """Equal for models that can be stacked. Raises `ValueError` for what this file cannot compute:
    other architectures than Llama, biases, other activations, scaled rotary embeddings."""
    config = model.config
    if type(model) is not LlamaForCausalLM:
        raise ValueError(f"{type(model).__name__} cannot be stacked, only LlamaForCausalLM")
    rope = config.rope_parameters
    if config.attention_bias or config.mlp_bias:
        raise ValueError("models with biases cannot be stacked")
    if config.hidden_act != "silu" or rope["rope_type"] != "default":
        raise ValueError("only SiLU and unscaled rotary embeddings can be stacked")
    return (*(getattr(config, name) for name in _SHAPE), rope["rope_theta"], model.dtype)


@dataclass(frozen=True, slots=True)
class _Layer:
    """Matrices are (N, in, out), norms (N, 1, H). Query, key and value are one matrix, and so are
    gate and up."""

    attention_norm: Tensor
    attention_in: Tensor
    attention_out: Tensor
    mlp_norm: Tensor
    mlp_in: Tensor
    mlp_out: Tensor


class Stack:
    """A copy of the models' weights, which are to be of one shape."""

    def __init__(self, models: Sequence[LlamaForCausalLM]) -> None:
        self.config = models[0].config
        self.rotary = models[0].model.rotary_emb
        self.embedding = torch.stack([model.model.embed_tokens.weight for model in models])
        self.layers = [
            _layer(parts) for parts in zip(*(m.model.layers for m in models), strict=True)
        ]
        self.norm = _norms(model.model.norm for model in models)
        self.head = _matrices([model.lm_head] for model in models)


def _layer(parts: Sequence[nn.Module]) -> _Layer:
    """The same layer of all models."""
    attention = [part.self_attn for part in parts]
    return _Layer(
        attention_norm=_norms(part.input_layernorm for part in parts),
        attention_in=_matrices([one.q_proj, one.k_proj, one.v_proj] for one in attention),
        attention_out=_matrices([one.o_proj] for one in attention),
        mlp_norm=_norms(part.post_attention_layernorm for part in parts),
        mlp_in=_matrices([part.mlp.gate_proj, part.mlp.up_proj] for part in parts),
        mlp_out=_matrices([part.mlp.down_proj] for part in parts),
    )


def _norms(modules: Iterable[nn.Module]) -> Tensor:
    return torch.stack([module.weight for module in modules])[:, None]


def _matrices(modules: Iterable[Sequence[nn.Linear]]) -> Tensor:
    """(N, in, out), where a node's modules have their outputs side by side."""
    return torch.stack([torch.cat([one.weight for one in node]) for node in modules]).mT


class Decoding:
    """The tokens of N × Q questions with G completions each, as far as they are computed.

    `prompts` is (N, Q, P), padded on the right, where nobody looks; `lengths` is (N, Q), at least
    1. There is room for `limit` tokens of each completion.
    """

    def __init__(
        self, stack: Stack, prompts: Tensor, lengths: Tensor, completions: int, limit: int
    ) -> None:
        nodes, questions, width = prompts.shape
        config, dtype = stack.config, stack.embedding.dtype
        self._stack = stack
        self._prompts = prompts
        self._lengths = lengths
        self._completions = completions
        positions = torch.arange(width + limit)
        self._cos, self._sin = (
            table[0] for table in stack.rotary(stack.embedding, positions[None])
        )
        columns = width + completions * limit
        shape = (nodes * questions, config.num_key_value_heads, columns, config.head_dim)
        self._cache = [torch.empty(2, *shape, dtype=dtype) for _ in stack.layers]
        self._columns = 0  # computed
        in_prompt = positions[:width] < lengths.view(-1, 1, 1)
        own = torch.eye(completions, dtype=torch.bool).repeat(1, limit)
        seen = torch.cat(
            [in_prompt.expand(-1, completions, -1), own.expand(len(in_prompt), -1, -1)], dim=-1
        )
        # (N × Q, 1, G, columns), added to the attention's scores
        self._mask = torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, -torch.inf)[:, None]

    def prompt_logits(self) -> Tensor:
        """The first call: (N, Q, V), of the first token of every completion."""
        positions = torch.arange(self._prompts.shape[-1])
        states = self._states(self._prompts, positions, mask=None)
        last = (self._lengths - 1)[..., None, None].expand(-1, -1, -1, states.shape[-1])
        return self._logits(states.gather(2, last))[:, :, 0]

    def next_logits(self, tokens: Tensor) -> Tensor:
        """Appends tokens (N, Q, G), returns (N, Q, G, V)."""
        step = (self._columns - self._prompts.shape[-1]) // self._completions
        positions = (self._lengths + step).view(-1, 1, 1)
        mask = self._mask[..., : self._columns + self._completions]
        return self._logits(self._states(tokens, positions, mask))

    def _states(self, tokens: Tensor, positions: Tensor, mask: Tensor | None) -> Tensor:
        """Appends tokens (N, Q, L), returns (N, Q, L, H). Without `mask` they attend causally."""
        nodes, questions, length = tokens.shape
        config = self._stack.config
        eps, queries, keys = (
            config.rms_norm_eps,
            config.num_attention_heads,
            config.num_key_value_heads,
        )
        start, self._columns = self._columns, self._columns + length
        cos, sin = self._cos[positions], self._sin[positions]
        x = self._stack.embedding[torch.arange(nodes)[:, None], tokens.view(nodes, -1)]
        for layer, cache in zip(self._stack.layers, self._cache, strict=True):
            heads = _rms_norm(x, layer.attention_norm, eps) @ layer.attention_in
            heads = heads.view(nodes * questions, length, -1, config.head_dim).transpose(1, 2)
            query, key, value = heads.split([queries, keys, keys], dim=1)
            cache[0, :, :, start : self._columns] = _rotated(key, cos, sin)
            cache[1, :, :, start : self._columns] = value
            found = functional.scaled_dot_product_attention(
                _rotated(query, cos, sin),
                *cache[:, :, :, : self._columns],
                attn_mask=mask,
                is_causal=mask is None,
                enable_gqa=queries != keys,
            )
            x = x + found.transpose(1, 2).reshape(*x.shape[:2], -1) @ layer.attention_out
            gate, up = (_rms_norm(x, layer.mlp_norm, eps) @ layer.mlp_in).chunk(2, dim=-1)
            x = x + (functional.silu(gate) * up) @ layer.mlp_out
        return x.view(nodes, questions, length, -1)

    def _logits(self, states: Tensor) -> Tensor:
        """(N, Q, L, H) → (N, Q, L, V)."""
        stack = self._stack
        normed = _rms_norm(states.flatten(1, 2), stack.norm, stack.config.rms_norm_eps)
        return (normed @ stack.head).view(*states.shape[:3], -1)


def _rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    wide = x.float()
    return weight * (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(x.dtype)


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin
