"""The crash benchmark in short: real nodes killed at random moments and at named fail points.

`python tests/bench/crash.py` is the whole of it, with bad disks, devices and losses.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).with_name("bench")))

from crashing.fail_points import FailPoint, Observer

from swarmnode.run_directory import RunDirectory

HERE = Path(__file__).parent


def figure(text: str, name: str) -> int:
    (found,) = re.findall(rf"^\| {re.escape(name)} \| (\d+)", text, re.MULTILINE)
    return int(found)


@pytest.mark.slow
def test_twenty_kills_spoil_nothing_and_lose_one_round_at_most(tmp_path: Path) -> None:
    program = [sys.executable, str(HERE / "bench" / "crash.py"), "--out", str(tmp_path)]
    few = ["--kills", "20", "--faults", "0", "--rounds", "12"]
    done = subprocess.run([*program, *few], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert figure(done.stdout, "corrupt states") == 0
    assert figure(done.stdout, "finished rounds lost, each time at most") <= 1
    assert figure(done.stdout, "at named fail points") == 10
    assert figure(done.stdout, "rounds after a resume that equal the uninterrupted run's") > 0


def test_every_disk_operation_is_a_fail_point_and_a_file_is_flushed_before_it_is_put_in_place(
    tmp_path: Path,
) -> None:
    directory = RunDirectory(tmp_path / "run")
    directory.open()
    observer = Observer()
    observer.start()
    directory.write("config.toml", "x = 1\n")
    directory.append(directory.rounds, {"round": 1})
    directory.flush_rows()
    observer.stop()
    directory.close()
    ours = "run_directory.py:RunDirectory."
    names = [point.name for point in observer.passed if point.when == "after"]
    passed = [name.removeprefix(ours) for name in names if name.startswith(ours)]
    assert passed == [
        "write write",
        "write fsync",
        "write replace",
        "append write",
        "flush_rows fsync",
    ]
    assert FailPoint("run_directory.py:RunDirectory.write replace", "before") in observer.passed
