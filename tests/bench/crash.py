"""What crashes cost a node: SIGKILL again and again, bad disks, a bad device, a bad loss.

    python tests/bench/crash.py [--kills 1000] [--faults 5] [--seed 1] [--minutes M]
        [--out FOLDER]

Every life is a real node, `swarmnode join --model demo --offline`, saving after every round, killed
at random moments and at named fail points (each disk operation of its code). What it leaves on disk
is compared with one run of the same identity that was never interrupted. About half a second of CPU
a kill. The disks need root and are left out without. Exit code 1 when anything is not as it should.
"""

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

# Before torch: a process with a pool of threads must not fork.
os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}

from crashing import devices, disks, lives
from crashing.judge import Reference
from crashing.kills import KillLoop, Tally
from crashing.outcome import Outcome


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--faults", type=int, default=5, help="times that each other fault comes")
    parser.add_argument("--rounds", type=int, default=40, help="of the uninterrupted run")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=1e6, help="no kill begins later")
    parser.add_argument(
        "--out", type=Path, help="where the runs are made; default: a folder in /tmp"
    )
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.out) as folder:
        return measure(Path(folder), chosen)


def measure(folder: Path, chosen: argparse.Namespace) -> int:
    began = time.time()
    lives.preload()
    rng = random.Random(chosen.seed)
    loop = KillLoop(folder, chosen.rounds, rng)
    expected, points = loop.prepare()
    print(f"{len(points)} fail points in {len({p.name for p in points})} places", flush=True)
    tally = loop.kill(chosen.kills, expected, points, began + 60 * chosen.minutes)
    told(tally, len(points))
    outcomes = others(folder, chosen.faults, expected, rng)
    table(outcomes)
    used = os.times()
    cpu_s = used.user + used.system + used.children_user + used.children_system
    print(f"\n{cpu_s / 60:.1f} CPU minutes, {(time.time() - began) / 60:.1f} by the clock")
    wrong = [*tally.corrupt, *(text for one in outcomes for text in (*one.corrupt, *one.wrong))]
    for text in wrong[:20]:
        print(f"WRONG {text}")
    return 1 if wrong or max(tally.lost, default=0) > 1 else 0


def told(tally: Tally, points: int) -> None:
    """The kills in figures."""
    print(f"\n| {tally.total} SIGKILLs | |\n|---|---|")
    for name, value in (
        ("at random moments", tally.kills["random moment"]),
        ("at named fail points", tally.kills["fail point"]),
        ("fail points that killed at least once", f"{len(tally.points)} of {points}"),
        ("corrupt states", len(tally.corrupt)),
        ("finished rounds lost, each time at most", max(tally.lost, default=0)),
        ("finished rounds lost, all together", sum(n * times for n, times in tally.lost.items())),
        ("lives that resumed", tally.resumed),
        ("of these, finished at least one more round", tally.went_on),
        ("rounds after a resume that equal the uninterrupted run's", tally.rounds_equal),
        ("lives that ended before their kill", tally.ended),
    ):
        print(f"| {name} | {value} |")
    print("\n| killed while at | times |\n|---|---|")
    for name, times in tally.where.most_common():
        print(f"| {name} | {times} |")
    sys.stdout.flush()


def others(folder: Path, times: int, expected: Reference, rng: random.Random) -> Sequence[Outcome]:
    """The other faults, disks only where this process may mount."""
    found = []
    if times and os.geteuid() == 0:
        found += [kind(folder, times, expected, rng) for kind in (disks.full, disks.read_only)]
    elif times:
        print("\nnot root: no disk that is full or read-only")
    if times:
        found += [devices.befall(folder, fault, times, expected) for fault in devices.FAULTS]
    return found


def table(outcomes: Sequence[Outcome]) -> None:
    """One line for each kind of fault."""
    if not outcomes:
        return
    print(
        "\n| fault | times | exit codes | corrupt states | finished rounds lost, at most | "
        "next life goes on as if never stopped |\n|---|---|---|---|---|---|"
    )
    for one in outcomes:
        codes = ", ".join(f"{code}: {count}" for code, count in sorted(one.codes.items()))
        is_fatal = bool(one.lost)
        print(
            f"| {one.name} | {one.times} | {codes} | {len(one.corrupt)} | "
            f"{max(one.lost, default=0)} | {one.equal if is_fatal else 'was not stopped'} |"
        )


if __name__ == "__main__":
    sys.exit(main())
