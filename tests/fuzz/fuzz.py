"""Fuzzing of everything that strangers' bytes go through, and how much of it was done.

    python tests/fuzz/fuzz.py                         10,000,000 executions, an hour on a busy core
    python tests/fuzz/fuzz.py --executions 20000      the same mix, shorter
    python tests/fuzz/fuzz.py --engine mutation       without atheris: mutations of the corpus alone
    python tests/fuzz/fuzz.py --keep                  adds inputs that reach new code to the corpus

An execution is one input that went through the frame decoder at least; what is fuzzed beside it
(streams, local packets, answers) is printed and not counted. Every target runs in a process of its
own under libFuzzer, through atheris (`pip install -e '.[fuzz]'`), which follows the coverage of the
Python code. The exit code is 1 if an execution raised what it may not, or crashed the process.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

HERE = Path(__file__).parent
# Shares of the executions: fast layers get most, slow ones enough (a question costs 0.1 to 5 ms).
COUNTED = {
    "message": 0.50,
    "frame": 0.25,
    "compressed": 0.22,
    "signed": 0.012,
    "exchange": 0.006,
    "question": 0.006,
    "tokens": 0.006,
}
BESIDE = {"streams": 0.10, "local": 0.05, "answers": 0.03, "decrypted": 0.002}


@dataclass(frozen=True)
class Run:
    """What fuzzing one target came to. `slowest_ms` is the processor time of one execution."""

    target: str
    executions: int
    counted: bool
    failed: bool
    slowest_ms: float
    cpu_s: float
    detail: str = ""


def fuzz(
    executions: int, engine: str, seed: int, keep: bool = False, only: Sequence[str] = ()
) -> list[Run]:
    """Fuzzes every target, or only some, with its share of the executions."""
    shares = [(name, share, True) for name, share in COUNTED.items()]
    shares += [(name, share, False) for name, share in BESIDE.items()]
    runs = []
    for name, share, counted in shares:
        if only and name not in only:
            continue
        # Rounded up, so that the counted ones make `executions` at least.
        run = fuzz_target(name, -int(-executions * share // 1), engine, seed, counted, keep)
        print(f"  {name}: {run.executions} executions, {run.cpu_s:.0f} s", file=sys.stderr)
        runs.append(run)
    return runs


def fuzz_target(
    name: str, executions: int, engine: str, seed: int, counted: bool, keep: bool
) -> Run:
    """Runs the worker, which writes what it did into a file at every step."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result"
        command = [sys.executable, str(HERE / "fuzz_worker.py"), name, str(executions), engine]
        command += [str(seed), str(result), *(["--keep"] if keep else [])]
        started = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        record = json.loads(result.read_text()) if result.exists() else {}
    failed = done.returncode != 0 or record.get("executions", 0) < executions
    return Run(
        name,
        record.get("executions", 0),
        counted,
        failed,
        record.get("slowest_ms", 0.0),
        record.get("cpu_s", time.perf_counter() - started),
        "\n".join(done.stderr.splitlines()[-30:]) if failed else "",
    )


def has_atheris() -> bool:
    try:
        import atheris  # noqa: F401
    except ImportError:
        return False
    return True


def table(runs: Sequence[Run], engine: str) -> str:
    """The runs as a Markdown table, and a line that says what they come to."""
    lines = ["| target | executions | counted | slowest, ms | processor, s | |", "|" + "---|" * 6]
    for run in runs:
        verdict = "failed" if run.failed else "ok"
        lines.append(
            f"| {run.target} | {run.executions:,} | {'yes' if run.counted else 'no'} | "
            f"{run.slowest_ms:.1f} | {run.cpu_s:.0f} | {verdict} |"
        )
    total = sum(run.executions for run in runs if run.counted)
    failures = sum(run.failed for run in runs)
    lines.append(f"\n{total:,} executions with {engine}, {failures} targets failed")
    lines += [f"\n{run.target}:\n{run.detail}" for run in runs if run.detail]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--executions", type=int, default=10_000_000)
    parser.add_argument("--engine", choices=("atheris", "mutation"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--only", nargs="+", default=[], choices=(*COUNTED, *BESIDE))
    parser.add_argument("--json", type=Path, help="also writes the runs here")
    given = parser.parse_args()
    engine = given.engine or ("atheris" if has_atheris() else "mutation")
    runs = fuzz(given.executions, engine, given.seed, given.keep, given.only)
    print(table(runs, engine))
    if given.json:
        record = {"engine": engine, "time": time.time(), "runs": [asdict(run) for run in runs]}
        given.json.write_text(json.dumps(record, indent=1) + "\n")
    return int(any(run.failed for run in runs))


if __name__ == "__main__":
    sys.exit(main())
