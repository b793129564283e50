"""Tiny randomly initialised models, one torch thread."""

import random
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GemmaConfig,
    GemmaForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from swarmnode.train.batch import Sample

VOCABULARY = 50
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    # Wider than the usual 0.02, so that distributions are far enough from uniform.
    "initializer_range": 0.2,
}
GPT2_SIZES = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
FAMILIES = {
    "llama": (LlamaForCausalLM, LlamaConfig, SIZES),
    "llama-tied": (LlamaForCausalLM, LlamaConfig, SIZES | {"tie_word_embeddings": True}),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, SIZES),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, SIZES | {"head_dim": 8}),
    "gpt2": (GPT2LMHeadModel, GPT2Config, GPT2_SIZES),
    # SmolLM is a Llama with tied embeddings.
    "gemma": (GemmaForCausalLM, GemmaConfig, SIZES | {"head_dim": 8}),
    "gemma3": (Gemma3ForCausalLM, Gemma3TextConfig, SIZES | {"head_dim": 8}),
    "gemma2": (Gemma2ForCausalLM, Gemma2Config, SIZES | {"head_dim": 8}),
    "granite": (GraniteForCausalLM, GraniteConfig, SIZES | {"logits_scaling": 3.0}),
    "cohere": (CohereForCausalLM, CohereConfig, SIZES),
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def tiny() -> Callable[..., nn.Module]:
    """tiny(family, **settings): a model with fixed random weights, in evaluation mode."""

    def build(family: str, **settings: object) -> nn.Module:
        model_class, config_class, sizes = FAMILIES[family]
        special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
        torch.manual_seed(0)
        return model_class(config_class(**(sizes | special | settings))).eval()

    return build


@pytest.fixture
def draw_samples() -> Callable[..., list[Sample]]:
    """draw_samples(seed, count): ragged samples with advantages ±1, half of them external."""

    def draw(seed: int, count: int) -> list[Sample]:
        rng = random.Random(seed)

        def ids(longest: int) -> tuple[int, ...]:
            return tuple(rng.randrange(3, VOCABULARY) for _ in range(rng.randint(1, longest)))

        return [
            Sample(ids(9), ids(12), rng.choice((-1.0, 1.0)), external=i % 2 == 1)
            for i in range(count)
        ]

    return draw
