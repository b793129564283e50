"""All that strangers are tried to do to a node, each figure beside its target.

    make battery            hours: the figures that SECURITY.md quotes
    make battery-short      what CI runs, fewer attempts against the same targets
    python tests/adversary/battery.py --only bombs answers

A part is a module beside this one with `measure(short) -> list[Figure]`; each runs in a process of
its own. One that says `IN_CI = False` is left out of the short form, which says so. The exit code
is 1 if a figure misses its target or a part breaks; in the short form not by a figure of the clock,
which a busy machine misses: it is printed as it is.
"""

import argparse
import ast
import json
import subprocess
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from figures import Figure, line

HERE = Path(__file__).parent
_CLOCK_UNITS = ("ms", "s", "/s")


def parts() -> list[str]:
    """The modules that can measure, by name."""
    return sorted(path.stem for path in HERE.glob("*.py") if _measures(path.read_text()))


def _measures(source: str) -> bool:
    """Whether the module defines `measure(short)`; it is not imported to find out."""
    return any(
        isinstance(node, ast.FunctionDef)
        and node.name == "measure"
        and [argument.arg for argument in node.args.args] == ["short"]
        for node in ast.parse(source).body
    )


def is_in_ci(part: str) -> bool:
    """Whether a part's short form is short enough for every change."""
    return not any(
        isinstance(node, ast.Assign) and ast.unparse(node) == "IN_CI = False"
        for node in ast.parse((HERE / f"{part}.py").read_text()).body
    )


def run(part: str, short: bool, limit_s: float | None) -> tuple[list[Figure], float, str]:
    """(figures, seconds, what went wrong or nothing) of one part."""
    started = time.monotonic()
    command = [sys.executable, __file__, "--part", part, *(["--short"] if short else [])]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=limit_s, cwd=HERE
        )
    except subprocess.TimeoutExpired:
        return [], time.monotonic() - started, f"not done after {limit_s:.0f} s"
    seconds = time.monotonic() - started
    if done.returncode != 0:
        return [], seconds, (done.stderr.strip() or "no reason given").splitlines()[-1]
    return [Figure(**one) for one in json.loads(done.stdout.splitlines()[-1])], seconds, ""


def _is_missed(one: Figure, short: bool) -> bool:
    return not one.ok and not (short and one.unit in _CLOCK_UNITS)


def measure_here(part: str, short: bool) -> None:
    """In the part's own process: the figures as the last line of the output."""
    sys.path.insert(0, str(HERE))
    figures = __import__(part).measure(short)
    print(json.dumps([asdict(one) for one in figures]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--short", action="store_true", help="what CI can afford")
    parser.add_argument("--only", nargs="+", metavar="PART", choices=parts())
    parser.add_argument("--limit-s", type=float, help="seconds for one part")
    parser.add_argument("--json", type=Path, help="also writes the figures here")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        measure_here(given.part, given.short)
        return 0
    record: dict[str, object] = {"time": datetime.now(UTC).isoformat(), "short": given.short}
    missed = 0
    for part in given.only or parts():
        if given.short and not given.only and not is_in_ci(part):
            print(f"{part} (left out of the short form)", flush=True)
            continue
        figures, seconds, problem = run(part, given.short, given.limit_s)
        print(f"{part} ({seconds:.0f} s){': ' + problem if problem else ''}", flush=True)
        for one in figures:
            print(f"  {line(one)}", flush=True)
        missed += sum(_is_missed(one, given.short) for one in figures) + bool(problem)
        record[part] = {
            "seconds": round(seconds, 1),
            "problem": problem,
            "figures": [asdict(one) for one in figures],
        }
    print(f"{missed} missed" if missed else "every figure meets its target")
    if given.json:
        given.json.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
