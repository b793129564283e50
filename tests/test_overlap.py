"""The round loop with an engine beside the trainer: hand-overs, one step of staleness, deaths."""

from pathlib import Path
from typing import Any

import pytest
from copy_engine import CopyEngine
from test_node import node, settings

from swarmnode import config, identity
from swarmnode.config import Settings
from swarmnode.errors import ConfigError
from swarmnode.run_directory import read_rows
from swarmnode.swarm.memory import Hub

pytestmark = pytest.mark.slow


def beside(*, overlap: bool, **run: object) -> Settings:
    generate = {"engine": "vllm", "overlap": overlap, "questions": 4, "completions": 8}
    flags = {"generate": generate, "sharing": {"rule": "sapo"}}
    return config.load(None, flags, settings(evaluate_every=0, seed=5, **run))


def rows_after(
    folder: Path, chosen: Settings, engine: CopyEngine, rounds: int
) -> list[dict[str, Any]]:
    """The rows of so many rounds of the node with a fixed key: its questions come from that."""
    folder.mkdir(exist_ok=True)
    key = folder / "identity.key"
    me = identity.from_seed(bytes(32))
    key.write_bytes(b"\x08\x01\x12\x40" + me.seed + me.public_key)
    key.chmod(0o600)
    with node(folder, Hub(), chosen, engine) as one:
        for _ in range(rounds):
            one.run_round()
    return read_rows(folder / "rounds.jsonl")


def test_without_overlap_every_answer_is_of_the_newest_policy(tmp_path: Path) -> None:
    rows = rows_after(tmp_path / "a", beside(overlap=False), CopyEngine(), 4)
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
    rows = rows_after(tmp_path / "a", beside(overlap=True, rounds=5), engine, 5)
    steps = [row["policy_version"] for row in rows]
    taken = [after - before for before, after in zip([0, *steps], steps, strict=False)]
    # What the round before stepped is what the engine had not seen.
    assert [row["own_lag"] for row in rows] == [0, *taken[:-1]]
    assert 1 in [row["own_lag"] for row in rows]
    # It shows in the mismatch, which the loss corrects for.
    stale = [row["mismatch"] for row in rows if row["own_lag"] and row["mismatch"] is not None]
    assert min(stale) > 1e-4
    assert len(engine.batches) == 5  # nothing is asked for after the last round


def test_what_was_in_flight_is_asked_again_by_the_resumed_node(tmp_path: Path) -> None:
    first, second = CopyEngine(), CopyEngine()
    # The fourth round's questions are in flight, then the node is gone.
    rows_after(tmp_path / "a", beside(overlap=True), first, 3)
    in_flight = first.batches[-1]
    assert len(first.batches) == 4
    row = rows_after(tmp_path / "a", beside(overlap=True), second, 1)[-1]
    assert second.batches[0] == in_flight  # the same questions with the same seeds
    assert second.batches[0] != first.batches[-2]
    assert (row["round"], row["own_lag"]) == (4, 0)  # of the checkpoint's weights


def test_an_engine_that_dies_costs_no_round(tmp_path: Path) -> None:
    chosen = beside(overlap=False)
    whole = rows_after(tmp_path / "whole", chosen, CopyEngine(), 3)
    broken = rows_after(tmp_path / "broken", chosen, CopyEngine(dying=[2]), 3)
    assert [row["engine_restarts"] for row in broken] == [0, 1, 1]
    assert [row["totals"]["rounds_failed"] for row in broken] == [0, 0, 0]
    assert [row["own_reward"] for row in broken] == [row["own_reward"] for row in whole]
    assert [row["loss"] for row in broken] == [row["loss"] for row in whole]


def test_a_node_trains_on_when_its_engine_is_given_up(tmp_path: Path) -> None:
    flags = {"generate": {"engine_failures": 0}}
    chosen = config.load(None, flags, beside(overlap=True))
    rows = rows_after(tmp_path / "a", chosen, CopyEngine(dying=[2]), 4)
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
