"""Adapters: what is trained, kept, exported, and what the KL term compares with. Needs peft."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from swarmnode.config import ModelSettings, TrainSettings
from swarmnode.errors import ConfigError, SwarmNodeError
from swarmnode.train import policy
from swarmnode.train.batch import Sample
from swarmnode.train.logprob import Shortcuts, measure
from swarmnode.train.lora import MARK, add_adapters, merged_state, without_adapters
from swarmnode.train.trainer import Trainer
from swarmnode.train.weights import persistent_tensors

Tiny = Callable[..., nn.Module]
PROMPT = torch.tensor([[3, 4, 5]])
SAMPLES = [
    Sample((3, 4, 5), (10, 2), 1.0, external=False),
    Sample((3, 4, 5), (11,), -1.0, external=False),
]


@pytest.fixture(autouse=True)
def _peft() -> None:
    pytest.importorskip("peft")


def adapted(model: nn.Module) -> nn.Module:
    add_adapters(model, rank=4, alpha=8.0)
    return model


def trained(model: nn.Module, **settings: object) -> Trainer:
    trainer = Trainer(model, TrainSettings(lr=1e-2, **settings), pad_token_id=0)
    for _ in range(2):
        assert trainer.step(SAMPLES).skipped is None
    return trainer


@torch.no_grad()
def logits(model: nn.Module) -> Tensor:
    return model(input_ids=PROMPT).logits


@pytest.mark.parametrize("family", ["llama-tied", "qwen3", "gpt2"])
def test_only_adapters_are_trained_kept_and_given_moments(tiny: Tiny, family: str) -> None:
    plain, model = tiny(family), adapted(tiny(family))
    assert measure(model) == Shortcuts(plain_head=True, shared_prompts=True)
    torch.testing.assert_close(logits(model), logits(plain))  # B is 0
    trainer = trained(model)
    assert (logits(model) - logits(plain)).abs().max() > 1e-2
    kept = trainer.state()
    names = [n for n, p in model.named_parameters() if p.requires_grad]
    assert sorted(kept.model) == sorted(names)
    assert all(MARK in name for name in (*kept.model, *kept.optimizer))
    with without_adapters(model):
        torch.testing.assert_close(logits(model), logits(plain), rtol=0, atol=0)
    size = sum(t.numel() for t in kept.model.values())
    assert size < sum(p.numel() for p in plain.parameters())


def test_resuming_goes_on_bit_for_bit(tiny: Tiny) -> None:
    whole = trained(adapted(tiny("llama")))
    state = whole.state()
    state = type(state)(
        {n: t.clone() for n, t in state.model.items()},
        {n: t.clone() for n, t in state.optimizer.items()},
        state.policy_version,
    )
    torch.manual_seed(7)  # other random adapters, which the state replaces
    model = adapted(tiny("llama"))
    resumed = Trainer(model, TrainSettings(lr=1e-2), pad_token_id=0)
    resumed.load_state(state)
    whole.step(SAMPLES)
    resumed.step(SAMPLES)
    torch.testing.assert_close(
        dict(resumed.state().model), dict(whole.state().model), rtol=0, atol=0
    )


def test_a_checkpoint_of_all_weights_is_of_another_model(tiny: Tiny) -> None:
    full = Trainer(tiny("llama"), TrainSettings(), pad_token_id=0)
    adapters = Trainer(adapted(tiny("llama")), TrainSettings(), pad_token_id=0)
    with pytest.raises(SwarmNodeError, match="of another model"):
        adapters.load_state(full.state())


def test_kl_is_to_the_model_without_adapters_and_takes_no_copy(tiny: Tiny) -> None:
    copied, shared = tiny("llama"), adapted(tiny("llama"))
    trainer = Trainer(shared, TrainSettings(lr=1e-2, kl_weight=0.1), pad_token_id=0)
    assert trainer._reference._model is shared
    # The same weights as one that holds a copy: merge what was trained, compare to what it was.
    assert trainer.step(SAMPLES).kl_reference == 0.0
    base = Trainer(copied, TrainSettings(lr=1e-2, kl_weight=0.1), pad_token_id=0)
    copied.load_state_dict(merged_state(shared))
    found, expected = trainer.step(SAMPLES), base.step(SAMPLES)
    assert found.kl_reference > 0
    assert found.kl_reference == pytest.approx(expected.kl_reference, rel=1e-3)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_export_is_the_merged_model(tmp_path: Path, dtype: str) -> None:
    settings = ModelSettings(name="demo", device="cpu", dtype=dtype, lora_rank=4)
    loaded = policy.load(settings)
    for name, tensor in persistent_tensors(loaded.model).items():
        nn.init.normal_(tensor, std=0.05) if name.endswith("lora_B.default.weight") else None
    policy.save(loaded, tmp_path)
    exported = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert not any(MARK in name for name, _ in exported.named_parameters())
    assert exported.dtype == loaded.dtype
    tolerance = 1e-4 if dtype == "float32" else 0.2
    torch.testing.assert_close(
        logits(exported).float(), logits(loaded.model).float(), rtol=tolerance, atol=tolerance
    )
    unadapted = policy.load(ModelSettings(name="demo", device="cpu", dtype=dtype))
    assert (logits(exported).float() - logits(unadapted.model).float()).abs().max() > 0.3


def test_without_peft_the_user_is_told_what_to_install(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)  # what Python itself calls not installed
    with pytest.raises(ConfigError, match=r"pip install 'swarmnode\[lora\]'"):
        adapted(tiny("llama"))
