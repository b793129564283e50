"""Lives of a real node, `swarmnode join --offline` by its own command line.

Importing torch and transformers takes seconds of CPU, so one process imports them once and forks a
child for every life. Forking is sound because that process computes nothing before: torch is kept
to one thread and no pool of threads was ever started.
"""

import contextlib
import io
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

CONFIG = """\
[run]
checkpoint_every = 1
evaluate_questions = 2
max_failed_rounds = 3
keep_checkpoints = {keep}
threads = 1

[generate]
questions = 2

[metrics]
port = -1
"""
# Two tasks that open quickly: a life shall cost little.
MANIFEST = """\
name = "crash"
answer_format = "whole"

[[tasks]]
name = "chain_sum"
source = "reasoning_gym:chain_sum"
options = { min_terms = 2, max_terms = 2, min_digits = 1, max_digits = 1 }

[[tasks]]
name = "lcm"
source = "reasoning_gym:lcm"
options = { min_numbers = 2, max_numbers = 2, min_value = 1, max_value = 9 }
"""
# A child whose own program failed, as no exit code of swarmnode says.
BROKEN = 70


def preload() -> None:
    """Imports what a node imports, also what it and its command line import late."""
    import torch

    torch.set_num_threads(1)
    from swarmnode import cli, config, exporting, joining, manifest, networking, node
    from swarmnode.questions import open_tasks
    from swarmnode.train.policy import load

    assert all((cli, exporting, joining, networking, node))
    tasks = open_tasks(manifest.load("demo"))
    for name in tasks.names:
        tasks.question(name, 1)
    load(config.preset("demo").model)
    with contextlib.redirect_stdout(io.StringIO()):
        cli.app(["join", "--help"], standalone_mode=False)


def begin(
    run: Path,
    *,
    rounds: int,
    settings: Path,
    said: Path,
    prepare: Callable[[], None] = lambda: None,
    finish: Callable[[], None] = lambda: None,
) -> int:
    """Forks a life of the node in `run` up to round `rounds`; returns its process id.

    What it prints goes to `said`. `prepare` is called in the child before the node starts and
    `finish` when it has ended by itself.
    """
    child = os.fork()
    if child:
        return child
    code = BROKEN
    try:
        with said.open("wb", buffering=0) as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        words = {"--model": "demo", "--swarm": settings.with_name("swarm.toml"), "--run": run,
                 "--config": settings, "--rounds": rounds}  # fmt: skip
        options = [str(word) for pair in words.items() for word in pair]
        sys.argv = ["swarmnode", "join", "--offline", *options]
        prepare()
        code = main()
        finish()
    except BaseException:  # noqa: BLE001  this is the end of the process: the parent is told
        traceback.print_exc()
    finally:
        os._exit(code)


def end(child: int) -> int:
    """Waits for a life; returns its exit code, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def has_ended(child: int) -> bool:
    """Whether the life is over; it can still be waited for."""
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


@contextlib.contextmanager
def mounted(target: Path, *arguments: str):  # type: ignore[no-untyped-def]  # a test's tool
    """A file system at `target` for a while. Raises `OSError` where that is not allowed."""
    import subprocess

    target.mkdir(exist_ok=True)
    done = subprocess.run(
        ["mount", *arguments, str(target)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise OSError(done.stderr.strip())
    try:
        yield target
    finally:
        subprocess.run(["umount", str(target)], check=True)


def main() -> int:
    """`swarmnode` with the words in `sys.argv`; its exit code."""
    from swarmnode import cli

    try:
        cli.main()
    except SystemExit as done:
        return done.code if type(done.code) is int else 1
