"""The hand-written decoding step: equal to the model's own, whatever finishes when."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from swarmnode.generate.light import LightRun, decodes_lightly

SIZES = {
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 16, "rope_theta": 1e4}  # fmt: skip
DYNAMIC = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
LIGHT: dict[str, Callable[[], Any]] = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES)),
    "llama3": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, rope_parameters=LLAMA3)),
    "biased": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, attention_bias=True, mlp_bias=True)),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**SIZES, sliding_window=None)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=16)),
}
HEAVY: dict[str, Callable[[], Any]] = {
    "windowed": lambda: MistralForCausalLM(MistralConfig(**SIZES, sliding_window=8)),
    "gemma2": lambda: Gemma2ForCausalLM(Gemma2Config(**SIZES, head_dim=8)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=40, n_embd=32, n_layer=2, n_head=4)),
    "dynamic": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, rope_parameters=DYNAMIC)),
    "bfloat16": lambda: LlamaForCausalLM(LlamaConfig(**SIZES)).bfloat16(),
}
PROMPTS = [[3, 4, 5, 6, 7], [8, 9], [10, 11, 12]]


def built(make: Callable[[], Any]) -> Any:
    torch.manual_seed(0)
    model = make().eval()
    for parameter in model.parameters():  # biases and norms begin as 0 and 1, which hides them
        if parameter.ndim == 1:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    return model


def started(model: Any, owners: list[int]) -> LightRun:
    longest = max(map(len, PROMPTS))
    ids = torch.tensor([[0] * (longest - len(p)) + p for p in PROMPTS])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in PROMPTS])
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    output = model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=True)
    lengths = torch.tensor([len(p) for p in PROMPTS])
    return LightRun(model, output.past_key_values, output.logits[:, -1], lengths, owners, 8)


def full_pass(model: Any, ids: list[int]) -> Tensor:
    return model(input_ids=torch.tensor([ids])).logits[0, -1]


@pytest.mark.parametrize("family", LIGHT)
def test_is_used_where_it_is_equal(family: str) -> None:
    assert decodes_lightly(built(LIGHT[family]))


@pytest.mark.parametrize("family", HEAVY)
def test_other_models_decode_by_their_own_forward_and_it_is_said(
    family: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    assert not decodes_lightly(built(HEAVY[family]))
    assert "decoding with the model's own forward" in caplog.text


def test_adapters_decode_lightly_too() -> None:
    peft = pytest.importorskip("peft")
    model = built(LIGHT["qwen3"])
    settings = peft.LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
    peft.inject_adapter_in_model(settings, model)
    assert decodes_lightly(model.eval())


def test_the_probe_sees_a_model_that_computes_something_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = built(LIGHT["llama"])
    model.model.layers[1].mlp.down_proj.register_forward_hook(lambda *a: a[-1] * 1.01)
    model.model.layers[1].mlp.down_proj.bias = None
    caplog.set_level("INFO")
    assert not decodes_lightly(model)
    assert "a probe differed" in caplog.text


@pytest.mark.parametrize("family", LIGHT)
@pytest.mark.parametrize(
    "owners",
    [[0, 0, 0, 1, 1, 1, 2, 2, 2], [0, 1, 1, 1, 2], [2, 2, 0, 0], [1]],
    ids=["even", "uneven", "out of order", "one"],
)
@torch.no_grad()
def test_logits_are_those_of_a_full_pass_while_sequences_finish(
    family: str, owners: list[int]
) -> None:
    model = built(LIGHT[family])
    run = started(model, owners)
    texts = [list(PROMPTS[owner]) for owner in owners]
    finished: set[int] = set()
    for step in range(6):
        for slot in range(len(run.rows)):
            row = int(run.rows[slot])
            if row not in finished:
                torch.testing.assert_close(
                    run.logits[slot], full_pass(model, texts[row]), rtol=1e-4, atol=1e-4
                )
        token = torch.tensor([3 + (7 * int(row) + 5 * step) % 37 for row in run.rows])
        for slot, row in enumerate(run.rows.tolist()):
            if row not in finished:
                texts[row].append(int(token[slot]))
        # One more is finished at each step, always of the lowest prompt.
        finished.add(step)
        run.alive = run.alive & (run.rows != step)
        if not run.alive.any():
            break
        token = token[run.shrink()]
        run.forward(token)
        assert set(run.rows[run.alive].tolist()) == set(range(len(owners))) - finished


def test_unequal_groups_are_taken_apart() -> None:
    run = started(built(LIGHT["llama"]), [0] * 4 + [1] * 4 + [2] * 4)
    run.alive = torch.tensor([True] * 4 + [True] + [False] * 3 + [True] + [False] * 3)
    # 3 prompts of up to 4: twelve slots for six sequences.
    assert run.shrink().tolist() == [0, 1, 2, 3, 4, 8]
