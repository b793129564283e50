"""Poisoned rollouts in the miniature laboratory: the battery's figures of `poisoning_table.py`.

    python tests/adversary/poisoning.py --out runs/poisoning [--short]

The short form is one seed with half of the nodes malicious, about two CPU minutes; the whole is
five seeds, about fifteen. Runs that are in `--out` are not done again.
"""

import argparse
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
for _folder in (ROOT / "examples", Path(__file__).parent):
    sys.path.insert(0, str(_folder))

from figures import Figure, figure, show  # noqa: E402
from laboratory.poison_table import QUICK_SEEDS, SEEDS, cases, figures  # noqa: E402
from poisoning_table import perform, read  # noqa: E402

IN_CI = False  # two CPU minutes


def measure(short: bool) -> list[Figure]:
    """The figures, each beside its target. Nothing is kept."""
    with tempfile.TemporaryDirectory() as folder:
        return measure_in(Path(folder), short)


def measure_in(out: Path, short: bool, processes: int = 1) -> list[Figure]:
    """As `measure`; the runs are kept in `out`."""
    runs = cases(QUICK_SEEDS if short else SEEDS, quick=short)
    cache = out / "starts"
    cache.mkdir(parents=True, exist_ok=True)
    perform(runs, out, cache, processes)
    results, _ = read(runs, out)
    return [
        figure(one.name, one.value, one.unit, one.comparison, one.target)
        for one in figures(results)
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description="Poisoned rollouts, measured in the laboratory.")
    parser.add_argument("--short", action="store_true", help="one seed, half malicious")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--processes", type=int, default=1)
    arguments = parser.parse_args()
    found = measure_in(arguments.out, arguments.short, arguments.processes)
    return int(show(found) > 0)


if __name__ == "__main__":
    sys.exit(main())
