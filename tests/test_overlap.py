"""The round loop with an engine beside the trainer: hand-overs, one step of staleness, deaths."""

from pathlib import Path

import pytest
from copy_engine import CopyEngine
from test_node import node, settings

from swarmnode import config
from swarmnode.config import Settings
from swarmnode.errors import ConfigError
from swarmnode.run_directory import read_rows
from swarmnode.swarm.memory import Hub

pytestmark = pytest.mark.slow


def beside(*, overlap: bool, **run: object) -> Settings:
    generate = {"engine": "vllm", "overlap": overlap, "questions": 4}
    flags = {"generate": generate, "sharing": {"rule": "sapo"}}
    return config.load(None, flags, settings(evaluate_every=0, seed=5, **run))


def rows_of(folder: Path) -> list[dict]:
    return read_rows(folder / "rounds.jsonl")


def test_without_overlap_every_answer_is_of_the_newest_policy(tmp_path: Path) -> None:
    engine = CopyEngine()
    with node(tmp_path / "a", Hub(), beside(overlap=False, rounds=4), engine) as one:
        one.run()
    rows = rows_of(tmp_path / "a")
    assert [row["own_lag"] for row in rows] == [0, 0, 0, 0]
    assert {row["engine"] for row in rows} == {"vllm"}
    assert rows[-1]["policy_version"] > 1
    # The trainer recomputes what the engine stated, by weights handed over (padded on the way).
    gaps = [row["mismatch"] for row in rows if row["mismatch"] is not None]
    assert gaps
    assert max(gaps) < 1e-4
    assert all(row["mismatch_kl"] < 1e-6 for row in rows if row["mismatch"] is not None)
    assert all(row["handover_s"] > 0 for row in rows)


def test_with_overlap_answers_are_one_step_old_and_never_more(tmp_path: Path) -> None:
    engine = CopyEngine()
    with node(tmp_path / "a", Hub(), beside(overlap=True, rounds=5), engine) as one:
        one.run()
    rows = rows_of(tmp_path / "a")
    steps = [row["policy_version"] for row in rows]
    taken = [after - before for before, after in zip([0, *steps], steps, strict=False)]
    # What the round before stepped is what the engine had not seen.
    assert [row["own_lag"] for row in rows] == [0, *taken[:-1]]
    assert 1 in [row["own_lag"] for row in rows]
    # It shows in the mismatch, which the loss corrects for.
    stale = [row["mismatch"] for row in rows if row["own_lag"] and row["mismatch"] is not None]
    assert min(stale) > 1e-4
    # Rounds and two evaluations; nothing is asked for after the last round.
    sampled = [batch for batch in engine.batches if batch.temperature is not None]
    assert len(sampled) == 5


def test_what_was_in_flight_is_asked_again_by_the_resumed_node(tmp_path: Path) -> None:
    first, second = CopyEngine(), CopyEngine()
    with node(tmp_path / "a", Hub(), beside(overlap=True), first) as one:
        for _ in range(3):
            one.run_round()  # the fourth round's questions are in flight, then the node is gone
    in_flight = first.batches[-1]
    assert len(first.batches) == 4
    with node(tmp_path / "a", Hub(), beside(overlap=True), second) as one:
        report = one.run_round()
    assert second.batches[0] == in_flight  # the same questions with the same seeds
    assert second.batches[0] != first.batches[-2]
    assert (report.round, report.own_lag) == (4, 0)  # of the checkpoint's weights


def test_an_engine_that_dies_costs_no_round(tmp_path: Path) -> None:
    chosen = beside(overlap=False, rounds=3)
    with node(tmp_path / "whole", Hub(), chosen, CopyEngine()) as one:
        one.run()
    # 1: the evaluation before the first round. 3: the second round.
    with node(tmp_path / "broken", Hub(), chosen, CopyEngine(dying=[3])) as one:
        one.run()
    whole, broken = rows_of(tmp_path / "whole"), rows_of(tmp_path / "broken")
    assert [row["engine_restarts"] for row in broken] == [0, 1, 1]
    assert [row["totals"]["rounds_failed"] for row in broken] == [0, 0, 0]
    assert [row["own_reward"] for row in broken] == [row["own_reward"] for row in whole]
    assert [row["loss"] for row in broken] == [row["loss"] for row in whole]


def test_a_node_trains_on_when_its_engine_is_given_up(tmp_path: Path) -> None:
    flags = {"generate": {"engine_failures": 0}}
    chosen = config.load(None, flags, beside(overlap=True, rounds=4))
    with node(tmp_path / "a", Hub(), chosen, CopyEngine(dying=[3])) as one:
        one.run()
    rows = rows_of(tmp_path / "a")
    assert [row["engine"] for row in rows] == ["vllm", "hf", "hf", "hf"]
    assert [row["engine_given_up"] for row in rows] == [False, True, True, True]
    assert rows[-1]["policy_version"] > rows[0]["policy_version"]


def test_overlap_needs_an_engine_with_weights_of_its_own(tmp_path: Path) -> None:
    chosen = config.load(None, {"generate": {"engine": "hf"}}, beside(overlap=True))
    with (
        pytest.raises(ConfigError, match="--overlap needs --engine vllm"),
        node(tmp_path / "a", Hub(), chosen),
    ):
        pass
