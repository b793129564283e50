"""Group-relative advantages: how much better one completion did than its group.

Departures from the papers:

1. GRPO (arXiv 2402.03300, section 4.1.2) writes A = (r − mean) / std without saying which std.
   `mean_std` uses the sample standard deviation (divisor G − 1) plus 1e-8, because the published
   implementation of SAPO (arXiv 2509.08721) and TRL both call `torch.std`.
2. `mean` leaves the division out (Dr. GRPO, arXiv 2503.20783): dividing by the standard
   deviation weights very easy and very hard questions up.
3. Groups of one swarm may differ in size: every group is normalised by itself. A group of one, or
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
    Raises `ValueError` for an empty group, a reward that is not finite or an unknown rule.

    >>> group_advantages((1.0, 0.0, 0.0, 0.0), "mean")
    (0.75, -0.25, -0.25, -0.25)
    >>> group_advantages((1.0, 1.0, 1.0), "mean_std")
    (0.0, 0.0, 0.0)
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


# Called with at least two rewards that are not all equal.
ADVANTAGE_RULES: Mapping[str, Callable[[Sequence[float]], tuple[float, ...]]] = MappingProxyType(
    {"mean_std": _mean_std, "mean": _mean}
)
