"""What churn costs learning nodes: half of eight are replaced every ten rounds, against a calm run.

    python examples/churn_table.py --seeds 1 2 3 --rounds 40

The nodes start from the shipped demo model and learn with the node's own modules (`laboratory/`).
Exits with 1 where those who stay earn less than 95 % of what they earn in the calm run, or all
nodes do at equal age (`laboratory/churn.py` says why these are compared).
"""

import argparse
import json
import sys
import time
from pathlib import Path
from statistics import fmean

from laboratory.churn import MEASURES, ratios, table
from laboratory.runs import prepare_process
from laboratory.settings import ARMS
from laboratory.world import open_world

DEMO = Path(__file__).parents[1] / "swarmnode" / "demo_model"
REQUIRED = 0.95


def main() -> int:
    """Runs all seeds, prints the table."""
    given = _arguments()
    prepare_process()
    world = open_world(DEMO, 2)
    found = []
    for seed in given.seeds:
        began = time.process_time()
        found.append(ratios(world, seed, given.rounds, given.arm))
        spent = time.process_time() - began
        print(f"seed {seed}: {json.dumps(found[-1])}, {spent:.0f} CPU-s", file=sys.stderr)
    print(table(found))
    if given.out:
        rows = {str(seed): dict(one) for seed, one in zip(given.seeds, found, strict=True)}
        result = {"rounds": given.rounds, "arm": given.arm, "seeds": rows}
        given.out.write_text(json.dumps(result, indent=1) + "\n")
    means = {name: fmean(one[name] for one in found) for name in MEASURES[:2]}
    short = [f"{name} {mean:.3f}" for name, mean in means.items() if mean < REQUIRED]
    print(f"below {REQUIRED}: {', '.join(short)}" if short else f"at least {REQUIRED}")
    return 1 if short else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--arm", choices=ARMS, default="hybrid 4/4")
    parser.add_argument("--out", type=Path, help="JSON file")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
