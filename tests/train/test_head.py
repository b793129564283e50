from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from swarmnode.train.batch import Sample, pack
from swarmnode.train.head import MIN_COLUMNS, head_logps
from swarmnode.train.logprob import completion_logps, measure

V, H, N = 2 * MIN_COLUMNS + 44, 8, 11  # three tiles, the last one not full


def inputs(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    hidden, weight, bias = (
        torch.randn(size, dtype=dtype, requires_grad=True) for size in ((N, H), (V, H), (V,))
    )
    # Of every tile, its first and its last column.
    targets = torch.tensor([0, 1, 127, 128, 129, 255, 256, 299, 5, 5, 298])
    return hidden, weight, bias, targets


def plain(hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, t: float) -> Tensor:
    logits = nn.functional.linear(hidden, weight, bias) / t
    return logits.log_softmax(dim=-1)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("has_bias", [True, False])
def test_gradients_pass_gradcheck(temperature: float, has_bias: bool) -> None:
    hidden, weight, bias, targets = inputs()

    def logps(*arguments: Tensor) -> Tensor:
        h, w, b = arguments if has_bias else (*arguments, None)
        return head_logps(h, w, b, targets, temperature, tile_logits=1)[0]

    given = (hidden, weight, bias) if has_bias else (hidden, weight)
    assert torch.autograd.gradcheck(logps, given, fast_mode=True)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_equals_the_full_log_softmax(temperature: float) -> None:
    hidden, weight, bias, targets = inputs()
    logps, entropies = head_logps(hidden, weight, bias, targets, temperature, tile_logits=1)
    full = plain(hidden, weight, bias, targets, temperature)
    torch.testing.assert_close(logps, full.gather(1, targets[:, None])[:, 0])
    torch.testing.assert_close(entropies, -(full.exp() * full).sum(dim=1))
    assert not entropies.requires_grad


def test_logits_far_apart_and_rising_from_tile_to_tile_do_not_overflow() -> None:
    weight = torch.linspace(-1e4, 1e4, V)[:, None]
    logps, entropies = head_logps(
        torch.ones(2, 1), weight, None, torch.tensor([V - 1, 0]), 1.0, tile_logits=1
    )
    # The last logit is 67 above the next: probability 1, and the first 20,000 below.
    torch.testing.assert_close(logps, torch.tensor([0.0, -2e4]))
    torch.testing.assert_close(entropies, torch.zeros(2), atol=1e-4, rtol=0)


def test_frozen_weights_get_no_gradient() -> None:
    hidden, weight, _, targets = inputs()
    weight = weight.detach()
    head_logps(hidden, weight, None, targets, 1.0, tile_logits=1)[0].sum().backward()
    assert hidden.grad is not None
    assert weight.grad is None


def test_bfloat16_weights_give_a_float32_softmax_and_bfloat16_gradients() -> None:
    hidden, weight, _, targets = inputs(torch.bfloat16)
    logps, _ = head_logps(hidden, weight, None, targets, 1.0, tile_logits=1)
    assert logps.dtype == torch.float32
    logps.sum().backward()
    assert (hidden.grad.dtype, weight.grad.dtype) == (torch.bfloat16, torch.bfloat16)
    exact = weight.detach().float().requires_grad_()
    full = plain(hidden.detach().float(), exact, None, targets, 1.0)
    full.gather(1, targets[:, None]).sum().backward()
    torch.testing.assert_close(weight.grad.float(), exact.grad, atol=0.05, rtol=0.05)


def test_a_model_with_several_tiles_takes_it(tiny: Callable[..., nn.Module]) -> None:
    model = tiny("llama")
    batch = pack([Sample((3, 4), (5, 6, 7), 1.0, False)], (0,), 0, torch.device("cpu"))
    masks = (batch.input_ids, batch.attention_mask, batch.completion_mask)
    shortcuts = measure(model)
    # 3 tokens of 50 logits: one tile, or two.
    whole = completion_logps(model, *masks, shortcuts=shortcuts, tile_logits=150)
    tiled = completion_logps(model, *masks, shortcuts=shortcuts, tile_logits=149)
    assert "HeadLogps" not in str(whole.logps.grad_fn)
    assert "HeadLogps" in str(tiled.logps.grad_fn)
    torch.testing.assert_close(whole.logps, tiled.logps)


class Bump(nn.Linear):
    """Not a plain linear layer."""

    def forward(self, states: Tensor) -> Tensor:
        return super().forward(states) + torch.arange(50.0)


def test_a_head_of_another_kind_is_tiled_by_rows(tiny: Callable[..., nn.Module]) -> None:
    model = tiny("llama")
    head = Bump(32, 50, bias=False)
    head.load_state_dict(model.lm_head.state_dict())
    model.lm_head = head
    batch = pack([Sample((3, 4), (5, 6, 7), 1.0, False)], (0,), 0, torch.device("cpu"))
    masks = (batch.input_ids, batch.attention_mask, batch.completion_mask)
    results = []
    for tile_logits in (1000, 60):
        found = completion_logps(model, *masks, shortcuts=measure(model), tile_logits=tile_logits)
        results.append((found.logps, torch.autograd.grad(found.logps.sum(), head.weight)[0]))
    torch.testing.assert_close(results[0], results[1])
