"""What poisoned rollouts do to a swarm, with the defences and without, on a CPU and offline.

    python examples/poisoning_table.py --out runs/poisoning --processes 2
    python examples/poisoning_table.py --out runs/poisoning-quick --quick

The four published attacks (arXiv 2511.09780) and an adaptive attacker for each, in swarms of which
a quarter and a half is malicious (`examples/laboratory/poisoned.py`, `attacks.py`). Prints each
figure beside its target. Every run leaves its rows in `--out`, and one that is there is not done
again. `--quick` is one seed, and half of the nodes malicious. Exits with 1 when a figure misses its
target.
"""

import json
import multiprocessing
import shlex
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path

from laboratory.poison_table import QUICK_SEEDS, SEEDS, cases, figures, render
from laboratory.poisoned import Case, simulate
from laboratory.runs import prepare_process, table_parser
from laboratory.worked import make_start, open_worked_world

EVALUATE_QUESTIONS = 16


def main() -> int:
    arguments = table_parser(__doc__, "one seed, half malicious").parse_args()
    seeds = arguments.seeds or (QUICK_SEEDS if arguments.quick else SEEDS)
    runs = cases(seeds, quick=arguments.quick)
    for folder in (arguments.out, arguments.cache):
        folder.mkdir(parents=True, exist_ok=True)
    perform(runs, arguments.out, arguments.cache, arguments.processes)
    results, cpu_s = read(runs, arguments.out)
    text = render(results, shlex.join(["python", *sys.argv]), cpu_s)
    if arguments.preface:
        text = f"{arguments.preface.read_text().strip()}\n\n{text}"
    (arguments.out / "poisoning.md").write_text(text)
    print(text)
    return int(not all(one.is_met for one in figures(results)))


def perform(runs: list[tuple[Case, int]], out: Path, cache: Path, processes: int) -> None:
    """Does the runs that are not there, in processes of one thread each; tells of each."""
    missing = [run for run in runs if not _file(out, *run).exists()]
    if not missing:
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, initializer=prepare_process) as workers:
        starts = [workers.submit(make_start, cache, seed) for seed in {seed for _, seed in missing}]
        for start in starts:
            start.result()
        jobs = {workers.submit(do_run, case, seed, out, cache): case for case, seed in missing}
        for number, job in enumerate(as_completed(jobs), start=1):
            cpu_s = job.result()
            print(f"{number}/{len(jobs)} {jobs[job].name}: {cpu_s:.0f} CPU-s", flush=True)


def do_run(case: Case, seed: int, out: Path, cache: Path) -> float:
    """Simulates one run, writes its rows and returns its CPU seconds."""
    prepare_process()
    started = time.process_time()
    world = open_worked_world(make_start(cache, seed), EVALUATE_QUESTIONS)
    rows = list(simulate(case, seed, world))
    cpu_s = round(time.process_time() - started, 2)
    record = {"case": asdict(case), "seed": seed, "cpu_s": cpu_s, "rows": rows}
    file = _file(out, case, seed)
    temporary = file.with_suffix(".writing")
    temporary.write_text(json.dumps(record, allow_nan=False) + "\n")
    temporary.rename(file)
    return cpu_s


def read(
    runs: list[tuple[Case, int]], out: Path
) -> tuple[dict[tuple[str, int], dict[str, object]], float]:
    """The last row of each run by case and seed, and the CPU seconds of all."""
    records = {
        (case.name, seed): json.loads(_file(out, case, seed).read_text()) for case, seed in runs
    }
    results = {key: record["rows"][-1] for key, record in records.items()}
    return results, sum(record["cpu_s"] for record in records.values())


def _file(out: Path, case: Case, seed: int) -> Path:
    name = "".join(c if c.isalnum() else "_" for c in case.name.replace(" %", ""))
    return out / f"{name}-seed{seed}.json"


if __name__ == "__main__":
    sys.exit(main())
