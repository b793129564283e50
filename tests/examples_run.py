"""python examples_run.py FOLDER: runs the commands of the examples' READMEs, word for word, and
prints as JSON what came of them.

Only what a reader does at leisure is added: few rounds, one thread, loopback. Every `swarmnode` is
a real process; they are forked from this one, which imports torch once (tests/bench/crashing).
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).with_name("bench")))
if __name__ == "__main__":  # not where only `blocks` is wanted: it would hold for all tests
    # Before torch: a process with a pool of threads must not fork.
    os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}

from crashing import lives

from swarmnode.run_directory import read_rows

EXAMPLES = Path(__file__).parents[1] / "examples"
SMALL = ("--questions", "2", "--threads", "1", "--evaluate-every", "0", "--metrics-port", "-1")
ALONE = ("--rounds", "2", *SMALL)
TOGETHER = ("--host", "127.0.0.1", "--mdns", "off", "--min-round-s", "0.5", *SMALL)
GIVE_UP_S = 1200.0


def blocks(readme: str) -> list[list[list[str]]]:
    """The commands of a README's fenced blocks, those that name a language left out."""
    found = re.findall(r"^```\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    return [[shlex.split(line) for line in block.splitlines()] for block in found]


def begin(words: list[str], more: tuple[str, ...]) -> int:
    """Starts `swarmnode …`; returns its process id."""
    child = os.fork()
    if child:
        return child
    code = lives.BROKEN
    try:
        with Path(f"said-{os.getpid()}.txt").open("wb", buffering=0) as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        sys.argv = [*words, *more]
        code = lives.main()
    finally:
        os._exit(code)


def run(words: list[str], more: tuple[str, ...]) -> int:
    """Runs one command to its end; returns its exit code."""
    if words[0] == "swarmnode":
        return lives.end(begin(words, more if words[1] == "join" else ()))
    assert words[0] == "python", words
    return subprocess.run([sys.executable, *words[1:]], check=False).returncode


def alone(name: str) -> dict[str, Any]:
    """An example of one node, in a copy of its folder."""
    shutil.copytree(EXAMPLES / name, name)
    os.chdir(name)
    try:
        (commands,) = blocks(Path("README.md").read_text())
        codes = [run(words, ALONE) for words in commands]
        (folder,) = Path("runs").iterdir()
        return {"codes": codes, "rounds": len(read_rows(folder / "rounds.jsonl"))}
    finally:
        os.chdir("..")


def together(name: str) -> dict[str, Any]:
    """An example of several machines, a block each, here of several folders' nodes."""
    Path(name).mkdir()
    os.chdir(name)
    children: list[int] = []
    try:
        first, *others = blocks((EXAMPLES / name / "README.md").read_text())
        codes = [run(words, ()) for words in first[:-1]]
        children.append(begin(first[-1], TOGETHER))
        addresses = Path(first[-1][first[-1].index("--run") + 1]) / "addresses.txt"
        until(lambda: addresses.exists() and addresses.read_text())
        address = addresses.read_text().split()[0]
        for ((*words, placeholder),) in others:
            assert placeholder == "ADDRESS"
            children.append(begin([*words, address], TOGETHER))
        runs = Path("runs")
        until(lambda: len(list(runs.glob("*/rounds.jsonl"))) == len(children))
        until(lambda: all(has_met(run, len(children) - 1) for run in runs.iterdir()))
        for child in children:
            os.kill(child, signal.SIGTERM)
        codes += [lives.end(child) for child in children]
        children = []
        return {"codes": codes, "totals": {run.name: totals(run) for run in runs.iterdir()}}
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        os.chdir("..")


def has_met(run: Path, others: int) -> bool:
    """Whether a node is connected to all others and trained on one's rollouts, if it trains."""
    rows = read_rows(run / "rounds.jsonl")
    is_fed = run.name == "helper" or (rows and rows[-1]["totals"]["trained_from"])
    return bool(rows and is_fed and rows[-1]["peers"] >= others)


def totals(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = read_rows(run / "rounds.jsonl")[-1]["totals"]
    return found


def until(holds: Callable[[], Any]) -> None:
    deadline = time.monotonic() + GIVE_UP_S
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {GIVE_UP_S:.0f} s")
        time.sleep(0.2)


def main(folder: Path) -> None:
    os.chdir(folder)
    lives.preload()
    done = {name: alone(name) for name in ("custom_task", "own_data")}
    done |= {name: together(name) for name in ("private_swarm", "rollout_helper")}
    print(json.dumps(done))  # noqa: T201  this is what the test reads


if __name__ == "__main__":
    main(Path(sys.argv[1]))
