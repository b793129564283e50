"""Every objective's terms, gradients and clipped tokens, by hand.

A gradient is that of the sum of the terms with respect to log π; dρ/d log π = ρ. Where nothing else
is said, the policy before the step gave the token 0.3.
"""

import math
from typing import get_args, get_type_hints

import pytest
import torch
from made_tokens import made_tokens

from swarmnode.config import TrainSettings
from swarmnode.train.objectives.table import OBJECTIVES
from swarmnode.train.objectives.tokens import Tokens

LN3 = math.log(3)


def outcome(
    objective: str, tokens: Tokens, **settings: float
) -> tuple[list[float], list[float], list[bool]]:
    terms = OBJECTIVES[objective].terms(tokens, TrainSettings(**settings))
    (gradient,) = torch.autograd.grad(terms.losses.sum(), tokens.logps)
    return terms.losses.tolist(), gradient.tolist(), terms.clipped.tolist()


def check_one(
    objective: str,
    tokens: Tokens,
    loss: float,
    gradient: float,
    clipped: bool,
) -> None:
    losses, gradients, stopped = outcome(objective, tokens)
    assert losses == pytest.approx([loss], abs=1e-9)
    assert gradients == pytest.approx([gradient], abs=1e-9)
    assert stopped == [clipped]


def test_the_table_has_what_the_settings_allow() -> None:
    assert tuple(OBJECTIVES) == get_args(get_type_hints(TrainSettings)["objective"])


@pytest.mark.parametrize("objective", ["dapo", "dr_grpo"])
@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient", "clipped"),
    [
        # Start of a step, ρ = 1: REINFORCE.
        (1.0, 2.0, -2.0, -2.0, False),
        (1.0, -2.0, 2.0, 2.0, False),
        # Inside [0.8, 1.28].
        (1.2, 2.0, -2.4, -2.4, False),
        (0.9, -2.0, 1.8, 1.8, False),
        # Dead zones: min(1.5, 1.28) = 1.28; min(−0.5, −0.8) = −0.8.
        (1.5, 1.0, -1.28, 0.0, True),
        (0.5, -1.0, 0.8, 0.0, True),
        # The other sides stay alive: min(0.5, 0.8) = 0.5; min(−1.5, −1.28) = −1.5.
        (0.5, 1.0, -0.5, -0.5, False),
        (1.5, -1.0, 1.5, 1.5, False),
        # The range is lopsided: 1.25 is inside, 0.75 outside.
        (1.25, 1.0, -1.25, -1.25, False),
        (0.75, -1.0, 0.8, 0.0, True),
        (1.5, 0.0, 0.0, 0.0, False),
    ],
)
def test_clipped_surrogate(
    objective: str, ratio: float, advantage: float, loss: float, gradient: float, clipped: bool
) -> None:
    check_one(objective, made_tokens([0.3 * ratio], [advantage]), loss, gradient, clipped)


def test_gspo_has_one_ratio_per_completion() -> None:
    # First completion: ratios 4 and 1, s = sqrt(4) = 2 > 1.28, A = 1: clipped, both tokens −1.28.
    # Second: ratios 1.44 and 1, s = 1.2, A = 1: −1.2 at both tokens. The sum of the two terms is
    # −2s, ds/d log π = s/2: gradient −s = −1.2 at each, and half of it after the mean over tokens.
    # Third: s = 2 again, A = −1: min(−2, −1.28) = −2, alive: term 2, gradient 2.
    tokens = made_tokens(
        [0.8, 0.2, 0.288, 0.2, 0.8, 0.2],
        [1.0, 1.0, 1.0, 1.0, -1.0, -1.0],
        old=[0.2] * 6,
        lengths=[2, 2, 2],
    )
    losses, gradients, clipped = outcome("gspo", tokens, gspo_clip_low=0.2, gspo_clip_high=0.28)
    assert losses == pytest.approx([-1.28, -1.28, -1.2, -1.2, 2.0, 2.0])
    assert gradients == pytest.approx([0, 0, -1.2, -1.2, 2.0, 2.0], abs=1e-12)
    assert clipped == [True, True, False, False, False, False]


