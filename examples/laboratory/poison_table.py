"""The table of the poisonings: which swarms are simulated, their figures and targets, as Markdown.

Every figure is computed from the runs' rows. With the defences on, a figure of an attack is the
worse one of the plain and of the adaptive attacker's mean over seeds, so none hides behind the
other; both are in the table of all cases.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, Literal

from .attacks import ATTACKS, TARGETS
from .poisoned import DEFENDED, NODES, UNDEFENDED, Case

# Seeds 31 and 32 served to build the laboratory and to settle the thresholds; none is here.
SEEDS = (41, 42, 43, 44, 45)
QUICK_SEEDS = (42,)
SHOWN_SEEDS = (42,)  # of the runs without defences: they only show that the attacks work
SHARES = {1: "25 %", 2: "50 %"}  # malicious nodes of `NODES`
ALONE, HONEST, BARE = "alone", "honest swarm", "honest swarm, no defence"
KEPT_TARGET = 0.95

Results = Mapping[tuple[str, int], Mapping[str, Any]]  # by case and seed
Comparison = Literal["<=", ">="]


@dataclass(frozen=True, slots=True)
class Measured:
    """One figure beside its target."""

    name: str
    value: float
    unit: str
    comparison: Comparison
    target: float

    @property
    def is_met(self) -> bool:
        return self.value <= self.target if self.comparison == "<=" else self.value >= self.target


def cases(seeds: Sequence[int] = SEEDS, *, quick: bool = False) -> list[tuple[Case, int]]:
    """All runs of the table, each a case and a seed; those with half of the nodes malicious first,
    as they are the hardest."""
    runs = [(case, seed) for seed in seeds for case in (*_honest(), *_attacked(seed, 2))]
    if not quick:
        runs += [(case, seed) for seed in seeds for case in _attacked(seed, 1)]
    return runs


def _honest() -> Iterator[Case]:
    yield Case(ALONE, alone=True)
    yield Case(HONEST)
    yield Case(BARE, settings=UNDEFENDED)


def _attacked(seed: int, malicious: int) -> Iterator[Case]:
    for attack in ATTACKS:
        for is_adaptive in (False, True):
            for settings in (DEFENDED, UNDEFENDED) if seed in SHOWN_SEEDS else (DEFENDED,):
                is_defended = settings is DEFENDED
                name = case_name(attack, malicious, is_adaptive=is_adaptive, defended=is_defended)
                yield Case(name, attack, is_adaptive, malicious, settings=settings)


def case_name(attack: str, malicious: int, *, is_adaptive: bool, defended: bool) -> str:
    """`phrase 50 % adaptive, defended`."""
    kind = "adaptive" if is_adaptive else "plain"
    return f"{attack} {SHARES[malicious]} {kind}, {'defended' if defended else 'no defence'}"


def figures(results: Results) -> list[Measured]:
    """The figures of the issue, as far as these results have the runs for them."""
    found = []
    for malicious, share in SHARES.items():
        rewards: list[tuple[float, float]] = []
        kept = []
        for attack in ATTACKS:
            values = []
            for is_adaptive in (False, True):
                name = case_name(attack, malicious, is_adaptive=is_adaptive, defended=True)
                seeds = _seeds(results, name)
                if not seeds:
                    continue
                values.append(fmean(effect(results, attack, name, seed) for seed in seeds))
                rewards.append(_against_alone(results, name))
                kept += [kept_share(results[name, seed]) for seed in seeds]
            if values:
                unit = "× training alone" if attack == "length" else "of completions"
                title = f"{attack}, {share} malicious, worse of plain and adaptive"
                found.append(Measured(title, max(values), unit, "<=", TARGETS[attack]))
        if rewards:
            # The case with the least margin: difference to training alone, in its standard errors.
            margin = min(_in_errors(difference, error) for difference, error in rewards)
            title = f"final reward less training alone's, {share} malicious, worst case"
            found.append(Measured(title, margin, "standard errors", ">=", -1.0))
            title = f"honest peers' text kept, {share} malicious, mean of cases"
            found.append(Measured(title, fmean(kept), "of tokens", ">=", KEPT_TARGET))
    if honest := _seeds(results, HONEST):
        kept = [kept_share(results[HONEST, seed]) for seed in honest]
        found.append(
            Measured("honest peers' text kept, honest swarm", fmean(kept), "of tokens", ">=",
                     KEPT_TARGET)
        )  # fmt: skip
    return found


def effect(results: Results, attack: str, name: str, seed: int) -> float:
    """How far the attack got in a run."""
    result = results[name, seed]
    if attack == "length":
        return float(result["tokens"]) / float(results[ALONE, seed]["tokens"])
    return float(result["rates"][attack])


def kept_share(result: Mapping[str, Any]) -> float:
    """Tokens of honest peers' right completions that were imitated, of all that would be without
    defences: what was dropped whole and what was masked is not."""
    honest = result["honest_tokens"]
    return float(honest["imitated"] / max(1, honest["all"]))


def render(results: Results, command: str, cpu_s: float) -> str:
    """The tables as Markdown."""
    lines = [
        f"Made by `{command}`; {cpu_s:.0f} CPU seconds of runs.",
        "",
        "| figure | measured | target | met |",
        "|---|---|---|---|",
    ]
    for one in figures(results):
        target = f"{one.comparison} {one.target:g}"
        met = "yes" if one.is_met else "**no**"
        lines.append(f"| {one.name} | {one.value:.4g} {one.unit} | {target} | {met} |")
    lines += [
        "",
        "All cases, mean over seeds ± standard error. Effect: of completions (of right ones for "
        "arithmetic), of training alone's tokens for length. Reward: of the last rounds; in "
        "brackets less training alone's, paired by seed.",
        "",
        "| case | seeds | effect | reward | poisoned completions trained on | honest text kept |",
        "|---|---|---|---|---|---|",
    ]
    lines += list(_rows(results))
    return "\n".join(lines) + "\n"


def _rows(results: Results) -> Iterator[str]:
    for name in dict.fromkeys(name for name, _ in results):
        seeds = _seeds(results, name)
        runs = [results[name, seed] for seed in seeds]
        attack = name.split()[0]
        effects = [effect(results, attack, name, s) for s in seeds] if attack in ATTACKS else []
        difference, error = _against_alone(results, name)
        trained = fmean(run["malicious"]["kept"] for run in runs)
        offered = fmean(sum(run["malicious"].values()) for run in runs)
        cells = [
            name,
            str(len(seeds)),
            _with_error(effects, 4) if effects else "–",
            f"{_with_error([run['reward'] for run in runs], 3)} ({difference:+.3f} ± {error:.3f})",
            f"{trained:.0f} of {offered:.0f}" if offered else "–",
            "–" if name == ALONE else f"{fmean(map(kept_share, runs)):.3f}",
        ]
        yield f"| {' | '.join(cells)} |"


def _seeds(results: Results, name: str) -> list[int]:
    return sorted(seed for case, seed in results if case == name and (ALONE, seed) in results)


def _against_alone(results: Results, name: str) -> tuple[float, float]:
    """The mean difference of final rewards to training alone, and its standard error over seeds."""
    differences = [
        results[name, seed]["reward"] - results[ALONE, seed]["reward"]
        for seed in _seeds(results, name)
    ]
    return fmean(differences), _error(differences)


def _in_errors(difference: float, error: float) -> float:
    """Without a spread, as of one seed, a fall counts as endless."""
    if error == 0:
        return 0.0 if difference == 0 else math.copysign(math.inf, difference)
    return difference / error


def _error(values: Sequence[float]) -> float:
    return stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def _with_error(values: Sequence[float], decimals: int) -> str:
    return f"{fmean(values):.{decimals}f} ± {_error(values):.{decimals}f}"


assert set(SHARES) <= set(range(NODES))
