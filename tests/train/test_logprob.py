from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from swarmnode.train.batch import MicroBatch, Sample, pack
from swarmnode.train.logprob import Shortcuts, TokenStatistics, completion_logps, measure

Tiny = Callable[..., nn.Module]
Draw = Callable[..., list[Sample]]
PLAIN = ["llama", "llama-tied", "qwen2", "qwen3", "gemma", "gpt2"]
NOT_PLAIN = ["gemma2", "granite", "cohere"]


def packed(samples: list[Sample]) -> MicroBatch:
    return pack(samples, tuple(range(len(samples))), 0, torch.device("cpu"))


def measured(model: nn.Module, batch: MicroBatch, **options: object) -> TokenStatistics:
    options.setdefault("shortcuts", measure(model))
    return completion_logps(
        model, batch.input_ids, batch.attention_mask, batch.completion_mask, **options
    )


def reference(model: nn.Module, samples: list[Sample], temperature: float = 1.0) -> Tensor:
    """Sequence by sequence without padding, from the model's own full logits."""
    logps = []
    for s in samples:
        ids = torch.tensor([s.prompt_ids + s.completion_ids])
        all_logps = (model(input_ids=ids).logits[0] / temperature).log_softmax(dim=-1)
        first = len(s.prompt_ids)
        logps += [all_logps[first - 1 + i, t] for i, t in enumerate(s.completion_ids)]
    return torch.stack(logps)


@pytest.mark.parametrize("family", PLAIN)
def test_takes_both_shortcuts_where_they_hold(tiny: Tiny, family: str) -> None:
    assert measure(tiny(family)) == Shortcuts(plain_head=True, shared_prompts=True)


def test_what_a_model_cannot_is_said(tiny: Tiny, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    # Gemma 3 has sliding windows, Gemma 2 also a cap on its logits.
    assert measure(tiny("gemma3")) == Shortcuts(plain_head=True, shared_prompts=False)
    assert "training on whole sequences" in caplog.text
    assert measure(tiny("gemma2")) == Shortcuts()
    assert "training by the model's own forward" in caplog.text


@pytest.mark.parametrize("family", NOT_PLAIN)
def test_takes_no_shortcut_where_logits_are_changed(tiny: Tiny, family: str) -> None:
    assert measure(tiny(family)) == Shortcuts(plain_head=False, shared_prompts=False)


def test_a_cap_far_above_the_logits_is_still_noticed(tiny: Tiny) -> None:
    # Logits of about 0.1 under a cap of 30 change by x³/(3·30²), 4e-7: but not by nothing.
    model = tiny("gemma2", initializer_range=0.02)
    assert model.config.final_logit_softcapping == 30.0
    assert not measure(model).plain_head


@pytest.mark.parametrize("family", [*PLAIN, "gemma3", *NOT_PLAIN])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_equals_the_models_own_logits_one_sequence_at_a_time(
    tiny: Tiny, draw_samples: Draw, family: str, temperature: float
) -> None:
    model, samples = tiny(family), draw_samples(seed=1, count=6)
    logps = measured(model, packed(samples), temperature=temperature).logps
    torch.testing.assert_close(logps, reference(model, samples, temperature), rtol=1e-5, atol=2e-6)


def test_a_wrong_claim_of_a_plain_head_gives_wrong_numbers(tiny: Tiny, draw_samples: Draw) -> None:
    model, samples = tiny("granite"), draw_samples(seed=1, count=6)
    logps = measured(model, packed(samples), shortcuts=Shortcuts(plain_head=True)).logps
    assert (logps - reference(model, samples)).abs().max() > 0.1


@pytest.mark.parametrize("family", ["llama-tied", "gpt2"])
def test_tiles_change_neither_values_nor_gradients(
    tiny: Tiny, draw_samples: Draw, family: str
) -> None:
    model, batch = tiny(family).double(), packed(draw_samples(seed=2, count=6))
    results = []
    for tile_logits in (2**26, 50 * 7):  # one tile; tiles of 7 tokens
        statistics = measured(model, batch, tile_logits=tile_logits)
        gradients = torch.autograd.grad(statistics.logps.square().sum(), list(model.parameters()))
        results.append((statistics.logps, statistics.entropies, *gradients))
    assert len(results[0][0]) > 7
    torch.testing.assert_close(results[0], results[1], rtol=1e-10, atol=1e-12)


def test_entropy_of_the_uniform_distribution_is_log_v(tiny: Tiny, draw_samples: Draw) -> None:
    model, batch = tiny("llama"), packed(draw_samples(seed=3, count=2))
    nn.init.zeros_(model.get_output_embeddings().weight)
    statistics = measured(model, batch)
    # All logits 0: log p = −log 50 = −3.91202, entropy log 50.
    torch.testing.assert_close(statistics.logps, torch.full_like(statistics.logps, -3.91202))
    torch.testing.assert_close(statistics.entropies, torch.full_like(statistics.logps, 3.91202))
    assert not statistics.entropies.requires_grad


def test_bfloat16_models_get_a_float32_softmax(tiny: Tiny, draw_samples: Draw) -> None:
    model = tiny("llama").bfloat16()
    assert measure(model) == Shortcuts(plain_head=True, shared_prompts=True)
    statistics = measured(model, packed(draw_samples(seed=3, count=2)))
    assert statistics.logps.dtype == torch.float32
