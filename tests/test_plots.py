"""A picture of the right size from made-up rows, whatever of them is missing."""

import json
import struct
from pathlib import Path

import pytest
from fakes import round_report

from swarmnode.errors import SwarmNodeError
from swarmnode.plots import learning_curves
from swarmnode.report import Evaluation

SIZE = (1320, 792)  # 12 × 7.2 inches at 110 dots


def run(folder: Path, rounds: int = 0, evaluations: int = 0, external: bool = True) -> Path:
    folder.mkdir()
    rows = [
        round_report(number, external_reward=0.5 if external else None).as_dict()
        for number in range(1, rounds + 1)
    ]
    scores = [
        Evaluation(number, 0.0, {"add": 0.5}, {"add": 0.25}).as_dict()
        for number in range(evaluations)
    ]
    for name, lines in (("rounds", rows), ("evaluations", scores)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def size(picture: Path) -> tuple[int, int]:
    """Width and height from the header that every PNG begins with (RFC 2083, 4.1.1)."""
    data = picture.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    return width, height


@pytest.mark.slow
def test_draws_a_swarm(tmp_path: Path) -> None:
    runs = [run(tmp_path / f"node-{number}", rounds=30, evaluations=3) for number in range(3)]
    learning_curves(runs, tmp_path / "learning.png")
    assert size(tmp_path / "learning.png") == SIZE


@pytest.mark.slow
def test_draws_what_there_is(tmp_path: Path) -> None:
    runs = [
        run(tmp_path / "alone", rounds=5, evaluations=1, external=False),
        run(tmp_path / "new"),
        tmp_path / "absent",
    ]
    learning_curves(runs, tmp_path / "some.png")
    learning_curves(runs[1:], tmp_path / "nothing.png")
    learning_curves([], tmp_path / "nobody.png")
    for name in ("some", "nothing", "nobody"):
        assert size(tmp_path / f"{name}.png") == SIZE


@pytest.mark.slow
def test_a_disk_that_refuses_is_an_error_of_the_environment(tmp_path: Path) -> None:
    with pytest.raises(SwarmNodeError, match="cannot write the picture"):
        learning_curves([run(tmp_path / "node", rounds=2)], tmp_path / "absent" / "learning.png")
