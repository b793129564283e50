"""What is claimed of `hybrid`, and whether the table's figures bear it out. Pure.

A claim over seeds holds when the mean does and when it is so on every seed, or when the mean of the
paired differences is more than three standard errors above zero.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from .measures import mean_and_error

HYBRID, PUBLISHED, BASELINE = "hybrid 2/6", "sapo 2/6", "8/0"
SAPO_MIXES = ("sapo 6/2", "sapo 4/4", "sapo 2/6")
DYNAMIC = ("alone, filled to 8", "alone 2", "alone 2, held to 8")
REWARD, HELD_OUT = "cumulative_own_reward", "held_out"

Claim = dict[str, Any]


def claims(regimes: Mapping[str, Any]) -> list[Claim]:
    """Those of the claims that these regimes have the arms for."""
    sparse = regimes.get("sparse", {}).get("arms", {})
    found = []
    if {HYBRID, *SAPO_MIXES} <= sparse.keys():
        found.append(_at_least(sparse, REWARD, PUBLISHED, 1.15))
        for measure in (REWARD, HELD_OUT):
            best = max(SAPO_MIXES, key=lambda arm: sparse[arm][measure]["mean"])
            found.append(_at_least(sparse, measure, best, 1.0, "the best sapo mix, "))
    for arm in DYNAMIC:
        if {HYBRID, arm} <= sparse.keys():
            found.append(_at_equal_generation(sparse, arm, 1.2))
    for name, regime in regimes.items():
        if {HYBRID, BASELINE} <= regime["arms"].keys():
            found += [_not_worse(name, regime["arms"], measure) for measure in (REWARD, HELD_OUT)]
    return found


def _at_least(
    arms: Mapping[str, Any], measure: str, other: str, times: float, title: str = ""
) -> Claim:
    mine, theirs = (arms[arm][measure]["by_seed"] for arm in (HYBRID, other))
    seeds = sorted(mine.keys() & theirs.keys())
    differences = [mine[seed] - times * theirs[seed] for seed in seeds]
    mean, error = mean_and_error(differences)
    every = all(difference >= 0 for difference in differences)
    ratio = fmean(mine[s] for s in seeds) / fmean(theirs[s] for s in seeds)
    by_seed = ", ".join(f"{mine[seed] / theirs[seed]:.2f}" for seed in seeds)
    what = measure.replace("_", " ")
    return {
        "claim": f"sparse: {what} at least {times:g} × that of {title}{other}",
        "holds": mean >= 0 and (every or (error is not None and mean > 3 * error)),
        "figures": f"ratio of means {ratio:.2f}; by seed {by_seed}",
    }


def _at_equal_generation(arms: Mapping[str, Any], other: str, times: float) -> Claim:
    """Own reward over as many generated tokens as the most frugal arm of the regime generated."""
    mine, theirs = (arms[arm]["reward_at_equal_generation"]["by_seed"] for arm in (HYBRID, other))
    seeds = sorted(mine.keys() & theirs.keys())
    ratios = [mine[seed] / theirs[seed] for seed in seeds]
    return {
        "claim": f"sparse: own reward at equal generation at least {times:g} × that of {other}",
        "holds": min(ratios) >= times,
        "figures": f"mean {fmean(ratios):.2f}; by seed {_listed(ratios)}",
    }


def _not_worse(regime: str, arms: Mapping[str, Any], measure: str) -> Claim:
    found = arms[HYBRID][measure]
    difference, error = found["difference"], found["difference_error"] or 0.0
    return {
        "claim": f"{regime}: {measure.replace('_', ' ')} not below {BASELINE} by more than one "
        "standard error",
        "holds": difference >= -error,
        "figures": f"{difference:+.3f} ± {error:.3f}",
    }


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in values)
