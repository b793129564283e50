"""Fuzzing as a part of the battery: executions, and what escaped from them."""

import importlib
import random
import sys
from pathlib import Path

from figures import Figure, figure

sys.path.append(str(Path(__file__).parents[1] / "fuzz"))
import fuzz

EXECUTIONS = 10_000_000
# In CI: every input of the corpus, and so many changed ones for each target, in this process.
FEW = 500


def measure(short: bool) -> list[Figure]:
    """The long form takes an hour of a core; atheris where it is installed, else mutations."""
    if short:
        done, failures = few(FEW, seed=1)
        return [
            figure("fuzz executions", done, "executions", ">=", FEW * len(fuzz.COUNTED)),
            figure("crashes and unexpected exceptions", failures, "targets", "==", 0),
        ]
    engine = "atheris" if fuzz.has_atheris() else "mutation"
    runs = fuzz.fuzz(EXECUTIONS, engine, seed=random.randrange(2**31))
    done = sum(run.executions for run in runs if run.counted)
    return [
        figure(f"fuzz executions ({engine})", done, "executions", ">=", EXECUTIONS),
        figure(
            "crashes and unexpected exceptions",
            sum(run.failed for run in runs),
            f"of {len(runs)} targets",
            "==",
            0,
        ),
    ]


def few(changed: int, seed: int) -> tuple[int, int]:
    """(counted executions, targets that failed) of every corpus and `changed` mutations of it."""
    worker, targets = (
        importlib.import_module("fuzz_worker"),
        importlib.import_module("fuzz_targets"),
    )
    rng = random.Random(seed)
    done = failures = 0
    for name, target in targets.targets().items():
        corpus = [path.read_bytes() for path in sorted((worker.CORPUS / name).iterdir())]
        inputs = corpus + [worker.mutated(corpus, rng) for _ in range(changed)]
        try:
            for data in inputs:
                target(data)
        except Exception as error:  # noqa: BLE001  whatever escapes is the finding
            print(f"{name}: {type(error).__name__}: {error} on {data.hex()}")
            failures += 1
        done += len(inputs) if name in fuzz.COUNTED else 0
    return done, failures
