"""All finished runs below a folder → `summary.json` and `sapo.md`, from their rows alone.

Every number is computed anew from the JSONL at every call. Differences are paired by seed, the arm
less the baseline of the same regime and seed; their standard error is over seeds.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .claims import claims
from .measures import held_out_at, mean_and_error, reward_at, run_measures
from .runs import Finished, read_run
from .settings import ABLATED, ABLATIONS, BASELINE, Run

Measures = dict[str, float | None]
# Columns of the main table: key, title, decimals.
_COLUMNS = (
    ("cumulative_own_reward", "cumulative own reward", 2),
    ("worst_node", "worst node", 2),
    ("held_out", "held-out", 3),
    ("held_out_worst_node", "held-out, worst node", 3),
    ("oscillation", "oscillation", 3),
    ("forgetting", "forgetting", 3),
)
_COSTS = (
    ("tokens_generated_per_node", "tokens generated", 0),
    ("right_per_1000_tokens", "right per 1000 tokens", 1),
    ("reward_at_equal_generation", "own reward at equal generation", 3),
    ("held_out_at_equal_generation", "held-out at equal generation", 3),
    ("own_groups_trained", "own groups a round", 2),
    ("external_groups_trained", "peers' groups a round", 2),
    ("tokens_trained", "tokens trained", 0),
    ("steps", "steps", 0),
)
_ABLATION = (
    ("cumulative_own_reward", "cumulative own reward", 2),
    ("held_out", "held-out", 3),
    ("worst_node", "worst node", 2),
    ("oscillation", "oscillation", 3),
    ("tokens_generated_per_node", "tokens generated", 0),
    ("tokens_trained", "tokens trained", 0),
)
_GAIN = (
    ("peers_give", "what peers give, as the nodes estimate it", 2),
    ("foreign_share", "least share left by the guard", 2),
    ("external_age_rounds", "age, rounds", 2),
    ("kl_external", "mean log μ − log π, nats", 3),
    ("effective_ratio", "effective sample ratio", 3),
)


def summarise(out: Path, runs: Sequence[Run], command: str, preface: str = "") -> dict[str, Any]:
    """Writes `summary.json` and `sapo.md`, which begins with `preface`, into `out` and returns the
    summary. Runs that are not finished are left out."""
    found = [(run, finished) for run in runs if (finished := read_run(out, run)) is not None]
    regimes = list(dict.fromkeys(run.regime.name for run, _ in found))
    summary: dict[str, Any] = {"command": command, "baseline": BASELINE, "regimes": {}}
    for name in regimes:
        of_regime = [
            (run, finished)
            for run, finished in found
            if run.regime.name == name and run.arm.name not in ABLATIONS
        ]
        summary["regimes"][name] = _regime(of_regime, BASELINE)
    summary["ablations"] = _ablations(found)
    summary["claims"] = claims(summary["regimes"])
    summary["cpu_s"] = round(sum(finished.cpu_s for _, finished in found), 1)
    (out / "summary.json").write_text(json.dumps(summary, indent=2, allow_nan=False) + "\n")
    (out / "sapo.md").write_text(render(summary, preface))
    return summary


def _ablations(found: Sequence[tuple[Run, Finished]]) -> dict[str, Any] | None:
    """The ablations beside what they are compared with, on their seeds and in their regime."""
    cells = {(run.regime.name, run.seed) for run, _ in found if run.arm.name in ABLATIONS}
    of_interest = [
        (run, finished)
        for run, finished in found
        if (run.regime.name, run.seed) in cells
        and (run.arm.name in ABLATIONS or run.arm.name == ABLATED)
    ]
    return _regime(of_interest, ABLATED) if cells else None


def _regime(found: Sequence[tuple[Run, Finished]], baseline: str) -> dict[str, Any]:
    seeds = sorted({run.seed for run, _ in found})
    per_run: dict[str, dict[int, Measures]] = {}
    for seed in seeds:
        of_seed = {run.arm.name: finished for run, finished in found if run.seed == seed}
        tokens = min(_tokens(finished) for finished in of_seed.values())
        for arm, finished in of_seed.items():
            per_run.setdefault(arm, {})[seed] = _measures(finished, tokens)
    first = found[0]
    baselines = [fin.config["constant_baseline"].values() for _, fin in found[:1]]
    return {
        "settings": first[1].config["run"]["regime"],
        "constant_baseline": sum(baselines[0]) / len(baselines[0]),
        "starts": {run.seed: finished.config["start"] for run, finished in found},
        "arms": {arm: _arm(by_seed, per_run.get(baseline, {})) for arm, by_seed in per_run.items()},
    }


def _tokens(finished: Finished) -> float:
    tokens = _own_measures(finished)["tokens_generated_per_node"]
    assert tokens is not None
    return tokens


def _own_measures(finished: Finished) -> Measures:
    return run_measures(finished.rounds, finished.evaluations, finished.config["practised"])


def _measures(finished: Finished, tokens: float) -> Measures:
    """A run's measures, those at `tokens` generated tokens included."""
    practised = finished.config["practised"]
    return _own_measures(finished) | {
        "reward_at_equal_generation": reward_at(finished.rounds, tokens),
        "held_out_at_equal_generation": held_out_at(
            finished.rounds, finished.evaluations, practised, tokens
        ),
    }


