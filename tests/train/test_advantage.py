import math

import pytest

from swarmnode.train.advantage import ADVANTAGE_RULES, group_advantages, without_outliers


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


def test_leave_one_out_compares_with_the_others() -> None:
    # 1 − 0; 0 − 1/3 for the rest
    assert group_advantages((1.0, 0.0, 0.0, 0.0), "leave_one_out") == pytest.approx(
        (1.0, -1 / 3, -1 / 3, -1 / 3)
    )


def test_maxrl_divides_by_the_mean() -> None:
    # mean 1/4: (3/4)/(1/4) = 3. mean 3/4: (1/4)/(3/4) = 1/3, and −(3/4)/(3/4) = −1.
    assert group_advantages((1.0, 0.0, 0.0, 0.0), "maxrl") == pytest.approx((3, -1, -1, -1))
    assert group_advantages((1.0, 1.0, 1.0, 0.0), "maxrl") == pytest.approx((1 / 3,) * 3 + (-1,))


def test_maxrl_refuses_negative_rewards() -> None:
    with pytest.raises(ValueError, match="rewards ≥ 0"):
        group_advantages((1.0, -1.0), "maxrl")


def test_outliers_lose_their_advantage() -> None:
    # 11 and nineteen 1: mean 1.5, variance (9.5² + 19·0.5²)/20 = 95/20 = 4.75, σ 2.1794;
    # 9.5 lies 4.359 σ away, 0.5 lies 0.23 σ away.
    values = (11.0,) + (1.0,) * 19
    assert without_outliers(values, 3.0) == (0.0,) + (1.0,) * 19
    assert without_outliers(values, 4.3)[0] == 0.0
    assert without_outliers(values, 4.4) == values


def test_the_filter_is_off_at_zero() -> None:
    assert without_outliers((1e6,) + (0.0,) * 50, 0.0)[0] == 1e6


@pytest.mark.parametrize("rule", sorted(ADVANTAGE_RULES))
@pytest.mark.parametrize(("size", "stays"), [(10, True), (11, False)])
def test_three_sigma_drop_a_lone_success_from_eleven_completions_on(
    rule: str, size: int, stays: bool
) -> None:
    # (G − 1)/G over sqrt((G − 1)/G²) is sqrt(G − 1): 3 for G = 10, 3.16 for G = 11.
    advantages = group_advantages((1.0,) + (0.0,) * (size - 1), rule)
    # A hair over 3, as G = 10 lies on the boundary.
    assert (without_outliers(advantages * 4, 3.0 + 1e-9)[0] > 0) is stays


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_stays_for_the_trainer_to_refuse(value: float) -> None:
    assert str(without_outliers((value, 1.0), 3.0)) == str((value, 1.0))


def test_no_advantages_have_no_outliers() -> None:
    assert without_outliers((), 3.0) == ()


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
    with pytest.raises(ValueError, match=r"'median' is not one of \['leave_one_out', "):
        group_advantages((1.0, 0.0), "median")
