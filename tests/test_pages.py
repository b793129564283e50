"""Histories in bins against sums by hand, and pages of hostile and very long runs."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from fakes import round_report

from swarmnode.errors import ConfigError, SwarmNodeError
from swarmnode.pages import figures, html, names_of, run, write
from swarmnode.pages.differences import differences
from swarmnode.pages.history import MAX_BINS, History, read
from swarmnode.report import Evaluation, Totals


def make(folder: Path, rounds: int, settings: str = "", **changes: Any) -> Path:
    """A run whose own reward is its round's number and whose rounds take ten seconds."""
    folder.mkdir(parents=True)
    with (folder / "rounds.jsonl").open("w") as file:
        for number in range(1, rounds + 1):
            totals = Totals(
                tokens_generated=30 * number, bytes_in=1000 * number, refused={"too_old": number}
            )
            row = round_report(
                number, time=10.0 * number, own_reward=float(number), totals=totals, **changes
            )
            file.write(json.dumps(row.as_dict()) + "\n")
    (folder / "config.toml").write_text(settings)
    (folder / "manifest.toml").write_text('name = "demo"\n')
    return folder


def history(folder: Path, rounds: int, **changes: Any) -> History:
    return read(make(folder, rounds, **changes), folder.name)


def test_a_short_run_has_a_bin_per_round(tmp_path: Path) -> None:
    found = history(tmp_path / "run", 5)
    assert found.curve("own_reward") == ([1, 2, 3, 4, 5], [1, 2, 3, 4, 5], [0] * 5)
    assert not found.is_binned
    assert found.rate("tokens_generated") == ([2, 3, 4, 5], [3.0] * 4)  # 30 in ten seconds
    assert found.refused == {"too_old": 5}


def test_a_long_run_is_binned_and_every_round_counts_once(tmp_path: Path) -> None:
    rounds = 10 * MAX_BINS
    found = history(tmp_path / "run", rounds)
    assert len(found.bins) == MAX_BINS
    assert sum(one.rounds for one in found.bins) == rounds
    xs, means, spreads = found.curve("own_reward")
    # The first bin is of the rounds 1 … 10: mean 5.5, variance (10² − 1) / 12 = 8.25.
    assert (xs[0], means[0]) == (5.5, 5.5)
    assert spreads[0] == pytest.approx(8.25**0.5)
    assert means[-1] == rounds - 4.5
    assert found.bins[0].seconds["generate"] == pytest.approx(15)  # ten times 1.5 s
    assert found.rate("bytes_in")[1] == pytest.approx([100.0] * (MAX_BINS - 1))


def test_what_was_not_measured_is_not_drawn(tmp_path: Path) -> None:
    found = history(tmp_path / "run", 3, external_reward=None)
    assert found.curve("external_reward") == ([], [], [])


def test_damaged_and_repeated_lines_are_passed_over(tmp_path: Path) -> None:
    folder = make(tmp_path / "run", 3)
    text = (folder / "rounds.jsonl").read_text()
    first = text.splitlines()[0]
    (folder / "rounds.jsonl").write_bytes(
        b"\0\0\0\n" + text.encode() + b"{\n" + first.encode() + b"\n"
    )
    # The last whole line is of round 1: what a resumed run does again replaces nothing here.
    found = read(folder, "run")
    assert found.rounds >= 1
    assert sum(one.rounds for one in found.bins) == found.rounds


def test_differences_are_what_differs(tmp_path: Path) -> None:
    one = history(tmp_path / "a", 1, settings="[train]\nlr = 0.5\n[network]\nport = 1\n")
    two = history(
        tmp_path / "b", 1, settings="[train]\nlr = 0.5\nepochs = 2\n[network]\nport = 2\n"
    )
    assert differences([one, two]) == {"train.epochs": ["-", "2"]}
    assert differences([one, one]) == {}
    assert differences([one])["train.lr"] == ["0.5"]


def test_the_page_escapes_every_name(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    folder = make(tmp_path / "run", 2, settings=f"[model]\nlabel = {json.dumps(evil)}\n")
    scores = Evaluation(1, 0.0, {evil: 0.5}, {evil: 0.25}).as_dict()
    (folder / "evaluations.jsonl").write_text(json.dumps(scores) + "\n")
    text = html.page([read(folder, evil)], [])
    assert "<script" not in text
    assert text.count("&lt;script&gt;") >= 4  # title, heading, label, task


@pytest.mark.slow
def test_pictures_of_anything_from_one_round_to_many_runs(tmp_path: Path) -> None:
    some = [history(tmp_path / f"run-{number}", 2 + number) for number in range(3)]
    many = [some[number % 3] for number in range(figures.MAX_COLOURS + 5)]
    bare = history(
        tmp_path / "bare", 1, external_reward=None, loss=None, sharing_gain=None, peers=0
    )
    for histories in ([bare], some, many):
        for picture in figures.draw(histories):
            assert picture.png.startswith(b"\x89PNG\r\n\x1a\n"), picture.name
    write(some, tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!data:)""", page)


def test_names_tell_runs_apart() -> None:
    assert names_of([Path("x/run"), Path("y/run")]) == ["x/run", "y/run"]
    with pytest.raises(ConfigError, match="given twice"):
        names_of([Path("x"), Path("x")])


def test_a_run_without_rounds_and_a_disk_that_refuses_are_told(tmp_path: Path) -> None:
    new = tmp_path / "new"
    new.mkdir()
    (new / "lock").touch()
    with pytest.raises(ConfigError, match="no round yet"):
        run([new], tmp_path / "out")
    (tmp_path / "file").touch()
    with pytest.raises(SwarmNodeError, match="cannot write the report"):
        write([history(tmp_path / "run", 1)], tmp_path / "file" / "out")
