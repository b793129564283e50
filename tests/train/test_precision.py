"""bfloat16 autocast, tried on a CPU: near float32, float32 where it matters, off unless chosen."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from swarmnode.config import TrainSettings
from swarmnode.train.batch import Sample, pack
from swarmnode.train.logprob import TokenStatistics, completion_logps, measure
from swarmnode.train.precision import autocast
from swarmnode.train.trainer import Trainer

CPU = torch.device("cpu")
Tiny = Callable[..., nn.Module]
Draw = Callable[..., list[Sample]]


def statistics_and_gradient(
    model: nn.Module, samples: list[Sample], setting: str, tile_logits: int | None
) -> tuple[TokenStatistics, Tensor]:
    batch = pack(samples, tuple(range(len(samples))), 0, CPU)
    with autocast(setting, CPU):
        found = completion_logps(
            model, batch.input_ids, batch.attention_mask, batch.completion_mask,
            shortcuts=measure(model), tile_logits=tile_logits,
        )  # fmt: skip
    model.zero_grad()
    found.logps.sum().backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(g.dtype == torch.float32 for g in gradients)
    return found, torch.cat([g.flatten() for g in gradients])


@pytest.mark.parametrize("family", ["llama-tied", "qwen3", "gemma", "gpt2", "gemma2"])
@pytest.mark.parametrize("tile_logits", [None, 1])  # all logits at once, and the tiled head
def test_bfloat16_is_close_to_float32(
    tiny: Tiny, draw_samples: Draw, family: str, tile_logits: int | None
) -> None:
    model, samples = tiny(family), draw_samples(1, 8)
    exact, gradient = statistics_and_gradient(model, samples, "off", tile_logits)
    low, low_gradient = statistics_and_gradient(model, samples, "bfloat16", tile_logits)
    assert not torch.equal(low.logps, exact.logps)  # it took effect
    assert low.logps.dtype == low.entropies.dtype == torch.float32
    assert (low.logps - exact.logps).abs().mean() < 0.03
    assert (low.entropies - exact.entropies).abs().mean() < 0.03
    assert torch.cosine_similarity(gradient, low_gradient, dim=0) > 0.995


def stepped(tiny: Tiny, samples: list[Sample], setting: str) -> tuple[Trainer, float]:
    model = tiny("qwen3")
    trainer = Trainer(model, TrainSettings(lr=1e-3, autocast=setting, kl_weight=0.1), 0)
    trainer.step(samples)
    report = trainer.step(samples)
    assert report.loss is not None
    return trainer, report.loss


def test_weights_and_moments_stay_float32(tiny: Tiny, draw_samples: Draw) -> None:
    samples = draw_samples(2, 8)
    low, low_loss = stepped(tiny, samples, "bfloat16")
    _, loss = stepped(tiny, samples, "off")
    state = low.state()
    assert {t.dtype for t in (*state.model.values(), *state.optimizer.values())} == {torch.float32}
    assert low_loss == pytest.approx(loss, abs=0.02)
    assert low_loss != loss


def test_auto_changes_nothing_on_a_cpu(tiny: Tiny, draw_samples: Draw) -> None:
    samples = draw_samples(3, 8)
    auto, off = (stepped(tiny, samples, setting)[0].state() for setting in ("auto", "off"))
    assert all(torch.equal(auto.model[name], tensor) for name, tensor in off.model.items())
