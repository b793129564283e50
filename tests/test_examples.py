"""The examples: each has a README, whose commands exist and work.

Those of `laptop_swarm` and `paper_table` are run by test_demo.py and test_sapo_table.py, that of
`systemd` by test_systemd.py, the others here.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from examples_run import blocks

from swarmnode.cli import app

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
NAMES = (
    "custom_task", "laptop_swarm", "own_data", "paper_table", "private_swarm", "rollout_helper",
    "systemd",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_every_example_is_listed_and_its_options_exist(name: str) -> None:
    assert f"({name}/)" in (EXAMPLES / "README.md").read_text()
    readme = (EXAMPLES / name / "README.md").read_text()
    known = typer.main.get_command(app).commands  # type: ignore[attr-defined]  # it is a group
    used = re.findall(r"swarmnode (?P<command>[a-z]+)(?P<rest>[^`\n]*)", readme)
    assert used or "sapo_table.py" in readme
    for command, rest in used:
        assert command in known, command
        options = {text for option in known[command].params for text in option.opts}
        if command != "keys":  # its options are its own commands'
            assert set(re.findall(r"--[a-z-]+", rest)) <= options, (command, rest)


def test_readmes_link_to_what_is_there() -> None:
    for readme in (*EXAMPLES.glob("*/README.md"), EXAMPLES / "README.md"):
        for target in re.findall(r"\]\((?!http)([^)#]+)", readme.read_text()):
            assert (readme.parent / target).exists(), (readme, target)


def test_a_custom_task_takes_thirty_lines() -> None:
    code = [
        line
        for line in (EXAMPLES / "custom_task" / "make_task.py").read_text().splitlines()
        if line.strip()
    ]
    assert len(code) <= 30


def test_commands_of_a_readme_are_found() -> None:
    text = "x\n```\na --b 'c d'\ne\n```\n```toml\nno = 1\n```\n"
    assert blocks(text) == [[["a", "--b", "c d"], ["e"]]]


@pytest.mark.slow
@pytest.mark.network
def test_commands_of_the_examples_work(tmp_path: Path) -> None:
    program = [sys.executable, str(Path(__file__).with_name("examples_run.py")), str(tmp_path)]
    ended = subprocess.run(program, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
    done = json.loads(ended.stdout.splitlines()[-1])
    for name in ("custom_task", "own_data"):
        assert set(done[name]["codes"]) == {0}, done[name]
        assert done[name]["rounds"] == 2
    for name, nodes in (("private_swarm", 3), ("rollout_helper", 2)):
        assert set(done[name]["codes"]) == {0}, done[name]
        assert len(done[name]["totals"]) == nodes
        assert all(one["refused"] == {} for one in done[name]["totals"].values())
    helper = done["rollout_helper"]["totals"]["helper"]
    assert (helper["own_groups_trained"], helper["external_groups_trained"]) == (0, 0)
    assert helper["published"] > 0
    assert done["rollout_helper"]["totals"]["trainer"]["external_groups_trained"] > 0
