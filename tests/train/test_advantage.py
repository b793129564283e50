import math

import pytest

from swarmnode.train.advantage import ADVANTAGE_RULES, group_advantages


def test_mean_std_divides_by_the_sample_standard_deviation() -> None:
    # mean 1/4; squares 9/16 + 3·1/16 = 12/16; / (4 − 1) = 1/4; std 1/2; (3/4)/(1/2) = 1.5
    # (the population std, sqrt(3)/4, would give 1.732)
    assert group_advantages((1.0, 0.0, 0.0, 0.0), "mean_std") == pytest.approx(
        (1.5, -0.5, -0.5, -0.5), rel=1e-7
    )


def test_mean_only_subtracts() -> None:
    # mean 2/3
    assert group_advantages((1.0, 1.0, 0.0), "mean") == pytest.approx((1 / 3, 1 / 3, -2 / 3))


def test_two_completions_that_differ_get_opposite_advantages() -> None:
    # mean 1/2; squares 1/4 + 1/4; / 1 = 1/2; 0.5 / sqrt(0.5) = 0.7071
    assert group_advantages((0.0, 1.0), "mean_std") == pytest.approx(
        (-math.sqrt(0.5), math.sqrt(0.5))
    )


@pytest.mark.parametrize("rule", sorted(ADVANTAGE_RULES))
@pytest.mark.parametrize("reward", [0.0, 1.0, 0.1, 1 / 3])
@pytest.mark.parametrize("size", [1, 3, 7, 10])
def test_equal_rewards_give_exact_zeros(rule: str, reward: float, size: int) -> None:
    # 0.1 + 0.1 + 0.1 is 0.30000000000000004, so r − mean alone would leave a rounding error,
    # which mean_std would divide by its own size.
    assert group_advantages((reward,) * size, rule) == (0.0,) * size


@pytest.mark.parametrize("rule", sorted(ADVANTAGE_RULES))
def test_advantages_sum_to_zero(rule: str) -> None:
    advantages = group_advantages((0.2, 0.9, 0.0, 0.4, 1.0), rule)
    assert math.fsum(advantages) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("rewards", [(), (math.nan, 1.0), (math.inf, 0.0)])
def test_rejects_no_rewards_and_rewards_that_are_not_finite(rewards: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"at least one|finite"):
        group_advantages(rewards, "mean")


def test_rejects_an_unknown_rule() -> None:
    with pytest.raises(ValueError, match=r"'median' is not one of \['mean', 'mean_std'\]"):
        group_advantages((1.0, 0.0), "median")