def _arm(by_seed: Mapping[int, Measures], baseline: Mapping[int, Measures]) -> dict[str, Any]:
    """Means, standard errors and paired differences of one arm, by measure."""
    found: dict[str, Any] = {}
    for key in next(iter(by_seed.values())):
        values = {seed: measures[key] for seed, measures in by_seed.items()}
        known = {seed: value for seed, value in values.items() if value is not None}
        if not known:
            continue
        mean, error = mean_and_error(list(known.values()))
        found[key] = {"by_seed": known, "mean": mean, "error": error}
        paired = [
            (value, base)
            for seed, value in known.items()
            if (base := baseline.get(seed, {}).get(key)) is not None
        ]
        if paired:
            difference, error = mean_and_error([value - base for value, base in paired])
            found[key] |= {"difference": difference, "difference_error": error}
            if all(base > 0 for _, base in paired):
                found[key]["ratio"] = mean_and_error([value / base for value, base in paired])[0]
    return found


def render(summary: Mapping[str, Any], preface: str = "") -> str:
    """The summary as Markdown, behind the preface."""
    parts = [
        preface.strip() or "# Sharing rollouts, in miniature",
        "## How to read the tables",
        f"Made by `{summary['command']}` from the runs' JSONL; {summary['cpu_s']:.0f} CPU seconds "
        "of runs. What the columns mean: `examples/laboratory/measures.py`; regimes and arms: "
        "`examples/laboratory/settings.py`. Mean over seeds ± standard error; in brackets the "
        f"paired difference to {summary['baseline']} ± its standard error, and the mean ratio.",
    ]
    if summary["claims"]:
        parts += ["## Claims", _claims(summary["claims"])]
    for name, regime in summary["regimes"].items():
        seeds = ", ".join(str(seed) for seed in regime["starts"])
        parts += [
            f"## {name}",
            f"Seeds {seeds}; {regime['settings']['nodes']} nodes, {regime['settings']['rounds']} "
            f"rounds. Best constant answer on held-out questions: "
            f"{regime['constant_baseline']:.3f}.",
            _table(regime["arms"], _COLUMNS),
            _table(regime["arms"], _COSTS),
            _table(
                {arm: found for arm, found in regime["arms"].items() if "kl_external" in found},
                _GAIN,
                compared=False,
            ),
            f"![{name}]({name}.png)",
        ]
    if summary["ablations"]:
        seeds = ", ".join(str(seed) for seed in summary["ablations"]["starts"])
        parts += [
            "## Ablations",
            f"One part of `{ABLATED}` changed at a time, in the sparse regime, seeds {seeds}; in "
            f"brackets the paired difference to {ABLATED}.",
            _table(summary["ablations"]["arms"], _ABLATION),
            "![ablations](ablations.png)",
        ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _claims(claims: Sequence[Mapping[str, Any]]) -> str:
    lines = ["| claim | holds | figures |", "|---|---|---|"]
    for claim in claims:
        lines.append(
            f"| {claim['claim']} | {'yes' if claim['holds'] else '**no**'} | {claim['figures']} |"
        )
    return "\n".join(lines)


def _table(
    arms: Mapping[str, Any], columns: Sequence[tuple[str, str, int]], *, compared: bool = True
) -> str:
    if not arms:
        return ""
    lines = [
        "| arm | " + " | ".join(title for _, title, _ in columns) + " |",
        "|---|" + "---|" * len(columns),
    ]
    for arm, measures in arms.items():
        cells = [_cell(measures.get(key), decimals, compared) for key, _, decimals in columns]
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(found: Mapping[str, Any] | None, decimals: int, compared: bool) -> str:
    if found is None:
        return "–"
    text = _with_error(found["mean"], found["error"], decimals)
    if not compared or not found.get("difference"):
        return text
    sign = "+" if found["difference"] > 0 else "−"
    change = _with_error(abs(found["difference"]), found["difference_error"], decimals)
    ratio = f"; × {found['ratio']:.2f}" if "ratio" in found else ""
    return f"{text} ({sign}{change}{ratio})"


def _with_error(value: float, error: float | None, decimals: int) -> str:
    text = f"{value:.{decimals}f}"
    return text if error is None else f"{text} ± {error:.{decimals}f}"
