"""Simulates swarms of many sizes with the node's own exchange code; prints a table, writes JSON.

    python examples/swarm_simulator.py --nodes 100 1000 10000 --rounds 30 --out results.json

Nodes join, leave, lie and lose messages. Every round of every node is checked (`checks.py`); the
first violation stops it. The same seed gives the same figures.
"""

import argparse
import gc
import json
import resource
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from simulated_swarm.swarm import Plan, Swarm

from swarmnode.swarm.sharding import AUDIENCE, SCALES

_COLUMNS = {
    "nodes": "nodes",
    "shards_median": "shards",
    "bytes_in_per_node_round": "bytes in",
    "bytes_out_per_node_round": "bytes out",
    "announcements_heard_per_node_round": "heard",
    "announcement_bytes_per_node_round": "of it heard",
    "fetched_bytes_per_node_round": "of it fetched",
    "announcements_delivered": "delivered",
    "fetches_delivered": "fetched",
    "places_filled": "filled",
    "peers_trained_from": "peers met",
    "cpu_seconds": "CPU s",
    "memory_mib": "MiB",  # the most so far
}


def main() -> None:
    """Simulates the swarms asked for, one after another."""
    given = _arguments()
    gc.set_threshold(100_000, 20, 50)  # millions of objects live long
    results, sizes = [], {}
    for nodes in given.nodes:
        plan = Plan(
            nodes=nodes,
            rounds=given.rounds,
            seed=given.seed,
            churn=given.churn,
            loss=given.loss,
            liars=given.liars,
            text_bytes=given.text_bytes,
            max_age_s=given.max_age_s,
            warm_up=given.warm_up,
            trust=given.trust,
            audience=given.audience,
        )
        swarm = Swarm(plan)
        measured = swarm.run(_tell)
        memory = {"memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}
        results.append(measured | memory | {"plan": asdict(plan) | {"upload": str(plan.upload)}})
        sizes[nodes] = swarm.sizes
        print(_row(list(_COLUMNS.values())) if len(results) == 1 else "", end="")
        print(_row([results[-1][key] for key in _COLUMNS]), end="", flush=True)
    if given.out:
        text = json.dumps({"command": sys.argv[1:], "results": results, "sizes": sizes}, indent=1)
        given.out.write_text(text + "\n")


def _tell(so_far: dict[str, Any]) -> None:
    """A line for each round: a large swarm takes long, and what it measured so far counts."""
    print("so far", json.dumps(so_far), file=sys.stderr, flush=True)


def _row(values: list[Any]) -> str:
    return "  ".join(f"{value!s:>13}" for value in values) + "\n"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--nodes", type=int, nargs="+", default=[100, 1000], help="swarm sizes")
    parser.add_argument("--rounds", type=int, default=20, help="measured rounds of each node")
    parser.add_argument("--warm-up", type=int, default=10, help="rounds before these")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--churn", type=float, default=0.005, help="replaced per node and round")
    parser.add_argument("--loss", type=float, default=0.01, help="of announcements and fetches")
    parser.add_argument("--liars", type=float, default=0.02, help="share of nodes that lie")
    parser.add_argument("--text-bytes", type=int, default=60, help="of one completion")
    parser.add_argument("--max-age-s", type=float, default=600.0, help="of a rollout")
    parser.add_argument("--audience", type=int, choices=SCALES, default=AUDIENCE)
    parser.add_argument(
        "--no-trust", dest="trust", action="store_false", help="strangers are not limited: quicker"
    )
    parser.add_argument("--out", type=Path, help="JSON file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
