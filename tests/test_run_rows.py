"""The end of long files of JSON lines, read and cut, whatever a crash left in them."""

import json
import random
from pathlib import Path

import pytest

from swarmnode.rows import keep_up_to, newest_rows
from swarmnode.run_directory import read_rows


def write(path: Path, rounds: int, filler: int = 0) -> None:
    lines = [json.dumps({"round": n, "x": "y" * filler}) for n in range(1, rounds + 1)]
    path.write_text("".join(f"{line}\n" for line in lines))


def numbers(rows: list[dict[str, object]]) -> list[object]:
    return [row["round"] for row in rows]


# 100 kB: each line is longer than what is read at a time.
@pytest.mark.parametrize("filler", [0, 700, 100_000])
def test_the_newest_rows_are_the_last_of_all(tmp_path: Path, filler: int) -> None:
    path = tmp_path / "rounds.jsonl"
    write(path, 200, filler)
    everything = read_rows(path)
    for count in (0, 1, 7, 199, 200, 500):
        assert newest_rows(path, count) == everything[len(everything) - min(count, 200) :]


def test_no_file_and_an_empty_one_have_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "rounds.jsonl"
    assert newest_rows(path, 3) == []
    keep_up_to(path, 3)
    assert not path.exists()
    path.write_bytes(b"")
    assert newest_rows(path, 3) == []
    keep_up_to(path, 3)
    assert path.read_bytes() == b""


def test_a_line_being_written_and_damaged_ones_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "rounds.jsonl"
    path.write_bytes(b'{"round":1}\n{"round":\n\0\0\0\n7\n{"round":3}\n{"round":4')
    assert numbers(newest_rows(path, 9)) == [1, 3]


@pytest.mark.parametrize("filler", [0, 700, 100_000])
def test_cutting_keeps_every_byte_of_the_rows_before(tmp_path: Path, filler: int) -> None:
    path = tmp_path / "rounds.jsonl"
    write(path, 120, filler)
    content = path.read_bytes()
    for round in (500, 120, 119, 60, 1, 0):
        keep_up_to(path, round)
        assert numbers(read_rows(path)) == list(range(1, min(round, 120) + 1))
        assert content.startswith(path.read_bytes())


def test_after_a_cut_anywhere_the_next_row_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "rounds.jsonl"
    write(path, 5, 30)
    content = path.read_bytes()
    rng = random.Random(0)
    for cut in rng.sample(range(len(content)), 60):
        path.write_bytes(content[:cut] + rng.choice([b"", b"\0" * 9, b"\0\n", b"}\n"]))
        whole = numbers(read_rows(path))
        keep_up_to(path, 9)
        assert content.startswith(path.read_bytes())
        with path.open("ab") as file:
            file.write(b'{"round":6}\n')
        assert numbers(read_rows(path)) == [*[n for n in whole if n != 7], 6]
