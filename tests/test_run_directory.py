"""A run on disk: one process at a time, and rows that survive a crash."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from swarmnode.errors import ConfigError, SwarmNodeError
from swarmnode.run_directory import RunDirectory, environment, first_free, read_rows

# Opens the run directory, says so and waits for its standard input to end.
HOLDER = """
import sys
from pathlib import Path
from swarmnode.run_directory import RunDirectory
directory = RunDirectory(Path(sys.argv[1]))
directory.open()
print("open", flush=True)
sys.stdin.read()
"""


def opened(path: Path) -> RunDirectory:
    directory = RunDirectory(path)
    directory.open()
    return directory


def holder(path: Path) -> subprocess.Popen[str]:
    """Another process that has the run directory open."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def test_excludes_a_second_opener_until_closed(tmp_path: Path) -> None:
    first = opened(tmp_path / "run")
    with pytest.raises(ConfigError, match="another node is running"):
        RunDirectory(tmp_path / "run").open()
    first.close()
    first.close()
    opened(tmp_path / "run").close()


def test_excludes_another_process_and_is_free_when_that_is_killed(tmp_path: Path) -> None:
    process = holder(tmp_path / "run")
    try:
        with pytest.raises(ConfigError, match="another node is running"):
            RunDirectory(tmp_path / "run").open()
        process.send_signal(signal.SIGKILL)
        process.wait()
        opened(tmp_path / "run").close()
    finally:
        end(process)


def test_takes_the_first_directory_in_which_no_node_runs(tmp_path: Path) -> None:
    first = first_free("demo", tmp_path)
    second = first_free("demo", tmp_path)
    third = first_free("demo", tmp_path)
    assert [d.path.name for d in (first, second, third)] == ["demo", "demo-2", "demo-3"]
    second.close()
    again = first_free("demo", tmp_path)
    assert again.path.name == "demo-2"
    for directory in (first, third, again):
        directory.close()


def test_an_unwritable_place_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for attempt in (
        lambda: RunDirectory(tmp_path / "file" / "run").open(),
        lambda: RunDirectory(tmp_path / "file").open(),
        lambda: first_free("demo", tmp_path / "file"),
    ):
        with pytest.raises(ConfigError, match=r"^cannot write to the run directory [^\n]* --run"):
            attempt()


def test_rows_come_back_in_order(tmp_path: Path) -> None:
    directory = opened(tmp_path)
    rows = [{"round": 1, "loss": 0.25}, {"round": 2, "loss": None, "text": "ä\n"}]
    for row in rows:
        directory.append(directory.rounds, row)
    assert read_rows(directory.rounds) == rows
    assert directory.rounds.read_text().count("\n") == 2
    directory.close()


def test_an_absent_file_has_no_rows(tmp_path: Path) -> None:
    assert read_rows(tmp_path / "rounds.jsonl") == []


@pytest.mark.parametrize("tail", [b'{"round":3,"lo', b'{"round":3', b"\0" * 10, b"\xff\xfe\xfd"])
def test_a_line_that_was_cut_is_left_out(tmp_path: Path, tail: bytes) -> None:
    directory = opened(tmp_path)
    for round in (1, 2):
        directory.append(directory.rounds, {"round": round})
    with directory.rounds.open("ab") as file:
        file.write(tail)
    assert [row["round"] for row in read_rows(directory.rounds)] == [1, 2]
    directory.keep_rows_up_to(2)
    directory.append(directory.rounds, {"round": 3})
    assert [row["round"] for row in read_rows(directory.rounds)] == [1, 2, 3]
    directory.close()


def test_a_cut_line_in_the_middle_costs_no_later_rows(tmp_path: Path) -> None:
    path = tmp_path / "rounds.jsonl"
    path.write_bytes(b'{"round":1}\n{"round":\n{"round":3}\n')
    assert [row["round"] for row in read_rows(path)] == [1, 3]


def test_a_resumed_run_drops_the_rows_that_it_does_again(tmp_path: Path) -> None:
    directory = opened(tmp_path)
    for round in range(6):
        directory.append(directory.rounds, {"round": round})
    directory.append(directory.evaluations, {"round": 0})
    directory.append(directory.evaluations, {"round": 4})
    directory.keep_rows_up_to(3)
    directory.append(directory.rounds, {"round": 4, "again": True})
    assert [row["round"] for row in read_rows(directory.rounds)] == [0, 1, 2, 3, 4]
    assert read_rows(directory.rounds)[-1] == {"round": 4, "again": True}
    assert [row["round"] for row in read_rows(directory.evaluations)] == [0]
    directory.close()


def test_writing_replaces_the_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    directory = opened(tmp_path)
    for text in ("first and longer\n", "second\n"):
        directory.write("config.toml", text)
        assert (tmp_path / "config.toml").read_text() == text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.toml", "lock"]
    directory.close()


def test_a_disk_that_refuses_is_an_error_of_the_environment(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / "absent")
    for attempt in (
        lambda: directory.write("config.toml", ""),
        lambda: directory.append(directory.rounds, {"round": 1}),
    ):
        with pytest.raises(SwarmNodeError, match="cannot write"):
            attempt()


def test_a_row_holds_no_figure_that_is_no_number(tmp_path: Path) -> None:
    """JSON has no NaN: what reads the file would refuse it. Reports have None instead."""
    directory = opened(tmp_path)
    with pytest.raises(ValueError, match="JSON"):
        directory.append(directory.rounds, {"loss": float("nan")})
    directory.close()


def test_the_environment_names_versions_seed_and_hardware() -> None:
    record = environment(seed=5, device="cpu", threads=2)
    assert (record["seed"], record["device"], record["threads"]) == (5, "cpu", 2)
    assert record["packages"]["reasoning_gym"] == "0.1.25"
    assert set(record) >= {"python", "platform", "cpus", "swarmnode"}
