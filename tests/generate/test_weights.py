"""Weights for another program: names, ties, heads padded with zeros, adapters merged."""

from typing import Any

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from swarmnode.generate.padding import HeadPadding, head_padding
from swarmnode.generate.weights import handed_over


def llama(**changes: Any) -> LlamaForCausalLM:
    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "vocab_size": 20}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 24}
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**(shape | heads | changes)))


def test_tied_weights_go_once_by_the_names_of_a_checkpoint() -> None:
    names = [name for name, _ in handed_over(llama(tie_word_embeddings=True))]
    assert "model.embed_tokens.weight" in names
    assert "model.layers.0.self_attn.q_proj.weight" in names
    assert "lm_head.weight" not in names
    assert "lm_head.weight" in dict(handed_over(llama(tie_word_embeddings=False)))


def test_weights_are_live() -> None:
    model = llama()
    tensors = dict(handed_over(model))
    with torch.no_grad():
        model.model.norm.weight.fill_(5.0)
    assert tensors["model.norm.weight"][0] == 5.0
    assert not any(tensor.requires_grad for tensor in tensors.values())


def test_heads_padded_with_zeros_make_an_equal_model() -> None:
    model = llama(initializer_range=0.4, num_hidden_layers=2)
    padding = head_padding(model.config)
    assert padding == HeadPadding(24, 32, dict(model.config.rope_parameters))
    larger = LlamaForCausalLM(LlamaConfig(**(model.config.to_dict() | padding.overrides())))
    assert larger.config.head_dim == 32
    theirs = dict(padding.applied(handed_over(model)))
    larger.load_state_dict(theirs, strict=False)
    ids = torch.randint(20, (2, 100), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, got = (one.eval()(input_ids=ids).logits for one in (model, larger))
    assert got == pytest.approx(expected, abs=1e-4)
    # Without the query's factor, the same model with heads of another size: not equal.
    theirs["model.layers.0.self_attn.q_proj.weight"] *= (24 / 32) ** 0.5
    larger.load_state_dict(theirs, strict=False)
    with torch.no_grad():
        assert (larger(input_ids=ids).logits - expected).abs().max() > 1e-3


@pytest.mark.parametrize("changes", [{"head_dim": 32}, {"head_dim": 600}])
def test_other_heads_stay_as_they_are(changes: dict[str, int]) -> None:
    assert head_padding(llama(**changes).config) is None


class Adapted(nn.Module):
    """Laid out as peft's layers: W + 2 BA."""

    def __init__(self, base_layer: nn.Linear) -> None:
        super().__init__()
        self.base_layer = base_layer
        make = {"bias": False}
        self.lora_A = nn.ModuleDict({"default": nn.Linear(base_layer.in_features, 2, **make)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(2, base_layer.out_features, **make)})
        self.scaling = {"default": 2.0}
        self.active_adapters = ["default", "another layer's"]

    def get_delta_weight(self, adapter: str) -> torch.Tensor:
        product = self.lora_B[adapter].weight @ self.lora_A[adapter].weight
        return self.scaling[adapter] * product


def test_adapters_are_merged_into_a_copy() -> None:
    plain = dict(handed_over(llama()))
    model = llama()
    layer = Adapted(model.model.layers[0].mlp.down_proj)
    model.model.layers[0].mlp.down_proj = layer
    tensors = dict(handed_over(model))
    assert tensors.keys() == plain.keys()
    name = "model.layers.0.mlp.down_proj.weight"
    expected = plain[name] + 2 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    assert torch.equal(tensors.pop(name), expected.detach())
    assert torch.equal(layer.base_layer.weight, plain.pop(name))
    assert all(torch.equal(tensors[name], plain[name]) for name in plain)
