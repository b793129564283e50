"""What trackers are told; TensorBoard's files are read back where its library is installed."""

from importlib.util import find_spec
from pathlib import Path

import pytest
from fakes import round_report

from swarmnode.errors import ConfigError
from swarmnode.report import Evaluation, Totals
from swarmnode.run_directory import RunDirectory
from swarmnode.tracking import Tracker, figures_of, open_tracker, require


class Memory:
    """A sink that keeps what it is told, or fails."""

    def __init__(self, error: Exception | None = None) -> None:
        self.told: list[tuple[dict[str, float], int]] = []
        self.error = error
        self.is_closed = False

    def write(self, figures: dict[str, float], round: int) -> None:
        if self.error is not None:
            raise self.error
        self.told.append((figures, round))

    def close(self) -> None:
        self.is_closed = True


def test_a_round_becomes_figures_and_what_was_not_measured_is_left_out() -> None:
    totals = Totals(refused={"too_old": 2, "malformed": 1}, bytes_in=7)
    figures = figures_of(round_report(5, loss=None, totals=totals))
    assert figures["round/own_reward"] == 0.25
    assert figures["task/add"] == 0.25
    assert figures["seconds/generate"] == 1.5
    assert (figures["total/refused"], figures["total/bytes_in"]) == (3, 7)
    assert "round/loss" not in figures


def test_an_evaluation_is_told_once_and_the_last_one_on_closing(tmp_path: Path) -> None:
    directory, sink = RunDirectory(tmp_path), Memory()
    tracker = Tracker(sink, directory)
    for number in (0, 2):
        scores = Evaluation(number, 0.0, {"add": 0.5, "mul": 0.25}, {"add": 0.0, "mul": 0.0})
        directory.append(directory.evaluations, scores.as_dict())
        if number == 0:
            tracker.record(round_report(1))
            tracker.record(round_report(2))
    tracker.close()
    tracker.close()
    told = [(figures["held_out/mean"], r) for figures, r in sink.told if "held_out/mean" in figures]
    assert told == [(0.375, 0), (0.375, 2)]
    assert [r for figures, r in sink.told if "round/loss" in figures] == [1, 2]
    assert sink.is_closed


def test_a_tracker_that_fails_is_dropped_and_training_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = Tracker(Memory(OSError("disk full")), RunDirectory(tmp_path))
    tracker.record(round_report(1))
    tracker.record(round_report(2))
    tracker.close()
    assert caplog.text.count("dropped") == 1


def test_none_is_no_tracker_and_a_missing_library_is_told(tmp_path: Path) -> None:
    require("none")
    tracker = open_tracker("none", RunDirectory(tmp_path), {})
    tracker.record(round_report(1))
    tracker.close()
    for name in ("tensorboard", "wandb"):
        if find_spec(name) is None:
            with pytest.raises(ConfigError, match=rf"pip install 'swarmnode\[{name}\]'"):
                require(name)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("tensorboard") is None, reason="needs tensorboard")
def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-not-found, unused-ignore]  # optional
        EventAccumulator,
    )

    tracker = open_tracker("tensorboard", RunDirectory(tmp_path), {})
    for number in (1, 2, 3):
        tracker.record(round_report(number, own_reward=number / 8))
    tracker.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    curve = [(event.step, event.value) for event in events.Scalars("round/own_reward")]
    assert curve == [(1, 0.125), (2, 0.25), (3, 0.375)]
