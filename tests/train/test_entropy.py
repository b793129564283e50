import math

import pytest
import torch
from made_tokens import made_tokens

from swarmnode.config import TrainSettings
from swarmnode.train.entropy import entropy_loss


def test_the_bonus_is_the_mean_entropy_of_own_tokens() -> None:
    tokens = made_tokens([0.3] * 3, [1.0] * 3, lengths=[2, 1], external=[False, True])
    entropies = torch.tensor([0.5, 1.5, 9.0], dtype=torch.float64)
    # −0.1 · (0.5 + 1.5)/2; the peer's token takes no part.
    loss = entropy_loss(tokens, entropies, 2, None, TrainSettings(entropy_bonus=0.1))
    assert loss.item() == pytest.approx(-0.1)
    (gradient,) = torch.autograd.grad(loss, tokens.logps)
    # −bonus · −(log π + H)/2
    expected = [0.1 * (math.log(0.3) + h) / 2 for h in (0.5, 1.5)]
    assert gradient.tolist() == pytest.approx([*expected, 0.0])


def test_the_expected_gradient_is_that_of_the_entropy() -> None:
    # Over all outcomes, weighted by their probabilities, the estimate must be ∇H exactly.
    logits = torch.tensor([0.3, -1.0, 0.8, 0.1], dtype=torch.float64, requires_grad=True)
    logps = logits.log_softmax(dim=-1)
    probabilities = logps.exp().detach()
    entropy = -(logps.exp() * logps).sum()
    (expected,) = torch.autograd.grad(entropy, logits, retain_graph=True)
    estimate = torch.zeros_like(expected)
    for token, probability in enumerate(probabilities.tolist()):
        drawn = made_tokens([probability], [0.0], old=[probability])
        settings = TrainSettings(entropy_bonus=1.0)
        loss = entropy_loss(drawn, entropy.detach()[None], 1, None, settings)
        (slope,) = torch.autograd.grad(loss, drawn.logps)
        (through,) = torch.autograd.grad(logps[token], logits, retain_graph=True)
        estimate += probability * -slope.item() * through
    torch.testing.assert_close(estimate, expected)


@pytest.mark.parametrize(
    ("entropies", "loss", "sign"),
    [
        # Past mean 1: the corridor is [0.8, 1.2]. Completion means 1.0, 0.5 and 1.5.
        ((0.9, 1.1), 0.0, 0.0),
        ((0.2, 0.8), 0.3, -1.0),
        ((1.4, 1.6), 0.3, 1.0),
    ],
)
def test_the_corridor_pulls_a_completions_entropy_back(
    entropies: tuple[float, float], loss: float, sign: float
) -> None:
    tokens = made_tokens([0.3, 0.3], [1.0, 1.0], lengths=[2])
    values = torch.tensor(entropies, dtype=torch.float64)
    settings = TrainSettings(entropy_corridor=1.0)
    terms = entropy_loss(tokens, values, 2, 1.0, settings)
    assert terms.item() == pytest.approx(loss)
    (gradient,) = torch.autograd.grad(terms, tokens.logps)
    # ± the estimate of ∇H, −(log π + H), over 2 tokens
    expected = [-sign * (math.log(0.3) + h) / 2 for h in entropies]
    assert gradient.tolist() == pytest.approx(expected)


def test_without_a_past_there_is_no_corridor() -> None:
    tokens = made_tokens([0.3], [1.0])
    values = torch.tensor([5.0], dtype=torch.float64)
    assert entropy_loss(tokens, values, 1, None, TrainSettings(entropy_corridor=1.0)).item() == 0.0


def test_later_epochs_are_weighted_by_the_ratio() -> None:
    # π/π_old = 2 doubles the gradient.
    tokens = made_tokens([0.6], [1.0], old=[0.3])
    values = torch.tensor([0.5], dtype=torch.float64)
    loss = entropy_loss(tokens, values, 1, None, TrainSettings(entropy_bonus=1.0))
    (gradient,) = torch.autograd.grad(loss, tokens.logps)
    assert gradient.tolist() == pytest.approx([2 * (math.log(0.6) + 0.5)])
