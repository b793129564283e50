"""python crash_run.py FOLDER save|in-place KILLS SEED: kills a saving process again and again.

A forked child saves checkpoints without pause and reports each durable round through a pipe; it
gets SIGKILL after a drawn delay, then the newest checkpoint is loaded. Prints as JSON how many
rounds were saved, how often a checkpoint was spoilt and how often a durable round was lost.
Forking needs a process with one thread, so this is a program of its own.
"""

import json
import os
import random
import select
import shutil
import signal
import sys
import time
from pathlib import Path

import torch

from swarmnode.train import checkpoint

TENSOR_FLOATS = 200_000  # 0.8 MB: long enough to write that kills land inside


def main(folder: Path, mode: str, kills: int, seed: int) -> None:
    torch.set_num_threads(1)
    rng = random.Random(seed)
    counts = {"kills": 0, "saved": 0, "spoilt": 0, "lost": 0}
    newest = 0
    for _ in range(kills):
        durable = newest
        for round_number in crash(folder, mode, newest, delay_s=rng.uniform(0.001, 0.08)):
            durable = round_number
            counts["saved"] += 1
        counts["kills"] += 1
        latest = checkpoint.load_latest(folder)
        counts["spoilt"] += len(latest.skipped)
        newest = latest.checkpoint.round if latest.checkpoint else 0
        counts["lost"] += newest < durable
        if latest.skipped and latest.checkpoint is None:
            shutil.rmtree(folder)
    print(json.dumps(counts))  # noqa: T201  this is what the test reads


def crash(folder: Path, mode: str, newest: int, delay_s: float) -> list[int]:
    """The rounds a child reported as durable before it was killed."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        save_for_ever(folder, mode, newest, writer)
    os.close(writer)
    select.select([reader], [], [], 10)  # its first save is done: the delay starts in its loop
    time.sleep(delay_s)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(reader) as pipe:
        # The last line may be cut by the kill.
        return [int(line) for line in pipe if line.endswith("\n")]


def save_for_ever(folder: Path, mode: str, newest: int, writer: int) -> None:
    tensor = torch.zeros(TENSOR_FLOATS)
    while True:
        newest += 1
        state = checkpoint.Checkpoint(newest, {"w": tensor + newest}, {"m": tensor}, {"n": newest})
        if mode == "save":
            checkpoint.save(folder, state, keep=2)
        else:
            save_in_place(folder, state)
        os.write(writer, f"{newest}\n".encode())


def save_in_place(folder: Path, state: checkpoint.Checkpoint) -> None:
    """The naive way: the last checkpoint's files are overwritten."""
    path = folder / f"round-{state.round:08d}"
    folder.mkdir(exist_ok=True)
    older = list(folder.iterdir())
    if older:
        older[0].rename(path)
    path.mkdir(exist_ok=True)
    checkpoint.save_file(dict(state.model), path / checkpoint.MODEL)
    checkpoint.save_file(dict(state.optimizer), path / checkpoint.OPTIMIZER)
    (path / checkpoint.STATE).write_text(json.dumps(dict(state.state)))
    (path / checkpoint.MANIFEST).write_bytes(checkpoint._manifest(state.round, path))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