def test_gspo_by_default_clips_where_a_token_ratio_would_not() -> None:
    # log-ratios 0.001 and 0: s = e^0.0005 = 1.0005 > 1.0004.
    tokens = made_tokens([0.3 * math.exp(0.001), 0.3], [1.0, 1.0], lengths=[2])
    losses, gradients, clipped = outcome("gspo", tokens)
    assert losses == pytest.approx([-1.0004, -1.0004])
    assert (gradients, clipped) == ([0.0, 0.0], [True, True])


@pytest.mark.parametrize(
    ("old", "new", "advantage", "loss", "gradient", "clipped"),
    [
        # ρ = 2: weight 2, −2 · 1 · ln 0.6; dapo would have stopped this token.
        (0.3, 0.6, 1.0, -2 * math.log(0.6), -2.0, False),
        (0.3, 0.6, -1.0, 2 * math.log(0.6), 2.0, False),
        # ρ = 6 is cut to 5, and the token still learns.
        (0.1, 0.6, 1.0, -5 * math.log(0.6), -5.0, True),
        (0.1, 0.6, -1.0, 5 * math.log(0.6), 5.0, True),
        # ρ = 0.1: no bound from below.
        (0.5, 0.05, -1.0, 0.1 * math.log(0.05), 0.1, False),
    ],
)
def test_cispo_bounds_the_weight_only(
    old: float, new: float, advantage: float, loss: float, gradient: float, clipped: bool
) -> None:
    check_one("cispo", made_tokens([new], [advantage], old=[old]), loss, gradient, clipped)


@pytest.mark.parametrize(
    ("sampler", "new", "advantage", "loss", "gradient", "clipped"),
    [
        # 0.3 → 0.45 is a change of 0.15 ≤ 0.2, though the ratio is 1.5.
        (0.3, 0.45, 1.0, -1.5, -1.5, False),
        # 0.3 → 0.6: further away by more than 0.2, stopped; back towards μ it is alive.
        (0.3, 0.6, 1.0, 0.0, 0.0, True),
        (0.3, 0.6, -1.0, 2.0, 2.0, False),
        # 0.3 → 0.06: a change of 0.24 the other way.
        (0.3, 0.06, -1.0, 0.0, 0.0, True),
        (0.3, 0.06, 1.0, -0.2, -0.2, False),
        # A rare token may grow tenfold.
        (0.001, 0.01, 1.0, -10.0, -10.0, False),
    ],
)
def test_dppo_masks_by_the_change_of_probability(
    sampler: float, new: float, advantage: float, loss: float, gradient: float, clipped: bool
) -> None:
    # The policy before the step is the new one: only the sampler counts.
    tokens = made_tokens([new], [advantage], old=[new], sampler=[sampler])
    check_one("dppo_tv", tokens, loss, gradient, clipped)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient"),
    [
        # σ(0) = 1/2: 4 · 1/2 = 2; σ' = 1/4, so the gradient is 4 · 1/4 · ρA = A.
        (1.0, 1.0, -2.0, -1.0),
        (1.0, -1.0, 2 / 1.05, 1.0),
        # τ(ρ − 1) = ln 3: σ = 3/4, σ' = 3/16; gradient 4 · 3/16 · ρA = 3/4 ρA.
        (1 + LN3, 1.0, -3.0, -0.75 * (1 + LN3)),
        (1 + LN3 / 1.05, -1.0, 3 / 1.05, 0.75 * (1 + LN3 / 1.05)),
        (1.0, 0.0, 0.0, 0.0),
    ],
)
def test_soft_gate_fades_instead_of_clipping(
    ratio: float, advantage: float, loss: float, gradient: float
) -> None:
    check_one("soft_gate", made_tokens([0.3 * ratio], [advantage]), loss, gradient, False)


def test_topr_tapers_negative_completions_as_a_whole() -> None:
    # Completions of two tokens. μ: 0.5, 0.4. π(y)/μ(y):
    # 1. π 0.25, 0.2 → 1/4, A = −1: both tokens weigh 1/4.
    # 2. the same with A = 1: weight 1.
    # 3. π 0.25, 0.8 → 1/2 · 2 = 1, A = −1: weight 1, though the first token alone is at 1/2.
    # 4. π 0.9, 0.9 → above 1, A = −1: weight 1.
    probabilities = [0.25, 0.2, 0.25, 0.2, 0.25, 0.8, 0.9, 0.9]
    tokens = made_tokens(
        probabilities,
        [-1.0, -1.0, 1.0, 1.0, -1.0, -1.0, -1.0, -1.0],
        sampler=[0.5, 0.4] * 4,
        lengths=[2] * 4,
    )
    losses, gradients, clipped = outcome("topr", tokens)
    assert gradients == pytest.approx([0.25, 0.25, -1.0, -1.0, 1.0, 1.0, 1.0, 1.0])
    # −αA log π
    expected = [g * math.log(p) for g, p in zip(gradients, probabilities, strict=True)]
    assert losses == pytest.approx(expected)
    assert not any(clipped)


