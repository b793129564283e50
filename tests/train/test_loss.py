"""How an objective's terms become the step's loss: divisors, own and peers' parts, KL."""

import math
from collections.abc import Sequence

import pytest
import torch
from made_tokens import made_tokens
from torch import Tensor

from swarmnode.config import TrainSettings
from swarmnode.train.batch import Sample, pack
from swarmnode.train.loss import (
    LossTerms,
    StepSize,
    engine_weights,
    reference_kl,
    step_loss,
    step_size,
    tokens_of,
)
from swarmnode.train.objectives.table import OBJECTIVES

CPU = torch.device("cpu")
EXTERNAL = [False, True]


def two_completions(probability: float = 0.3) -> dict[str, object]:
    """An own completion of 3 tokens with A = 1, a peer's of 1 token with A = −2."""
    return {
        "probabilities": [probability] * 4,
        "advantages": [1.0, 1.0, 1.0, -2.0],
        "lengths": [3, 1],
        "external": EXTERNAL,
    }


SIZE = StepSize(own_tokens=3, external_tokens=1, own_completions=1, external_completions=1)


def loss_of(objective: str = "dapo", **settings: object) -> float:
    tokens = made_tokens(**two_completions())
    return step_loss(tokens, SIZE, TrainSettings(objective=objective, **settings)).loss.item()


def test_by_default_one_mean_over_all_tokens() -> None:
    # −(3 · 1 − 2)/4
    assert loss_of() == pytest.approx(-0.25)


@pytest.mark.parametrize(("weight", "loss"), [(1.0, 1.0), (0.5, 0.0), (0.0, -1.0)])
def test_separate_parts_have_their_own_divisors(weight: float, loss: float) -> None:
    # own −3/3 = −1; peers' 2/1 = 2, times λ
    assert loss_of(external_weight=weight) == pytest.approx(loss)


def test_a_mean_over_completions_weighs_short_and_long_ones_alike() -> None:
    # soft_gate at ρ = 1: −2A for A > 0, −(2/1.05)A else. Joint: (−2 + 4/1.05)/2.
    assert loss_of("soft_gate") == pytest.approx((-2 + 4 / 1.05) / 2)
    # Separate: −2/1 + 0.5 · (4/1.05)/1
    assert loss_of("soft_gate", external_weight=0.5) == pytest.approx(-2 + 2 / 1.05)


def test_dr_grpo_divides_by_a_constant_length() -> None:
    # −(3 − 2)/(2 completions · 10)
    assert loss_of("dr_grpo", length_tokens=10) == pytest.approx(-0.05)
    # −3/(1 · 10) + 1 · 2/(1 · 10)
    assert loss_of("dr_grpo", length_tokens=10, external_weight=1.0) == pytest.approx(-0.1)


@pytest.mark.parametrize("objective", sorted(OBJECTIVES))
@pytest.mark.parametrize("external", [False, True])
def test_a_step_of_one_part_only_has_no_other(objective: str, external: bool) -> None:
    tokens = made_tokens([0.3, 0.3], [1.0, -2.0], external=[external] * 2)
    counts = (0, 2, 0, 2) if external else (2, 0, 2, 0)
    joint = step_loss(tokens, StepSize(*counts), TrainSettings(objective=objective))
    settings = TrainSettings(objective=objective, external_weight=1.0)
    assert step_loss(tokens, StepSize(*counts), settings).loss.item() == joint.loss.item()


@pytest.mark.parametrize(
    ("limit", "loss"),
    [
        # −(0.5 + 2 + 1 − 2)/4: the second own token's ratio of 3 is cut, the peer's counts as 1
        (2.0, -0.375),
        (4.0, -0.625),  # −(0.5 + 3 + 1 − 2)/4
        (0.0, -0.25),  # switched off: the mismatch goes into the gradient as it is
        (None, -0.25),
    ],
)
def test_own_tokens_are_weighted_by_what_their_engine_departs(
    limit: float | None, loss: float
) -> None:
    # π_old = 0.3 everywhere
    tokens = made_tokens(**two_completions(), sampler=[0.6, 0.1, 0.3, 0.05])
    settings = TrainSettings(engine_max_weight=limit)
    assert step_loss(tokens, SIZE, settings).loss.item() == pytest.approx(loss)


