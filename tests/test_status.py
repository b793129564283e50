"""What is said of a run, from made-up rows and what its process said."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from fakes import round_report

from swarmnode.errors import ConfigError
from swarmnode.life import Phase
from swarmnode.report import Evaluation, Totals
from swarmnode.run_directory import RunDirectory
from swarmnode.run_view import RunView, alone_because, view
from swarmnode.run_words import lines, verdict
from swarmnode.status import as_dict

NOW = 1_700_000_000.0


def write(run: RunDirectory, **changes: Any) -> None:
    """Thirty rounds, ten seconds apart, the last of which ended at `NOW`."""
    for number in range(1, 31):
        totals = Totals(
            tokens_generated=100 * number, bytes_in=50 * number, bytes_out=20 * number,
            refused={"too_old": 2}, missed={"absent": 3}, trained_from={"12D3": 4},
        )  # fmt: skip
        report = round_report(
            number, time=NOW - 10 * (30 - number), own_reward=number / 100, totals=totals, **changes
        )
        run.append(run.rounds, report.as_dict())


def opened(tmp_path: Path) -> RunDirectory:
    run = RunDirectory(tmp_path / "run")
    run.open()
    run.write("config.toml", '[model]\nname = "demo"\n[sharing]\nrule = "hybrid"\n')
    run.write("manifest.toml", 'name = "demo"\n')
    return run


def told(run: RunDirectory, now: float = NOW + 1) -> str:
    return verdict(view(run.path, now))


def test_means_rates_and_shares_are_of_the_last_rounds(tmp_path: Path) -> None:
    run = opened(tmp_path)
    write(run, external_by_model={"tiny": 2, "qwen": 1})
    one = view(run.path, NOW + 1)
    assert one.recent("own_reward") == pytest.approx(0.255)  # mean of 0.21 … 0.30
    assert one.quiet_s == pytest.approx(1)
    assert one.rates() == pytest.approx(
        {"tokens": 10, "bytes_in": 5, "bytes_out": 2, "rounds": 0.1}
    )
    # Of 2 s a round generate 1.5, train 0.5.
    assert one.phases() == pytest.approx({"generate": 0.75, "train": 0.25, "other": 0})
    assert one.models() == {"tiny": 60, "qwen": 30}
    assert json.loads(json.dumps(as_dict(one)))["swarm"] == "demo"
    run.close()


def test_says_first_why_a_running_node_does_not_get_on(tmp_path: Path) -> None:
    run = opened(tmp_path)
    run.tell(Phase.RUNNING)
    assert told(run, time.time()) == "evaluates the model before its first round"
    write(run)
    assert told(run) == "all is well"
    assert told(run, NOW + 50) == "all is well"
    assert told(run, NOW + 300).startswith("no round for 5 min 0 s, usual are 2.0 s")
    run.tell(Phase.WAITING, "cannot write rounds.jsonl: No space left on device")
    assert "No space left" in told(run)
    run.tell(Phase.PAUSED)
    assert told(run) == f"paused: swarmnode resume {run.path}"
    run.tell(Phase.FAILED, "the disk is full")
    run.close()
    assert told(run).startswith("the disk is full. Once that is mended the same command resumes")
    run.close()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"peers": 0, "waiting_for": "alone: no --peer was given"}, "alone: no --peer was given"),
        ({"peers": 0, "waiting_for": ""}, "no peer is connected"),
        ({"waiting_for": "no signal"}, "waits for: no signal"),
    ],
)
def test_says_why_it_is_alone(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    run = opened(tmp_path)
    run.tell(Phase.RUNNING)
    write(run, **changes)
    assert says in told(run)
    run.close()


def test_a_row_that_says_itself_why_it_is_alone_is_believed() -> None:
    row = {"peers": 0, "waiting_for": "alone", "alone_because": "behind a NAT"}
    assert alone_because(row) == "behind a NAT"


def test_a_killed_node_is_told_from_one_that_ended(tmp_path: Path) -> None:
    run = opened(tmp_path)
    run.tell(Phase.RUNNING)
    write(run)
    (run.checkpoints / "round-00000028").mkdir(parents=True)
    run.close()  # gives the lock back, as the end of the process does
    assert "it was killed" in told(run)
    assert told(run).endswith("resumes it after round 28")
    text = dict(lines(view(run.path, NOW)))
    assert text["last words"] == "none"
    assert text["refused"] == "2 (too_old 2)"
    assert text["missed"] == "3 (absent 3)"


def test_a_run_of_an_older_version_is_shown_too(tmp_path: Path) -> None:
    run = opened(tmp_path)
    row = round_report(1).as_dict()
    for new in ("external_by_model", "sharing_gain", "sharing_gain_error", "staleness_rounds"):
        del row[new]
    run.append(run.rounds, row)
    run.append(run.evaluations, Evaluation(0, 0.0, {"add": 0.5}, {"add": 0.25}).as_dict())
    run.close()
    text = dict(lines(view(run.path, NOW)))
    assert text["peers give"] == "not measured yet"
    assert text["held-out"] == "0.500 at round 0; best constant answer 0.250"
    assert told(run) == "no node runs here"


def test_a_peers_label_cannot_steer_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from swarmnode.status import status

    run = opened(tmp_path)
    write(run, external_by_model={"\x1b[2Jevil": 1, "[red]x": 1})
    run.close()
    status(run.path, as_json=False)
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "[red]x" in printed


def test_many_models_are_shown_as_a_few_and_the_rest(tmp_path: Path) -> None:
    run = opened(tmp_path)
    write(run, external_by_model={f"model-{number}": number for number in range(1, 101)})
    models = view(run.path, NOW).models()
    assert list(models)[:2] == ["model-100", "model-99"]
    assert len(models) == 9
    assert sum(models.values()) == 30 * 5050  # 1 + … + 100 in each of thirty rounds
    run.close()


@pytest.mark.parametrize("name", ["absent", "empty", "demo"])
def test_what_is_no_run_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "demo" / "node-0").mkdir(parents=True)
    (tmp_path / "demo" / "node-0" / "lock").touch()
    with pytest.raises(ConfigError, match="node-0" if name == "demo" else "give the run directory"):
        view(tmp_path / name)


def test_lateness_respects_a_rest_that_was_asked_for(tmp_path: Path) -> None:
    run = opened(tmp_path)
    run.write("config.toml", "[run]\nmin_round_s = 60.0\n")
    run.tell(Phase.RUNNING)
    write(run)

    def late(after_s: float) -> bool:
        one: RunView = view(run.path, NOW + after_s)
        return one.is_late

    assert [late(after_s) for after_s in (100, 599, 601)] == [False, False, True]
    run.close()
