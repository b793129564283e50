"""The battery itself: what counts as missed, and that what it measures can be missed."""

import sys
from pathlib import Path

import answers
import battery
import bombs
import pytest
import zstandard
from figures import figure

from protocol import compression
from protocol.errors import ProtocolError
from swarmnode.tasks.scorer import Scorer
from swarmnode.tasks.scoring import Scoring


def test_finds_every_part_without_importing_it() -> None:
    assert {"answers", "bombs", "fuzzing"} <= set(battery.parts())
    assert not {"battery", "figures"} & set(battery.parts())
    assert battery._measures("def measure(short: bool): ...")
    assert not battery._measures("def measure(): ...")


def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str, flag: str = "--short") -> int:
    """The battery's exit code with one part, in a folder of its own."""
    (tmp_path / "figures.py").write_text((battery.HERE / "figures.py").read_text())
    (tmp_path / "battery.py").write_text((battery.HERE / "battery.py").read_text())
    (tmp_path / "part.py").write_text(source)
    monkeypatch.setattr(battery, "HERE", tmp_path)
    monkeypatch.setattr(battery, "__file__", str(tmp_path / "battery.py"))
    monkeypatch.setattr(sys, "argv", ["battery.py", flag])
    return battery.main()


def test_a_missed_figure_and_a_broken_part_are_missed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part = (
        "from figures import figure\n"
        "def measure(short):\n    return [figure('a', {}, '{}', '<', 3)]"
    )
    assert run(monkeypatch, tmp_path, part.format(2, "of 9")) == 0
    assert "yes a: 2 of 9 (target < 3)" in capsys.readouterr().out
    assert run(monkeypatch, tmp_path, part.format(3, "of 9")) == 1
    assert "NO  a: 3 of 9 (target < 3)" in capsys.readouterr().out
    assert run(monkeypatch, tmp_path, part.format(3, "s")) == 0, "the clock of a busy machine"
    assert run(monkeypatch, tmp_path, part.format(3, "s"), "--limit-s=60") == 1
    assert run(monkeypatch, tmp_path, "def measure(short):\n    raise KeyError('gone')") == 1
    assert "KeyError: 'gone'" in capsys.readouterr().out
    assert run(monkeypatch, tmp_path, "IN_CI = False\ndef measure(short):\n    return 1 / 0") == 0
    assert "part (left out" in capsys.readouterr().out
    assert figure("b", float("nan"), "s", "<", 3).ok is False


@pytest.mark.slow
def test_a_scorer_that_evaluates_is_found_out() -> None:
    tried, events, marks, _ = answers.attack(600, evaluates=True)
    assert tried == 600
    assert events > 100
    assert marks > 10


@pytest.mark.slow
def test_a_scorer_that_evaluates_nothing_is_not() -> None:
    assert answers.attack(600) == (600, 0, 0, 0)


@pytest.mark.slow
def test_scored_on_the_loop_itself_a_hanging_scorer_holds_it_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As it was before: the loop waits for the scores, however long they take."""
    finished = Scoring.finished
    monkeypatch.setattr(Scoring, "finished", lambda self, wait_s: finished(self, 60.0))
    stall_ms, gone_s = answers.hanging()
    assert stall_ms > 1000
    assert gone_s < 60


@pytest.mark.slow
def test_a_scorer_without_a_limit_is_not_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "Scorer", lambda form, time_limit_s: Scorer(form, 4.0))
    _, gone_s = answers.hanging()
    assert gone_s > 2


def test_a_bomb_that_is_taken_is_no_refusal() -> None:
    with pytest.raises(bombs.Taken):
        bombs.refuse(bombs.Bomb(b"x", lambda data: data))


def test_without_the_look_at_the_header_a_bomb_takes_its_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bomb = bombs.bombs()["zstd: 128 MiB of zeros"]
    assert bombs._cost(bomb, 1)[1] < bombs._allowed(bomb)

    def naive(data: bytes, limit_bytes: int) -> bytes:
        body = zstandard.ZstdDecompressor().decompress(data, max_output_size=limit_bytes)
        raise compression._refused(f"{len(body)} bytes")

    monkeypatch.setattr(bombs.envelope, "decompress", naive)
    ms, used = bombs._cost(bomb, 1)
    assert used > 100 * bombs._allowed(bomb)
    assert ms > 0


def test_every_bomb_is_refused() -> None:
    for name, bomb in bombs.bombs().items():
        try:
            bombs.refuse(bomb)
        except (bombs.Taken, ProtocolError) as error:
            pytest.fail(f"{name}: {error}")