@pytest.mark.parametrize(
    ("sampler", "ratio", "advantage", "loss", "gradient", "clipped"),
    [
        # w = 0.3 / 0.2 = 1.5.
        (0.2, 1.2, 1.0, -1.8, -1.8, False),
        (0.2, 1.5, 1.0, -1.5 * 1.28, 0.0, True),
        (0.2, 0.5, -1.0, 1.5 * 0.8, 0.0, True),
        (0.2, 1.5, -1.0, 2.25, 2.25, False),
        # w = 0.3 / 0.6 = 0.5.
        (0.6, 1.2, 1.0, -0.6, -0.6, False),
        # w = 0.3 / 0.05 = 6 > 5: left out.
        (0.05, 1.0, 1.0, 0.0, 0.0, True),
    ],
)
def test_decoupled_clips_against_the_start_and_weighs_against_the_sampler(
    sampler: float, ratio: float, advantage: float, loss: float, gradient: float, clipped: bool
) -> None:
    tokens = made_tokens([0.3 * ratio], [advantage], sampler=[sampler])
    check_one("decoupled", tokens, loss, gradient, clipped)


@pytest.mark.parametrize("objective", sorted(OBJECTIVES))
@pytest.mark.parametrize("advantage", [1.0, -1.0])
def test_on_policy_every_objective_is_reinforce(objective: str, advantage: float) -> None:
    tokens = made_tokens([0.3, 0.3, 0.3], [advantage] * 3, lengths=[2, 1])
    _, gradients, clipped = outcome(objective, tokens)
    assert gradients == pytest.approx([-advantage] * 3)
    assert not any(clipped)


@pytest.mark.parametrize("objective", sorted(OBJECTIVES))
def test_old_log_probabilities_are_constants(objective: str) -> None:
    # Were log π_old the same differentiable tensor, ρ would be the constant 1 in its gradient.
    tokens = made_tokens([0.3, 0.5], [1.0, 1.0], old=[0.3, 0.5])
    assert not tokens.old_logps.requires_grad
    assert outcome(objective, tokens)[1] == pytest.approx([-1.0, -1.0])


@pytest.mark.parametrize(
    "objective", [name for name in sorted(OBJECTIVES) if name not in ("cispo", "topr", "dppo_tv")]
)
def test_the_pre_clip_keeps_one_broken_token_from_overflowing(objective: str) -> None:
    # log ρ = −0.1 + 200 in float32, A = −1: without the bound e^199.9 is infinite.
    tokens = as_float32(made_tokens([math.exp(-0.1)], [-1.0], old=[math.exp(-200)]))
    losses, gradients, _ = outcome(objective, tokens)
    assert math.isfinite(losses[0])
    assert gradients == [0.0]


def test_the_bound_of_the_pre_clip_is_a_setting() -> None:
    # StableReinforce's ln 1000: ρ = 0.9 / 0.0001 = 9000 is held at 1000, min(−1000, −1.28) = −1000.
    tokens = made_tokens([0.9], [-1.0], old=[0.0001])
    assert outcome("dapo", tokens)[0] == pytest.approx([9000.0])
    losses, gradients, _ = outcome("dapo", tokens, max_log_ratio=math.log(1000))
    assert losses == pytest.approx([1000.0])
    assert gradients == [0.0]


def as_float32(tokens: Tokens) -> Tokens:
    return Tokens(
        logps=tokens.logps.detach().float().requires_grad_(True),
        old_logps=tokens.old_logps.float(),
        sampler_logps=tokens.sampler_logps.float(),
        sampler_sums=tokens.sampler_sums.float(),
        advantages=tokens.advantages.float(),
        rows=tokens.rows,
        external=tokens.external,
        lengths=tokens.lengths,
    )
