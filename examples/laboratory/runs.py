"""A run on disk: `config.json`, `environment.json`, `rounds.jsonl`, `evaluations.jsonl`.

A run that is finished is not done again; one that was interrupted is done anew, from its first
round. Its configuration says what it is: a folder with another one is refused, never mixed.
"""

import argparse
import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from transformers import logging as transformers_logging

from swarmnode.errors import ConfigError
from swarmnode.run_directory import environment, read_rows

from .settings import SMALL_WIDTH, Run, hybrid_settings, sharing_settings, train_settings
from .simulation import Row, measured, practised, simulate
from .starts import WARM_STEPS, WIDTH, make_starts, start_folder
from .world import World, open_world

_FINISHED = "finished.json"


@dataclass(frozen=True, slots=True)
class Finished:
    """What a run left behind."""

    config: Mapping[str, Any]
    rounds: list[Row]
    evaluations: list[Row]
    cpu_s: float


def folder_of(out: Path, run: Run) -> Path:
    """Where this run is kept below `out`."""
    return out / "runs" / run.regime.name / run.arm.slug / f"seed{run.seed}"


def is_finished(out: Path, run: Run) -> bool:
    """Whether this run needs not be done. Raises `ConfigError` when a run with another
    configuration is there."""
    folder = folder_of(out, run)
    if not (folder / _FINISHED).exists():
        return False
    found = json.loads((folder / "config.json").read_text())
    now = json.loads(json.dumps(_settings(run)))
    # A setting that the node has got since is at its default, which changes no older run.
    if found["run"] != now["run"] or any(
        found[section].items() - now[section].items() for section in ("train", "sharing", "hybrid")
    ):
        raise ConfigError(
            f"{folder} holds a run with other settings: choose another --out, or remove it"
        )
    return True


def do_run(out: Path, cache: Path, run: Run, warm_steps: int = WARM_STEPS) -> float:
    """Simulates one run into its folder and returns its CPU seconds. Sets torch to one
    deterministic thread. Makes the warm start if the cache lacks it."""
    prepare_process()
    widths = (WIDTH, SMALL_WIDTH) if run.regime.small else (WIDTH,)
    blur_steps = run.regime.blur_steps
    for width in widths:
        make_starts(cache, run.seed, [blur_steps], warm_steps, width)
    started = time.process_time()
    starts = [start_folder(cache, run.seed, blur_steps, warm_steps, width) for width in widths]
    start = starts[0]
    world = open_world(start, run.regime.evaluate_questions, *starts[1:])
    folder = folder_of(out, run)
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    _write(folder / "config.json", _config(run, world, start))
    _write(folder / "environment.json", environment(run.seed, "cpu", torch.get_num_threads()))
    with (
        (folder / "rounds.jsonl").open("w") as rounds,
        (folder / "evaluations.jsonl").open("w") as evaluations,
    ):
        files = {"rounds": rounds, "evaluations": evaluations}
        for kind, row in simulate(run, world):
            files[kind].write(json.dumps(row, allow_nan=False) + "\n")
    cpu_s = round(time.process_time() - started, 2)
    _write(folder / _FINISHED, {"cpu_s": cpu_s})
    return cpu_s


def read_run(out: Path, run: Run) -> Finished | None:
    """A finished run's rows; None where it is not finished."""
    if not is_finished(out, run):
        return None
    folder = folder_of(out, run)
    return Finished(
        config=json.loads((folder / "config.json").read_text()),
        rounds=read_rows(folder / "rounds.jsonl"),
        evaluations=read_rows(folder / "evaluations.jsonl"),
        cpu_s=json.loads((folder / _FINISHED).read_text())["cpu_s"],
    )


def table_parser(description: str | None, quick: str) -> argparse.ArgumentParser:
    """The flags of a program that does runs and makes a table; `quick` says what --quick leaves."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs and the table")
    parser.add_argument("--cache", type=Path, default=Path("runs/starts"), help="warm starts")
    parser.add_argument("--processes", type=int, default=1, help="runs at the same time")
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--seeds", nargs="+", type=int, help="each its own warm start")
    parser.add_argument("--preface", type=Path, help="Markdown to put in front of the tables")
    return parser


def prepare_process() -> None:
    """One thread and deterministic arithmetic, which repeat a run bit for bit on one machine;
    no progress bars of the library."""
    transformers_logging.disable_progress_bar()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)


def _config(run: Run, world: World, start: Path) -> dict[str, Any]:
    return {
        **_settings(run),
        "swarm": msgspec.to_builtins(world.swarm),
        "swarm_id": world.swarm_id.hex(),
        "start": {"folder": start.name, **json.loads((start / "start.json").read_text())},
        "practised": [practised(run, world, number) for number in measured(run)],
        "constant_baseline": world.constant_baseline,
    }


def _settings(run: Run) -> dict[str, Any]:
    return {
        "run": msgspec.to_builtins(run),
        "train": msgspec.to_builtins(train_settings(run)),
        "sharing": msgspec.to_builtins(sharing_settings(run)),
        "hybrid": msgspec.to_builtins(hybrid_settings(run)),
    }


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n")
