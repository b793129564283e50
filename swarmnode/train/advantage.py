"""Group-relative advantages: how much better one completion did than its group.

Departures from the papers:

1. GRPO (arXiv 2402.03300, section 4.1.2) writes A = (r − mean) / std without saying which std.
   `mean_std` uses the sample standard deviation (divisor G − 1) plus 1e-8, because the published
   implementation of SAPO (arXiv 2509.08721) and TRL both call `torch.std`.
2. `mean` leaves the division out (Dr. GRPO, arXiv 2503.20783): dividing by the standard
   deviation weights very easy and very hard questions up.
3. `leave_one_out` takes the mean of the *other* completions as the baseline (RLOO,
   arXiv 2402.14740), which makes the estimate unbiased; it is `mean` times G / (G − 1).
4. `maxrl` divides by the mean (MaxRL, arXiv 2602.02710; checked against its code), without the 1e-6
   added there: the mean of 0/1 rewards that are not all equal is at least 1/G. A lone success of G
   gets G − 1, where `mean_std` gives it about the square root of G.
5. Groups of one swarm may differ in size: every group is normalised by itself. A group of one, or
   with equal rewards, has no signal. Its advantages are exactly 0.0, not the rounding error of
   r − mean, so the caller can drop and count it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

# Added to the standard deviation. Only a guard here: the smallest standard deviation of a group
# with 0/1 rewards is sqrt(1/G), far above it.
STD_FLOOR = 1e-8


def group_advantages(rewards: Sequence[float], rule: str) -> tuple[float, ...]:
    """The advantages of one group's completions, in the order of `rewards` (length G ≥ 1).

    `rule` is a name in `ADVANTAGE_RULES`. Equal rewards give zeros.
    Raises `ValueError` for an empty group, a reward that is not finite, an unknown rule, and for
    negative rewards under `maxrl`.

    >>> group_advantages((1.0, 0.0, 0.0, 0.0), "mean")
    (0.75, -0.25, -0.25, -0.25)
    >>> group_advantages((1.0, 1.0, 1.0), "mean_std")
    (0.0, 0.0, 0.0)
    >>> group_advantages((1.0, 0.0, 0.0, 0.0), "maxrl")
    (3.0, -1.0, -1.0, -1.0)
    """
    if rule not in ADVANTAGE_RULES:
        raise ValueError(f"advantage rule {rule!r} is not one of {sorted(ADVANTAGE_RULES)}")
    if not rewards:
        raise ValueError("a group has at least one completion")
    if not all(math.isfinite(reward) for reward in rewards):
        raise ValueError(f"rewards must be finite, got {tuple(rewards)}")
    if len(set(rewards)) == 1:
        return (0.0,) * len(rewards)
    return ADVANTAGE_RULES[rule](rewards)


def without_outliers(advantages: Sequence[float], sigmas: float) -> tuple[float, ...]:
    """The advantages of one step, with 0.0 for those farther than `sigmas` σ from their mean.

    σ is the standard deviation over the step (divisor: the number of advantages). 0 switches the
    filter off. After StableReinforce (arXiv 2505.02835), whose filter keeps 3 σ; unlike there the
    advantages that stay are not normalised anew.

    The filter has a price: where every group of G completions has one success, that success lies
    sqrt(G − 1) σ from the mean under every rule, so from G = 11 on 3 σ drop exactly what is to be
    learnt.

    >>> without_outliers((1.0,) + (0.0,) * 10, 3.0)[0]
    0.0
    >>> without_outliers((1.0,) + (0.0,) * 8, 3.0)[0]
    1.0
    """
    values = tuple(advantages)
    if sigmas == 0 or not values or not all(math.isfinite(value) for value in values):
        return values  # what is not finite is the trainer's to refuse
    mean = math.fsum(values) / len(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / len(values)
    limit = sigmas * math.sqrt(variance)
    return tuple(0.0 if abs(value - mean) > limit else value for value in values)


def _mean_std(rewards: Sequence[float]) -> tuple[float, ...]:
    """(r − mean) / (std + 1e-8) with the sample standard deviation."""
    centred = _mean(rewards)
    variance = math.fsum(c * c for c in centred) / (len(centred) - 1)
    scale = math.sqrt(variance) + STD_FLOOR
    return tuple(c / scale for c in centred)


def _mean(rewards: Sequence[float]) -> tuple[float, ...]:
    """r − mean."""
    mean = math.fsum(rewards) / len(rewards)
    return tuple(reward - mean for reward in rewards)


def _leave_one_out(rewards: Sequence[float]) -> tuple[float, ...]:
    """r − mean of the others."""
    scale = len(rewards) / (len(rewards) - 1)
    return tuple(scale * c for c in _mean(rewards))


def _maxrl(rewards: Sequence[float]) -> tuple[float, ...]:
    """(r − mean) / mean."""
    if min(rewards) < 0:
        raise ValueError(f"maxrl needs rewards ≥ 0, got {tuple(rewards)}")
    mean = math.fsum(rewards) / len(rewards)
    return tuple(c / mean for c in _mean(rewards))


# Called with at least two rewards that are not all equal.
ADVANTAGE_RULES: Mapping[str, Callable[[Sequence[float]], tuple[float, ...]]] = MappingProxyType(
    {
        "mean_std": _mean_std,
        "mean": _mean,
        "leave_one_out": _leave_one_out,
        "maxrl": _maxrl,
    }
)