def test_the_engines_weight_brings_back_the_policys_own_gradient() -> None:
    # A vocabulary of two, π = (0.3, 0.7), rewards 1 and 0. The engine draws with μ = (0.6, 0.4).
    # Exact gradient of the expected reward to log π of the first token: 0.3 · 1.
    def gradient(limit: float | None) -> float:
        tokens = made_tokens([0.3, 0.7], [1.0, 0.0], old=[0.3, 0.7], sampler=[0.6, 0.4])
        settings = TrainSettings(engine_max_weight=limit)
        # 6 of 10 draws are the first token.
        drawn = [0.6, 0.4]
        terms = OBJECTIVES["dapo"].terms(tokens, settings).losses
        if limit is not None:
            terms = terms * engine_weights(tokens, limit)
        (terms * torch.tensor(drawn, dtype=torch.float64)).sum().backward()
        assert tokens.logps.grad is not None
        return -float(tokens.logps.grad[0])

    assert gradient(2.0) == pytest.approx(0.3)
    assert gradient(None) == pytest.approx(0.6)


@pytest.mark.parametrize("objective", sorted(OBJECTIVES))
def test_an_objective_that_corrects_for_the_sampler_itself_is_not_weighted_twice(
    objective: str,
) -> None:
    losses = [
        step_loss(
            made_tokens([0.3, 0.3], [1.0, -2.0], sampler=[0.5, 0.25]),
            StepSize(2, 0, 2, 0),
            TrainSettings(objective=objective, engine_max_weight=limit),
        ).loss.item()
        for limit in (0.0, 2.0)
    ]
    assert (losses[0] == losses[1]) == OBJECTIVES[objective].reads_sampler


def former_loss(tokens: object, step_tokens: int) -> Tensor:
    """The one objective there was before the table, as it was written."""
    log_ratio = (tokens.logps - tokens.old_logps.detach()).clamp(-20.0, 20.0)
    ratio = log_ratio.exp()
    objective = ratio * tokens.advantages
    clipped_objective = ratio.clamp(1 - 0.2, 1 + 0.28) * tokens.advantages
    return -torch.minimum(objective, clipped_objective).sum() / step_tokens


def test_dapo_is_bit_for_bit_what_it_was() -> None:
    generator = torch.Generator().manual_seed(1)
    draws = torch.rand(400, generator=generator, dtype=torch.float64)
    advantages = torch.randn(400, generator=generator, dtype=torch.float64).tolist()
    tokens = made_tokens(draws.tolist(), advantages, external=[i % 3 == 0 for i in range(400)])
    terms = step_loss(tokens, StepSize(266, 134, 266, 134), TrainSettings())
    former = former_loss(tokens, 400)
    assert terms.loss.item() == former.item()
    (gradient,) = torch.autograd.grad(terms.loss, tokens.logps)
    (former_gradient,) = torch.autograd.grad(former, tokens.logps)
    assert torch.equal(gradient, former_gradient)
    assert 0 < terms.clipped_tokens.item() < 400


@pytest.mark.parametrize("objective", sorted(OBJECTIVES))
@pytest.mark.parametrize("external_weight", [None, 0.5])
def test_micro_batches_add_up(objective: str, external_weight: float | None) -> None:
    settings = TrainSettings(objective=objective, external_weight=external_weight, kl_weight=0.1)

    def part(rows: Sequence[int]) -> LossTerms:
        lengths, external = [3, 1, 2], [False, True, True]
        probabilities = [[0.4, 0.1, 0.5], [0.6], [0.2, 0.35]]
        samplers = [[0.3, 0.2, 0.5], [0.3], [0.3, 0.3]]
        advantages = [[1.5] * 3, [-1.0], [-0.5] * 2]
        tokens = made_tokens(
            [x for i in rows for x in probabilities[i]],
            [x for i in rows for x in advantages[i]],
            sampler=[x for i in rows for x in samplers[i]],
            lengths=[lengths[i] for i in rows],
            external=[external[i] for i in rows],
        )
        return step_loss(tokens, StepSize(3, 3, 1, 2), settings, tokens.old_logps)

    whole, pieces = part([0, 1, 2]), [part([2]), part([0, 1])]
    assert sum(p.loss.item() for p in pieces) == pytest.approx(whole.loss.item(), rel=1e-12)
    assert sum(p.clipped_tokens.item() for p in pieces) == whole.clipped_tokens.item()
    assert sum(p.reference_kl.item() for p in pieces) == pytest.approx(whole.reference_kl.item())


