"""The SAPO paper's table in miniature, with the controls that it lacks, on a CPU and offline.

    python examples/sapo_table.py --out runs/sapo --processes 2
    python examples/sapo_table.py --out runs/sapo --processes 2 --extended    # and the ablations
    python examples/sapo_table.py --out runs/sapo-quick --processes 2 --quick

Simulates swarms of eight nodes with the node's own modules (`examples/laboratory`), regime by
regime, arm by arm, seed by seed. Every run leaves its configuration, versions, seed and all its
rows as JSON lines in `--out`, and a run that is there is not done again; from the rows come
`summary.json`, `sapo.md` and one picture per regime. Warm starts are made once, in `--cache`.
`--list` shows the runs that are still to be done, without doing them.
"""

import argparse
import multiprocessing
import shlex
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from laboratory.plots import draw
from laboratory.runs import do_run, folder_of, is_finished, prepare_process, table_parser
from laboratory.settings import (
    ABLATED_REGIME,
    ABLATION_SEEDS,
    ABLATIONS,
    ARMS,
    EXTENDED,
    QUICK_ROUNDS,
    QUICK_SEEDS,
    QUICK_TABLE,
    REGIMES,
    SMALL_WIDTH,
    TABLE,
    Run,
    arm,
    seeds_of,
)
from laboratory.starts import WIDTH, make_starts
from laboratory.table import summarise

from swarmnode.errors import ConfigError


def main() -> int:
    arguments = _parser().parse_args()
    try:
        runs = planned(arguments)
        missing = [run for run in runs if not is_finished(arguments.out, run)]
        if arguments.list:
            print(*(folder_of(arguments.out, run) for run in missing), sep="\n")
            return 0
        arguments.out.mkdir(parents=True, exist_ok=True)
        arguments.cache.mkdir(parents=True, exist_ok=True)
        perform(missing, arguments.out, arguments.cache, arguments.processes)
        command = shlex.join(["python", *sys.argv])
        preface = arguments.preface.read_text() if arguments.preface else ""
        summary = summarise(arguments.out, runs, command, preface)
        pictures = draw(arguments.out, runs, summary)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(arguments.out / "sapo.md", *pictures, sep="\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = table_parser(__doc__, "two seeds, fewer rounds and arms")
    parser.add_argument(
        "--extended", action="store_true", help="more regimes and the ablations as well"
    )
    parser.add_argument("--regimes", nargs="+", choices=REGIMES, help="default: all of the table")
    parser.add_argument(
        "--arms",
        nargs="+",
        choices=[*ARMS, *ABLATIONS],
        metavar="ARM",
        help="default: the regime's",
    )
    parser.add_argument("--list", action="store_true", help="list what is to be done, do nothing")
    return parser


def planned(arguments: argparse.Namespace) -> list[Run]:
    """The runs that were asked for, seed by seed within regime and arm."""
    if arguments.regimes or arguments.arms:
        every = {name: (*TABLE.get(name, ()), *EXTENDED.get(name, ())) for name in REGIMES}
        cells = [
            (name, each)
            for name in arguments.regimes or TABLE
            for each in arguments.arms or every[name]
        ]
    else:
        tables = [QUICK_TABLE] if arguments.quick else [TABLE]
        tables += [EXTENDED] if arguments.extended else []
        cells = [(name, each) for table in tables for name in table for each in table[name]]
    runs = []
    for name, each in cells:
        regime = REGIMES[name]
        if arguments.quick:
            regime = replace(regime, rounds=QUICK_ROUNDS)
        seeds = arguments.seeds or (QUICK_SEEDS if arguments.quick else seeds_of(regime))
        runs += [Run(regime, arm(each), seed) for seed in seeds]
    if arguments.extended:
        regime, seeds = REGIMES[ABLATED_REGIME], arguments.seeds or ABLATION_SEEDS
        runs += [Run(regime, each, seed) for each in ABLATIONS.values() for seed in seeds]
    return runs


def perform(runs: Sequence[Run], out: Path, cache: Path, processes: int) -> None:
    """Makes the missing starts, one seed per process, then does the runs; tells of each."""
    levels: dict[tuple[int, int], set[int]] = {}  # by seed and width
    for run in runs:
        for width in (WIDTH, SMALL_WIDTH) if run.regime.small else (WIDTH,):
            levels.setdefault((run.seed, width), set()).add(run.regime.blur_steps)
    with _workers(processes) as workers:
        starts = {
            workers.submit(make_starts, cache, seed, sorted(blur), width=width): seed
            for (seed, width), blur in levels.items()
        }
        for start in as_completed(starts):
            start.result()
            print(f"warm start of seed {starts[start]} is there", flush=True)
        jobs = {workers.submit(do_run, out, cache, run): run for run in runs}
        for number, job in enumerate(as_completed(jobs), start=1):
            run = jobs[job]
            print(
                f"{number}/{len(jobs)} {run.regime.name} {run.arm.name} seed {run.seed}: "
                f"{job.result():.0f} CPU-s",
                flush=True,
            )


@contextmanager
def _workers(processes: int) -> Iterator[ProcessPoolExecutor]:
    """Processes of one torch thread each; what has not begun is dropped when one fails."""
    workers = ProcessPoolExecutor(
        processes, multiprocessing.get_context("spawn"), initializer=prepare_process
    )
    try:
        yield workers
    finally:
        workers.shutdown(cancel_futures=True)


if __name__ == "__main__":
    sys.exit(main())
