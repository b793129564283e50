"""Every number below is worked by hand with M = 4 tokens in the step, clip range [0.8, 1.28]."""

import math

import pytest
import torch
from torch import Tensor

from swarmnode.train.loss import SurrogateTerms, clipped_surrogate


def surrogate(
    ratios: list[float], advantages: list[float], step_tokens: int = 4
) -> tuple[SurrogateTerms, Tensor]:
    """The terms and the gradient with respect to the log-probabilities."""
    old_logps = torch.full((len(ratios),), math.log(0.3), dtype=torch.float64)
    logps = old_logps + torch.tensor(ratios, dtype=torch.float64).log()
    logps.requires_grad_(True)
    terms = clipped_surrogate(
        logps,
        old_logps,
        torch.tensor(advantages, dtype=torch.float64),
        step_tokens=step_tokens,
        clip_low=0.2,
        clip_high=0.28,
    )
    (gradient,) = torch.autograd.grad(terms.loss, logps)
    return terms, gradient


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient", "clipped"),
    [
        # Start of a step, ρ = 1: REINFORCE, loss −A/4 and gradient −A/4.
        (1.0, 2.0, -0.5, -0.5, 0),
        (1.0, -2.0, 0.5, 0.5, 0),
        # Inside the range: −ρA/4 = −1.2·2/4; d/dlogp is the same, as dρ/dlogp = ρ.
        (1.2, 2.0, -0.6, -0.6, 0),
        (0.9, -2.0, 0.45, 0.45, 0),
        # Dead zones. A > 0 above 1.28: min(1.5, 1.28) → −1.28/4. A < 0 below 0.8:
        # min(−0.5, −0.8) = −0.8 → 0.8/4.
        (1.5, 1.0, -0.32, 0.0, 1),
        (0.5, -1.0, 0.2, 0.0, 1),
        # The other sides stay alive: A > 0 at 0.5: min(0.5, 0.8) → −0.5/4. A < 0 at 1.5:
        # min(−1.5, −1.28) = −1.5 → 1.5/4.
        (0.5, 1.0, -0.125, -0.125, 0),
        (1.5, -1.0, 0.375, 0.375, 0),
        # The range is lopsided: 1.25 is inside (≤ 1.28), 0.75 outside (< 0.8).
        (1.25, 1.0, -0.3125, -0.3125, 0),
        (0.75, -1.0, 0.2, 0.0, 1),
        (1.5, 0.0, 0.0, 0.0, 0),
    ],
)
def test_one_token(
    ratio: float, advantage: float, loss: float, gradient: float, clipped: int
) -> None:
    terms, gradients = surrogate([ratio], [advantage])
    assert terms.loss.item() == pytest.approx(loss, abs=1e-12)
    assert gradients.tolist() == pytest.approx([gradient], abs=1e-12)
    assert terms.clipped_tokens.item() == clipped


def test_micro_batches_add_up_to_the_token_mean_of_the_step() -> None:
    # −(1·1 + 1·1 + 1·1 − 1·2)/4 = −0.25: a completion's weight is its number of tokens.
    whole, _ = surrogate([1.0] * 4, [1.0, 1.0, 1.0, -2.0])
    first, _ = surrogate([1.0] * 3, [1.0, 1.0, 1.0])
    second, _ = surrogate([1.0], [-2.0])
    assert whole.loss.item() == pytest.approx(-0.25)
    assert (first.loss + second.loss).item() == pytest.approx(-0.25)


def test_a_token_of_vanishing_old_probability_does_not_overflow() -> None:
    logps = torch.tensor([-0.1], requires_grad=True)
    terms = clipped_surrogate(
        logps,
        torch.tensor([-200.0]),
        torch.tensor([-1.0]),
        step_tokens=1,
        clip_low=0.2,
        clip_high=0.28,
    )
    # min(−e^20, −1.28) = −e^20; without the bound e^199.9 is infinite in float32.
    assert terms.loss.item() == pytest.approx(math.exp(20), rel=1e-5)
    assert torch.autograd.grad(terms.loss, logps)[0].item() == 0.0


def test_old_log_probabilities_are_constants() -> None:
    logps = torch.tensor([-1.0, -2.0], requires_grad=True)
    terms = clipped_surrogate(
        logps, logps, torch.tensor([1.0, 1.0]), step_tokens=2, clip_low=0.2, clip_high=0.28
    )
    # Were old_logps differentiated too, ρ would be the constant 1 and the gradient zero.
    assert torch.autograd.grad(terms.loss, logps)[0].tolist() == [-0.5, -0.5]