def test_reference_kl_is_least_at_the_reference_and_pulls_back_to_it() -> None:
    logps = torch.tensor([0.2, 0.4, 0.1], dtype=torch.float64).log().requires_grad_(True)
    reference = torch.tensor([0.2] * 3, dtype=torch.float64).log()
    kl = reference_kl(logps, reference, 20.0)
    # r = π_ref/π: r − ln r − 1. 1: 0. 1/2: −0.5 + ln 2. 2: 1 − ln 2.
    assert kl.tolist() == pytest.approx([0.0, math.log(2) - 0.5, 1 - math.log(2)])
    # d/d log π = 1 − r: up where the policy is too likely (descent lowers it), down where not.
    assert torch.autograd.grad(kl.sum(), logps)[0].tolist() == pytest.approx([0.0, 0.5, -1.0])


def test_the_kl_term_shares_the_objectives_divisors() -> None:
    # dapo at ρ = 1 with A as above, −0.25, plus 0.1 times the mean of ln 2 − 0.5 over 4 tokens;
    # the reference gives 0.15 to each token.
    tokens = made_tokens(**two_completions())
    reference = torch.full((4,), math.log(0.15), dtype=torch.float64)
    settings = TrainSettings(kl_weight=0.1)
    terms = step_loss(tokens, SIZE, settings, reference)
    assert terms.loss.item() == pytest.approx(-0.25 + 0.1 * (math.log(2) - 0.5))
    assert terms.reference_kl.item() == pytest.approx(4 * (math.log(2) - 0.5))
    # Without a reference the weight is idle.
    assert step_loss(tokens, SIZE, settings).loss.item() == pytest.approx(-0.25)


def test_step_size_counts_own_and_peers_apart() -> None:
    samples = [
        Sample((3,), (4, 5, 6), 1.0, external=False),
        Sample((3,), (7,), -2.0, external=True),
        Sample((3,), (7, 8), -2.0, external=True),
    ]
    assert step_size(samples) == StepSize(3, 3, 1, 2)


def test_tokens_take_the_samplers_log_probabilities_where_they_are_known() -> None:
    samples = [
        Sample((3,), (4, 5), 1.0, external=False, sampler_logps=(-0.5, -0.25)),
        Sample((3,), (4,), 2.0, external=False),
        Sample((3,), (4, 5, 6), -1.0, external=True, sampler_mean_logp=-0.75),
        Sample((3,), (4, 5), -2.0, external=True),
    ]
    batch = pack(samples, (0, 1, 2, 3), 0, CPU)
    old = torch.tensor([-1.0, -2.0, -3.0, -4.0, -5.0, -6.0, -7.0, -8.0])
    tokens = tokens_of(batch, old.clone().requires_grad_(True), old)
    assert tokens.sampler_logps.tolist() == [-0.5, -0.25, -3.0, -4.0, -5.0, -6.0, -7.0, -8.0]
    # Own: −0.5 − 0.25; unknown: −3. Stated: 3 · −0.75, not −4 − 5 − 6. Not stated: −7 − 8.
    assert tokens.sampler_sums.tolist() == [-0.75, -3.0, -2.25, -15.0]
    assert tokens.advantages.tolist() == [1.0, 1.0, 2.0, -1.0, -1.0, -1.0, -2.0, -2.0]
    assert tokens.external.tolist() == [False] * 3 + [True] * 5
    assert tokens.lengths.tolist() == [2, 1, 3, 2]


def test_a_peers_statement_cannot_raise_a_weight_above_todays() -> None:
    # topr on a negative completion: stated log μ far below ours gives α = 1, far above α ≈ 0.
    def gradient(stated: float) -> float:
        sample = Sample((3,), (4,), -1.0, external=True, sampler_mean_logp=stated)
        logps = torch.tensor([-2.0], requires_grad=True)
        tokens = tokens_of(pack([sample], (0,), 0, CPU), logps, logps)
        loss = step_loss(tokens, StepSize(0, 1, 0, 1), TrainSettings(objective="topr")).loss
        return torch.autograd.grad(loss, logps)[0].item()

    assert gradient(-1e9) == pytest.approx(1.0)
    assert gradient(-2.0 + math.log(4)) == pytest.approx(0.25)
    assert gradient(1e9) == 0.0
