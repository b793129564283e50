"""How much memory a node will need, from its settings and its model's config, before it starts.

    fixed    weights, masters, gradients, moments, the KL term's copy
    moving   the larger of one micro-batch (activations, tile of logits) and generation's cache

Activations are counted for a Llama-like layer under autograd: norms 12 H, projections and rotary
embedding 8 Q + 6 K, MLP 4 I numbers per token. An estimate: measured peaks of three models on a
CPU were within a factor of 2 of it (`tests/bench/RESULTS.md`). It knows no fragmentation, and
models whose prompts cannot be shared need more.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from swarmnode.config import Settings

# Tokens of a question where none is known yet.
PROMPT_TOKENS = 256
# Python with torch and transformers loaded, or the context of a GPU.
LIBRARY_BYTES = 600_000_000
# Logits of one tile, as in `logprob.py`, with their exponentials; float32.
TILE_BYTES = {"cpu": 2 * 4 * 2**20, "cuda": 2 * 4 * 2**26}
# Padded tokens that generation's cache holds at most (`generate/hf.py`).
CACHE_TOKENS = 65_536
_LEAST_MICRO_BATCH = 512


@dataclasses.dataclass(frozen=True, slots=True)
class Shape:
    """A model's sizes; only `parameters` where its config says no more."""

    parameters: int
    weight_bytes: int  # of one weight: 4, or 2 in bfloat16
    layers: int = 0
    hidden: int = 0  # H
    queries: int = 0  # Q, heads × size of a head
    keys: int = 0  # K, key-value heads × size of a head
    intermediate: int = 0  # I

    @staticmethod
    def of(config: Mapping[str, Any], parameters: int, weight_bytes: int) -> "Shape":
        """From the content of a config.json; GPT-2's names are known, too."""

        def get(*names: str) -> int:
            return next((config[n] for n in names if isinstance(config.get(n), int)), 0)

        hidden, heads = get("hidden_size", "n_embd"), get("num_attention_heads", "n_head")
        size = get("head_dim") or (hidden // heads if heads else 0)
        return Shape(
            parameters=parameters,
            weight_bytes=weight_bytes,
            layers=get("num_hidden_layers", "n_layer"),
            hidden=hidden,
            queries=heads * size,
            keys=(get("num_key_value_heads") or heads) * size,
            intermediate=get("intermediate_size", "n_inner") or 4 * hidden,
        )

    def adapters(self, rank: int) -> int:
        """Parameters of LoRA adapters of this rank on every linear layer but the head."""
        attention = 2 * self.hidden + 2 * self.queries + 2 * (self.hidden + self.keys)
        mlp = 3 * (self.hidden + self.intermediate)
        return rank * self.layers * (attention + mlp)


@dataclasses.dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes by what they are for."""

    weights: int
    training: int  # masters, gradients, moments
    reference: int
    activations: int  # of one micro-batch
    logits: int
    cache: int  # of one batch of generation

    @property
    def fixed(self) -> int:
        """What is needed however small the batches are."""
        return self.weights + self.training + self.reference + LIBRARY_BYTES

    @property
    def total(self) -> int:
        """The peak."""
        return self.fixed + max(self.activations + self.logits, self.cache)


def estimate(
    settings: Settings, shape: Shape, device: str = "cpu", prompt_tokens: int = PROMPT_TOKENS
) -> Footprint:
    """The footprint of a node with these settings on `device` ("cpu" or "cuda")."""
    rank, train = settings.model.lora_rank, settings.train
    trained = shape.adapters(rank) if rank else shape.parameters
    is_master = shape.weight_bytes < 4
    weights = shape.weight_bytes * (shape.parameters + (trained if rank else 0))
    casts = train.autocast == "bfloat16" or (train.autocast == "auto" and device == "cuda")
    if casts and not is_master:  # autocast keeps its copies until the forward pass is over
        weights += 2 * shape.parameters
    moments = 2 if train.optimizer == "adamw8bit" else 8
    # A micro-batch's gradient is in the weights' dtype beside the sum in the master's.
    each = moments + 4 + (4 + shape.weight_bytes if is_master else 0)
    generate = settings.generate
    longest = prompt_tokens + generate.max_new_tokens
    rows = generate.questions * generate.completions
    sharing = settings.sharing
    peers = 0 if sharing.rule == "off" else sharing.external * generate.completions
    padded = min(train.micro_batch_tokens, (rows + peers) * longest)
    # A prompt is computed once for its G completions (`prefix.py`).
    computed = generate.max_new_tokens + prompt_tokens / generate.completions
    tokens = int(max(padded, longest) * computed / longest)
    per_token = shape.layers * (
        12 * shape.hidden + 8 * shape.queries + 6 * shape.keys + 4 * shape.intermediate
    )
    cached = min(CACHE_TOKENS, rows * longest)
    return Footprint(
        weights=weights,
        training=each * trained,
        reference=shape.weight_bytes * shape.parameters if train.kl_weight > 0 and not rank else 0,
        activations=shape.weight_bytes * per_token * tokens,
        logits=TILE_BYTES.get(device, TILE_BYTES["cuda"]),
        cache=2 * shape.layers * shape.keys * shape.weight_bytes * cached,
    )


def advice(settings: Settings, shape: Shape, free: int, device: str = "cpu") -> str:
    """The first change to the settings by which the node would fit into `free` bytes."""
    for text, changed, smaller in _changes(settings, shape):
        if estimate(changed, smaller, device).total <= free:
            return f"try {text}"
    return "choose a smaller model or a machine with more memory"


def _changes(settings: Settings, shape: Shape) -> Iterator[tuple[str, Settings, Shape]]:
    """What may be changed, the harmless first: each with its name and what it makes of both."""
    replace = msgspec.structs.replace
    tokens = settings.train.micro_batch_tokens
    while shape.layers and tokens > _LEAST_MICRO_BATCH:
        tokens //= 2
        train = replace(settings.train, micro_batch_tokens=tokens)
        yield f"train.micro_batch_tokens = {tokens}", replace(settings, train=train), shape
    least = replace(settings, train=replace(settings.train, micro_batch_tokens=tokens))
    if settings.train.kl_weight > 0:
        least = replace(least, train=replace(least.train, kl_weight=0.0))
        yield "train.kl_weight = 0", least, shape
    if not settings.model.lora_rank and shape.layers:
        adapted = replace(least, model=replace(least.model, lora_rank=16))
        yield f"--lora-rank 16 (and train.micro_batch_tokens = {tokens})", adapted, shape
    if shape.weight_bytes == 4 and settings.model.lora_rank:
        half = dataclasses.replace(shape, weight_bytes=2)
        yield 'model.dtype = "bfloat16"', least, half
