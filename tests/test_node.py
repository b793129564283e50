"""The round loop on the shipped model, over the memory transport: real tasks, scorer, training."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
import torch

from swarmnode import config, identity, manifest
from swarmnode.config import Settings
from swarmnode.errors import ConfigError, SwarmNodeError
from swarmnode.generation import StartEngine
from swarmnode.identity import Identity
from swarmnode.node import Node
from swarmnode.report import RoundReport
from swarmnode.resuming import PublishedBefore
from swarmnode.run_directory import RunDirectory, read_rows
from swarmnode.swarm.memory import Hub, MemoryTransport
from swarmnode.swarm.publishing import Published
from swarmnode.train import checkpoint

pytestmark = pytest.mark.slow


def settings(**run: object) -> Settings:
    flags = {
        "generate": {"questions": 2, "completions": 4},
        "sharing": {"rule": "sapo"},
        "run": {"threads": 1, "checkpoint_every": 1, "evaluate_questions": 2, **run},
        "metrics": {"port": -1},
    }
    return config.load(None, flags, config.preset("demo"))


@contextmanager
def node(
    folder: Path, hub: Hub, chosen: Settings, engine: StartEngine | None = None
) -> Iterator[Node]:
    directory = RunDirectory(folder)
    directory.open()

    def transport(identity: Identity, swarm_id: bytes, label: str) -> MemoryTransport:
        return MemoryTransport(hub, identity.peer_id)

    one = Node(chosen, manifest.load("demo"), directory, transport, engine)
    try:
        one.open()
        yield one
    finally:
        one.close()
        directory.close()


def test_two_nodes_train_on_each_others_rollouts(tmp_path: Path) -> None:
    hub = Hub()
    with node(tmp_path / "a", hub, settings()) as a, node(tmp_path / "b", hub, settings()) as b:
        for _ in range(12):
            reports = [a.run_round(), b.run_round()]
        unscored = [one._parts.scoring.waiting for one in (a, b)]
    for report, late in zip(reports, unscored, strict=True):
        totals = report.totals
        assert totals.published == 24  # 12 rounds × 2 questions
        assert totals.accepted + late == totals.fetched > late
        assert totals.external_groups_trained > 0
        assert sum(totals.trained_from.values()) == totals.external_groups_trained
        assert totals.refused == {}
        assert report.peers == 1


def hybrid(external: int = 4, **switches: object) -> Settings:
    flags = {
        "sharing": {"rule": "hybrid", "external": external, "gain_every": 1},
        "hybrid": switches,
    }
    return config.load(None, flags, settings())


def test_hybrid_trains_on_peers_and_measures_what_they_give(tmp_path: Path) -> None:
    hub = Hub()
    with node(tmp_path / "a", hub, hybrid()) as a, node(tmp_path / "b", hub, hybrid()) as b:
        reports = [one.run_round() for _ in range(14) for one in (a, b)]
        measured = a._parts.gain.state()
    last = reports[-1]
    assert last.totals.external_groups_trained > 0
    assert last.totals.refused == {}
    assert last.foreign_share == 1.0
    trained = [report for report in reports if report.external_groups_trained]
    assert all(report.staleness_rounds is not None for report in trained)
    assert any(report.effective_ratio is not None for report in trained)
    assert all(0 < r.effective_ratio <= 1 for r in trained if r.effective_ratio is not None)
    assert measured


def test_hybrid_alone_asks_itself_what_peers_do_not_bring(tmp_path: Path) -> None:
    with node(tmp_path / "a", Hub(), hybrid(fill=1.0)) as one:
        assert [one.run_round().own_groups for _ in range(3)] == [2, 6, 6]
    with node(tmp_path / "b", Hub(), hybrid(fill=0.0)) as one:
        assert [one.run_round().own_groups for _ in range(3)] == [2, 2, 2]


def any_paired(reports: list[RoundReport]) -> bool:
    return any(report.own_groups == 1 for report in reports)  # one of two questions was a peer's


def test_answers_to_peers_questions_are_neither_published_nor_own_reward(tmp_path: Path) -> None:
    # One group a round is taken, so that others wait in the pool.
    hub, pairing = Hub(), hybrid(external=1, paired=1, fill=0.0, stretch=1.0)
    with node(tmp_path / "a", hub, pairing) as a, node(tmp_path / "b", hub, pairing) as b:
        reports: list[RoundReport] = []
        # Few answers of so small a model are right, so it takes a while until a useful one waits.
        while len(reports) < 40 or (len(reports) < 240 and not any_paired(reports)):
            reports += [one.run_round() for one in (a, b)]
    assert any_paired(reports)
    assert all(report.totals.published <= 2 * report.round for report in reports)
    last = reports[-1]
    mine = list(reports[1::2])
    assert last.totals.published == sum(report.own_groups for report in mine)
    assert last.totals.refused == {}


def test_a_question_gets_more_answers_where_learning_stalls(tmp_path: Path) -> None:
    broad = config.load(None, {"generate": {"most_completions": 16}}, settings())
    # One identity, and so the same questions and answers each time: were all answers to a question
    # equal, its two rollouts would be one.
    fixed = identity.from_seed(bytes(range(32)))
    (tmp_path / "a").mkdir(mode=0o700)
    identity.write_secret(tmp_path / "a" / "identity.key", identity._encode(fixed))
    with node(tmp_path / "a", Hub(), broad) as one:
        one._parts.breadth.load_state({"completions": 16, "signals": []})
        report = one.run_round()
        assert report.own_groups == 2
        rewards = 2 * 16
        # Means over 32 completions are multiples of 1/32 and seldom of 1/8.
        assert (report.own_reward * rewards) % 1 == 0
        assert report.totals.published == 4  # sixteen answers travel as two rollouts
    saved = checkpoint.load_latest(tmp_path / "a" / "checkpoints").checkpoint
    assert saved is not None
    assert saved.state["breadth"]["completions"] == 16


def test_sharing_off_neither_publishes_nor_fetches(tmp_path: Path) -> None:
    hub = Hub()
    alone = config.load(None, {"sharing": {"rule": "off"}}, settings())
    with node(tmp_path / "a", hub, settings()) as a, node(tmp_path / "b", hub, alone) as b:
        for _ in range(3):
            heard, report = a.run_round(), b.run_round()
    assert heard.totals.announced == 0
    assert report.totals.published == report.totals.fetched == 0


def test_runs_its_rounds_evaluates_first_and_last_and_exports(tmp_path: Path) -> None:
    reports: list[RoundReport] = []
    with node(tmp_path / "a", Hub(), settings(rounds=3, evaluate_every=0)) as one:
        assert one.run(reports.append) is None
    assert [report.round for report in reports] == [1, 2, 3]
    assert [row["round"] for row in read_rows(tmp_path / "a" / "evaluations.jsonl")] == [0, 3]
    from transformers import AutoModelForCausalLM

    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "a" / "model")
    assert sum(p.numel() for p in exported.parameters()) > 100_000


def test_says_why_it_learns_alone(tmp_path: Path) -> None:
    with node(tmp_path / "a", Hub(), settings()) as one:
        assert "alone" in one.run_round().waiting_for


@pytest.mark.parametrize("rule", ["sapo", "hybrid"])
def test_resumed_run_continues_as_if_never_stopped(tmp_path: Path, rule: str) -> None:
    """Rounds 1-6 in one life equal rounds 1-3 and 4-6 in two: same rewards, same weights."""
    sharing = {"sharing": {"rule": rule}}
    chosen = config.load(None, sharing, settings(rounds=6, seed=5, evaluate_every=0))
    half = config.load(None, sharing, settings(rounds=3, seed=5, evaluate_every=0))
    with node(tmp_path / "whole", Hub(), chosen) as one:
        _same_identity(tmp_path / "whole", tmp_path / "parts")
        one.run()
    with node(tmp_path / "parts", Hub(), half) as one:
        one.run()
    with node(tmp_path / "parts", Hub(), chosen) as one:
        one.run()
    rows = [read_rows(tmp_path / name / "rounds.jsonl") for name in ("whole", "parts")]
    assert [r["round"] for r in rows[1]] == [1, 2, 3, 4, 5, 6]
    assert [r["own_reward"] for r in rows[0]] == [r["own_reward"] for r in rows[1]]
    assert [r["loss"] for r in rows[0]] == [r["loss"] for r in rows[1]]
    assert rows[0][-1]["totals"]["tokens_generated"] == rows[1][-1]["totals"]["tokens_generated"]
    weights = [_weights(tmp_path / name) for name in ("whole", "parts")]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_rounds_after_the_last_checkpoint_are_done_again(tmp_path: Path) -> None:
    """A crash after round 3 with a checkpoint of round 2: row 3 is dropped and made anew."""
    with node(tmp_path / "a", Hub(), settings(checkpoint_every=2)) as one:
        for _ in range(3):
            one.run_round()
    with node(tmp_path / "a", Hub(), settings(checkpoint_every=2)) as one:
        assert one.run_round().round == 3
    rows = read_rows(tmp_path / "a" / "rounds.jsonl")
    assert [row["round"] for row in rows] == [1, 2, 3]


def test_rounds_done_again_are_not_published_again(tmp_path: Path) -> None:
    """A crash after two rounds that peers heard of, with no checkpoint of the second."""
    hub = Hub()
    with node(tmp_path / "b", hub, settings()) as peer:
        with node(tmp_path / "a", hub, settings(checkpoint_every=2)) as one:
            for _ in range(3):
                one.run_round()
                peer.run_round()
        with node(tmp_path / "a", hub, settings(checkpoint_every=2)) as one:
            assert one.run_round().round == 3
            before = peer.run_round()
            one.run_round()
            after = peer.run_round()
        assert before.totals.announced == 6
        assert after.totals.announced == 8
        assert after.totals.refused == {}


def test_what_was_published_long_ago_or_is_damaged_holds_nothing_back(tmp_path: Path) -> None:
    groups = [Published(number, None) for number in range(4)]  # type: ignore[arg-type]
    path = tmp_path / "published.json"
    first = PublishedBefore(path, lifetime_s=60.0)
    first.load()
    assert first.new(groups[:2], 1000.0) == groups[:2]
    again = PublishedBefore(path, lifetime_s=60.0)
    again.load()
    assert again.new(groups[:3], 1060.0) == groups[2:3]
    assert again.new(groups, 1061.0) == groups[3:]
    assert again.new(groups, 1122.0) == groups
    for damaged in ("", "[]", '{"up_to": null, "at": 1}'):
        path.write_text(damaged)
        third = PublishedBefore(path, lifetime_s=60.0)
        third.load()
        assert third.new(groups, 1000.0) == groups


def test_refuses_to_resume_with_every_checkpoint_damaged(tmp_path: Path) -> None:
    with node(tmp_path / "a", Hub(), settings()) as one:
        one.run_round()
    for path in (tmp_path / "a" / "checkpoints").glob("*/model.safetensors"):
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(SwarmNodeError, match="damaged"), node(tmp_path / "a", Hub(), settings()):
        pass


def test_a_run_of_another_swarm_is_refused_before_model_and_network_start(tmp_path: Path) -> None:
    with node(tmp_path / "a", Hub(), settings()) as one:
        one.run_round()
    directory = RunDirectory(tmp_path / "a")
    directory.open()
    before = {path.name: path.read_bytes() for path in directory.path.iterdir() if path.is_file()}
    # Neither would start: there is no such model, and the network says that it was asked for.
    chosen = config.load(None, {"model": {"name": "/no/such/model"}}, settings())
    other = msgspec.structs.replace(manifest.load("demo"), name="other")
    one = Node(chosen, other, directory, lambda *who: pytest.fail("the network was made"))
    with pytest.raises(ConfigError, match=r"began in swarm 'demo' \(\w{8}\) and this is 'other'"):
        one.open()
    one.close()
    directory.close()
    after = {path.name: path.read_bytes() for path in directory.path.iterdir() if path.is_file()}
    assert after == before


def test_a_dead_scorer_costs_a_rollout_and_not_the_node(tmp_path: Path) -> None:
    import os
    import signal

    with node(tmp_path / "a", Hub(), settings()) as one:
        one.run_round()
        pid = one._parts.scorer.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        report = one.run_round()
        assert report.totals.scorer_failures >= 1
        assert one.run_round().own_groups == 2


def test_rows_are_strict_json_and_hold_no_secret(tmp_path: Path) -> None:
    with node(tmp_path / "a", Hub(), settings()) as one:
        one.run_round()
        seed = one._parts.identity.seed
    text = (tmp_path / "a" / "rounds.jsonl").read_text()
    assert json.loads(text, parse_constant=lambda name: pytest.fail(name))["round"] == 1
    for path in tmp_path.rglob("*"):
        if path.is_file() and path.name != "identity.key":
            data = path.read_bytes()
            assert seed not in data
            assert seed.hex().encode() not in data


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "checkpoints" / "round-00000006" / "model.safetensors")


def _same_identity(source: Path, target: Path) -> None:
    target.mkdir()
    copy = target / "identity.key"
    copy.write_bytes((source / "identity.key").read_bytes())
    copy.chmod(0o600)
