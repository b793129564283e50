"""What a node says of itself, as seen by another process; a killed node says nothing."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from swarmnode import life
from swarmnode.life import Phase
from swarmnode.run_directory import RunDirectory

# Opens the run directory, says a phase and waits for its standard input to end.
NODE = """
import sys
from pathlib import Path
from swarmnode.life import Phase
from swarmnode.run_directory import RunDirectory
directory = RunDirectory(Path(sys.argv[1]))
directory.open()
directory.tell(Phase(sys.argv[2]), sys.argv[3])
print("said", flush=True)
sys.stdin.read()
"""


def node(path: Path, phase: Phase, why: str = "") -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", NODE, str(path), phase, why],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "said\n"
    return process


def test_a_running_node_is_seen_and_a_killed_one_has_crashed(tmp_path: Path) -> None:
    process = node(tmp_path, Phase.RUNNING)
    seen = life.look(tmp_path)
    assert (seen.phase, seen.pid) == (Phase.RUNNING, process.pid)
    assert 0 < seen.started <= seen.since
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert life.look(tmp_path).phase is Phase.CRASHED


@pytest.mark.parametrize("phase", [Phase.DONE, Phase.STOPPED, Phase.FAILED])
def test_last_words_hold_after_the_process_is_gone(tmp_path: Path, phase: Phase) -> None:
    process = node(tmp_path, phase, "the disk is full: “voll”\n" + "x" * 9000)
    process.communicate()
    seen = life.look(tmp_path)
    assert seen.phase is phase
    assert seen.why.startswith("the disk is full: “voll”\nxxx")


def test_looking_does_not_keep_a_node_from_starting(tmp_path: Path) -> None:
    """The look shares the lock for an instant; a node that starts then tries again."""
    code = "import sys; from pathlib import Path; from swarmnode import life\n"
    code += "print('looking', flush=True)\nwhile True: life.look(Path(sys.argv[1]))"
    looker = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    try:
        assert looker.stdout is not None
        assert looker.stdout.readline() == "looking\n"
        for _ in range(300):
            directory = RunDirectory(tmp_path)
            directory.open()
            directory.close()
    finally:
        looker.kill()
        looker.communicate()


def test_a_folder_without_last_words_is_unknown_and_damage_is_not_fatal(tmp_path: Path) -> None:
    assert life.look(tmp_path).phase is Phase.UNKNOWN
    directory = RunDirectory(tmp_path)
    directory.open()
    assert life.look(tmp_path).phase is Phase.RUNNING
    directory.tell(Phase.PAUSED)
    assert life.look(tmp_path).phase is Phase.PAUSED
    (tmp_path / life.LIFE).write_bytes(b"\0" * 4096)
    assert life.look(tmp_path).phase is Phase.RUNNING
    directory.close()


def test_a_disk_that_refuses_does_not_end_the_node(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    RunDirectory(tmp_path / "absent").tell(Phase.RUNNING)
    assert "cannot write life.json" in caplog.text
