"""Peers' completions in the loss under the hybrid rule: each switch, worked by hand."""

import math

import pytest
import torch
from torch import Tensor

from swarmnode.config import HybridSettings, TrainSettings
from swarmnode.train.batch import Sample
from swarmnode.train.foreign import foreign_advantages, foreign_terms
from swarmnode.train.loss import StepSize, step_loss
from swarmnode.train.objectives.tokens import Tokens

LONE = (1.0, 0.0, 0.0, 0.0)


def advantages(
    rewards: tuple[float, ...], own_rate: float | None = None, **switches: object
) -> tuple[float, ...]:
    plain = {"margin": 0.0, "advantage": "mean", "own_baseline": False}
    return foreign_advantages(rewards, own_rate, HybridSettings(**(plain | switches)))


def tokens(
    logps: list[float], advantages: list[float], sampler_sums: list[float], lengths: list[int]
) -> Tokens:
    """All of peers; `advantages`, `sampler_sums` and `lengths` by completion."""
    rows = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    values = torch.tensor(logps, requires_grad=True)
    return Tokens(
        logps=values,
        old_logps=values.detach(),
        sampler_logps=values.detach(),
        sampler_sums=torch.tensor(sampler_sums),
        advantages=torch.tensor(advantages)[rows],
        rows=rows,
        external=torch.ones(len(logps), dtype=torch.bool),
        lengths=torch.tensor(lengths),
    )


def gradients(found: Tokens, **switches: object) -> Tensor:
    foreign_terms(found, HybridSettings(**switches)).losses.sum().backward()
    assert found.logps.grad is not None
    return found.logps.grad


@pytest.mark.parametrize(
    ("switches", "expected"),
    [
        # mean 1/4
        ({"negatives": "drop"}, (0.75, 0.0, 0.0, 0.0)),
        ({"negatives": "keep"}, (0.75, -0.25, -0.25, -0.25)),
        ({"negatives": "taper"}, (0.75, -0.25, -0.25, -0.25)),
        ({"negatives": "keep", "margin": 0.1}, (0.85, -0.15, -0.15, -0.15)),
        # A wrong answer is never pushed up, however low the baseline.
        ({"negatives": "keep", "margin": 0.5}, (1.25, 0.0, 0.0, 0.0)),
        # sample standard deviation 0.5
        ({"negatives": "keep", "advantage": "mean_std"}, (1.5, -0.5, -0.5, -0.5)),
        ({"negatives": "keep", "advantage": "maxrl"}, (3.0, -1.0, -1.0, -1.0)),
    ],
)
def test_advantages_by_switch(switches: dict[str, object], expected: tuple[float, ...]) -> None:
    assert advantages(LONE, **switches) == pytest.approx(expected)


def test_own_baseline_lowers_and_never_raises() -> None:
    keep = {"negatives": "keep", "own_baseline": True}
    assert advantages(LONE, 0.125, **keep) == pytest.approx((0.875, -0.125, -0.125, -0.125))
    assert advantages(LONE, 0.9, **keep) == pytest.approx((0.75, -0.25, -0.25, -0.25))
    assert advantages(LONE, None, **keep) == pytest.approx((0.75, -0.25, -0.25, -0.25))


def test_a_rescued_group_is_imitated_by_its_margin() -> None:
    assert advantages((1.0, 1.0), margin=0.25) == (0.25, 0.25)
    assert advantages((0.0, 0.0), margin=0.25, negatives="keep") == (0.0, 0.0)


def test_without_switches_it_is_reinforce() -> None:
    found = tokens([-1.0, -2.0, -0.5], [2.0, -1.0], [-3.0, -0.5], [2, 1])
    assert gradients(found, negatives="keep").tolist() == [-2.0, -2.0, 1.0]


def test_taper_weighs_a_wrong_answer_by_how_likely_it_is_here() -> None:
    # log π(y): −3 against −2 for the peer, so e^−1; the second is likelier here: weight 1.
    found = tokens([-1.0, -2.0, -0.5], [-1.0, -1.0], [-2.0, -0.75], [2, 1])
    expected = [math.exp(-1), math.exp(-1), 1.0]
    assert gradients(found, negatives="taper").tolist() == pytest.approx(expected)
    right = tokens([-1.0, -2.0], [1.0], [-2.0], [2])
    assert gradients(right, negatives="taper").tolist() == [-1.0, -1.0]


def test_scaling_weighs_by_the_ratio_per_token_and_never_above_one() -> None:
    # mean gaps (−3 + 2) / 2 = −0.5 and +0.25
    found = tokens([-1.0, -2.0, -0.5], [1.0, 1.0], [-2.0, -0.75], [2, 1])
    expected = [-math.exp(-0.5), -math.exp(-0.5), -1.0]
    assert gradients(found, scaling=True).tolist() == pytest.approx(expected)


def test_what_is_too_far_from_its_sampler_is_masked_and_counted() -> None:
    found = tokens([-1.0, -2.0, -0.5], [1.0, 1.0], [-2.0, -0.75], [2, 1])
    terms = foreign_terms(found, HybridSettings(max_gap=0.4))
    assert terms.clipped.tolist() == [True, True, False]
    assert gradients(found, max_gap=0.4).tolist() == [0.0, 0.0, -1.0]
    assert gradients(tokens([-1.0, -2.0], [1.0], [-2.0], [2]), max_gap=0.6).tolist() == [-1.0, -1.0]


def test_shaping_is_luffys_on_right_answers_only() -> None:
    # d/dlog p of p / (p + γ) is p γ / (p + γ)²; p = γ = 0.1 gives 1/4.
    found = tokens([math.log(0.1), math.log(0.1)], [1.0, -1.0], [0.0, 0.0], [1, 1])
    assert gradients(found, shaping=0.1, negatives="keep").tolist() == pytest.approx([-0.25, 1.0])


@pytest.mark.parametrize(
    ("normaliser", "share", "expected"),
    [
        # One own token and two of a peer: terms 1, and 2 + 2; weight 3.
        ("separate", 1.0, 1 / 1 + 3 * 4 / 2),
        ("separate", 0.5, 1 / 1 + 0.5 * 3 * 4 / 2),
        ("joint", 1.0, (1 + 3 * 4) / 3),
        ("joint", 0.5, (1 + 0.5 * 3 * 4) / 3),
    ],
)
def test_parts_are_divided_and_weighted(normaliser: str, share: float, expected: float) -> None:
    both = Tokens(
        logps=torch.tensor([-1.0, -2.0, -2.0], requires_grad=True),
        old_logps=torch.tensor([-1.0, -2.0, -2.0]),
        sampler_logps=torch.tensor([-1.0, -2.0, -2.0]),
        sampler_sums=torch.tensor([-1.0, -4.0]),
        advantages=torch.tensor([1.0, 1.0, 1.0]),
        rows=torch.tensor([0, 1, 1]),
        external=torch.tensor([False, True, True]),
        lengths=torch.tensor([1, 2]),
    )
    size = StepSize(1, 2, 1, 1, foreign_share=share)
    foreign = HybridSettings(normaliser=normaliser, weight=3.0)
    terms = step_loss(both, size, TrainSettings(objective="cispo"), foreign=foreign)
    assert terms.loss.item() == pytest.approx(expected)


def test_a_sample_of_a_peer_may_come_without_a_stated_mean() -> None:
    assert Sample((1,), (2,), 1.0, external=True).sampler_mean_logp is None
