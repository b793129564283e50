"""A GPU that runs out of memory or is lost, and a loss that is NaN: by stand-ins, on a CPU.

torch's own hooks on every module's forward pass raise what torch raises in such a case, or spoil
what a layer gives. Nothing of the node is replaced.
"""

import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as hooks

from crashing import lives
from crashing.judge import Reference, judge
from crashing.outcome import Outcome
from swarmnode.run_directory import read_rows
from swarmnode.train import checkpoint

ROUNDS = 8
_FOR_GOOD = 10**9


@dataclass(frozen=True, slots=True)
class Fault:
    """From the `first` forward pass of the model on, `passes` times. `in_training` None: in any."""

    name: str
    error: Callable[[], Exception] | None  # None: NaN instead
    passes: int
    in_training: bool | None
    is_fatal: bool
    word: str = ""


def _out_of_memory() -> Exception:
    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def _lost() -> Exception:
    return torch.AcceleratorError("CUDA error: unspecified launch failure")


FAULTS = (
    Fault("out of memory once, training", _out_of_memory, 1, True, False),
    Fault("out of memory once, generating", _out_of_memory, 1, False, False),
    Fault("out of memory for good", _out_of_memory, _FOR_GOOD, None, True, "does not fit"),
    Fault("device lost", _lost, _FOR_GOOD, None, True, "the device failed"),
    Fault("loss NaN for a round", None, 1, True, False),
)


def befall(folder: Path, fault: Fault, times: int, expected: Reference) -> Outcome:
    """Lives of eight rounds that the fault befalls, from later in each."""
    outcome = Outcome(fault.name)
    settings, said = folder / "node.toml", folder / "said.txt"
    for turn in range(times):
        run = folder / "befallen"
        run.mkdir(mode=0o700)
        shutil.copy2(folder / "straight" / "identity.key", run / "identity.key")
        stand_in = _StandIn(fault, first=3 + 2 * turn if fault.in_training else 40 + 30 * turn)
        child = lives.begin(
            run, rounds=ROUNDS, settings=settings, said=said, prepare=stand_in.start
        )
        outcome.ended(lives.end(child), said.read_text(), int(fault.is_fatal), fault.word)
        if fault.is_fatal:
            outcome.note(judge(run, expected))
            rounds = min(judge(run, expected).saved + 2, expected.last)
            again = lives.begin(run, rounds=rounds, settings=settings, said=said)
            after = (lives.end(again), judge(run, expected))
            is_equal = after[0] == 0 and not after[1].corrupt and after[1].saved == rounds
            outcome.resumed(is_equal)
        else:
            outcome.wrong += [f"{fault.name}: {text}" for text in _unsound(run, fault)]
        shutil.rmtree(run)
    return outcome


def _unsound(run: Path, fault: Fault) -> list[str]:
    """What is wrong with a run that should have gone on to its end."""
    wrong = []
    rows = read_rows(run / "rounds.jsonl")
    if [row["round"] for row in rows] != list(range(1, ROUNDS + 1)):
        wrong.append(f"rows {[row['round'] for row in rows]}")
    found = checkpoint.load_latest(run / "checkpoints")
    if found.checkpoint is None or found.skipped or found.checkpoint.round != ROUNDS:
        return [*wrong, "no checkpoint of the last round"]
    tensors = [*found.checkpoint.model.values(), *found.checkpoint.optimizer.values()]
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors):
        wrong.append("a weight is not finite")
    if fault.error is None and all(row["grad_norm"] is not None for row in rows):
        wrong.append("no step was skipped: the stand-in spoilt nothing")
    return wrong


class _StandIn:
    """Registers torch's global hooks in a life's own process."""

    def __init__(self, fault: Fault, first: int) -> None:
        self._fault = fault
        self._first = first
        self._passes = 0

    def start(self) -> None:
        hooks.register_module_forward_pre_hook(self._before)
        hooks.register_module_forward_hook(self._after)

    def _before(self, module: nn.Module, inputs: Any) -> None:
        if not type(module).__name__.endswith("Model") or not self._is_meant():
            return
        self._passes += 1
        if self._fault.error is not None and self._is_on():
            raise self._fault.error()

    def _after(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        is_nan = self._fault.error is None and self._is_on() and self._is_meant()
        return output * math.nan if is_nan and type(module) is nn.Embedding else None

    def _is_meant(self) -> bool:
        return self._fault.in_training in (None, torch.is_grad_enabled())

    def _is_on(self) -> bool:
        return self._first <= self._passes < self._first + self._fault.passes
