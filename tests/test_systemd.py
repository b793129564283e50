"""The systemd example: systemd accepts it, and its command line is one that the program knows."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from swarmnode.cli import app

UNIT = Path(__file__).parents[1] / "examples" / "systemd" / "swarmnode.service"


def test_every_option_of_the_unit_is_one_of_the_programs() -> None:
    (command,) = re.findall(r"^ExecStart=(.+)$", UNIT.read_text(), re.MULTILINE)
    words = command.split()
    assert words[1] == "join"
    known = CliRunner().invoke(app, ["join", "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert known.exit_code == 0
    options = [word for word in words if word.startswith("--")]
    assert options
    for option in options:
        assert re.search(rf"{option}\b", known.output), option


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_finds_nothing_to_complain_about(tmp_path: Path) -> None:
    program = tmp_path / "swarmnode"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / "swarmnode.service"
    unit.write_text(UNIT.read_text().replace("/opt/swarmnode/bin/swarmnode", str(program)))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
