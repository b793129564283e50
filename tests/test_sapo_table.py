"""The laboratory behind the table: equal runs, honest counts, measures by hand."""

import json
import math
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "examples"))

from laboratory import claims, measures, runs, settings, table  # noqa: E402
from laboratory.settings import ARMS, REGIMES, Arm, Regime, Run  # noqa: E402
from laboratory.simulation import SimulatedSwarm, simulate  # noqa: E402
from laboratory.starts import start_folder  # noqa: E402
from laboratory.world import World, open_world  # noqa: E402

from swarmnode.config import HybridSettings  # noqa: E402

DEMO = ROOT / "swarmnode" / "demo_model"
TINY = replace(REGIMES["dense"], nodes=2, rounds=4, evaluate_every=2, evaluate_questions=2)
SHARING = Arm("sharing", "sapo", own=3, external=2)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """As `runs.prepare_process`, and back."""
    threads = torch.get_num_threads()
    runs.prepare_process()
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def world() -> World:
    """The shipped model stands in for a warm start."""
    return open_world(DEMO, TINY.evaluate_questions)


def rows(arm: Arm, world: World, regime: Regime = TINY, seed: int = 1) -> list[dict[str, Any]]:
    return [row for kind, row in simulate(Run(regime, arm, seed), world) if kind == "rounds"]


# --- one run ---


@pytest.mark.slow
def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(world: World) -> None:
    first, again = (list(simulate(Run(TINY, SHARING, 1), world)) for _ in range(2))
    assert first == again
    assert first != list(simulate(Run(TINY, SHARING, 2), world))


@pytest.mark.slow
def test_nodes_learn_apart_and_leave_the_start_alone(world: World) -> None:
    before = {name: tensor.clone() for name, tensor in world.model.state_dict().items()}
    swarm = SimulatedSwarm(Run(TINY, SHARING, 1), world)
    own, others = swarm.answer(1)
    assert [g.question.seed for g in own] != [g.question.seed for g in others]
    swarm.nodes[0].learn(own, 1)
    for name, tensor in world.model.state_dict().items():
        assert torch.equal(tensor, before[name])


@pytest.mark.slow
def test_never_trains_on_more_than_j_groups_of_peers(world: World) -> None:
    for row in rows(SHARING, world):
        assert row["questions"] == [3, 3]
        assert row["completions"] == [24, 24]  # G = 8
        assert row["received"] == [3, 3]  # all that the one peer made
        # Every group with signal is used, up to J; what the round does not use is dropped.
        expected = [min(2, count) for count in row["received_with_signal"]]
        assert row["external_trained"] == expected
        assert row["own_trained"] == row["with_signal"]
        # One peer: what a node receives is what the other generated in this round.
        assert row["received_with_signal"] == row["with_signal"][::-1]


def test_groups_without_signal_are_not_pooled_and_text_carries_no_tokens(world: World) -> None:
    swarm = SimulatedSwarm(Run(TINY, SHARING, 1), world)
    author, receiver = swarm.nodes
    own = swarm.answer(1)[0]
    nothing, something = (
        replace(own[0], rewards=(0.0,) * 8),
        replace(own[1], rewards=(1.0, *(0.0,) * 7)),
    )
    shared = [
        replace(one, rewards=group.rewards)
        for group in (nothing, something)
        for one in author.publish([group], 1)[:1]
    ]
    author.receive(shared, 1)
    assert author.learn([], 1).received == []  # its own
    receiver.receive([shared[0]], 1)
    learnt = receiver.learn([], 1)
    assert (len(learnt.received), learnt.external, learnt.step.tokens_external) == (1, [], 0)
    receiver.receive([shared[1]], 2)
    (trained,) = receiver.learn([], 2).external
    assert trained.rewards == something.rewards
    assert trained.question == own[1].question
    assert [c.text for c in trained.completions] == [c.text for c in own[1].completions]
    assert all(c.token_ids is None and c.logps is None for c in trained.completions)
    assert receiver.learn([], 2).external == []  # never twice


@pytest.mark.slow
def test_a_stale_pool_is_as_old_as_the_regime_says(world: World) -> None:
    found = rows(SHARING, world, replace(TINY, delay=2))
    assert [row["received"] for row in found] == [[0, 0], [0, 0], [3, 3], [3, 3]]
    ages = [age for row in found for age in row["external_age_rounds"] if age is not None]
    assert set(ages) == {2.0}


@pytest.mark.slow
def test_one_task_nodes_practise_one_task_each(world: World) -> None:
    run = Run(replace(TINY, one_task=True), SHARING, 1)
    for number, own in enumerate(SimulatedSwarm(run, world).answer(1)):
        assert {group.question.task for group in own} == {world.tasks.names[number]}


# --- the controls ---


@pytest.mark.slow
def test_the_control_at_equal_generation_draws_what_the_sharing_node_draws(world: World) -> None:
    alone, sharing = rows(ARMS["alone 2"], world), rows(ARMS["sapo 2/6"], world)
    for mine, theirs in zip(alone, sharing, strict=True):
        assert mine["completions"] == theirs["completions"] == [16, 16]
        assert mine["external_trained"] == mine["received"] == [0, 0]
    assert alone[0]["right"] == sharing[0]["right"]  # the same questions and chance at first


@pytest.mark.slow
def test_the_control_at_equal_batch_counts_all_that_it_draws(world: World) -> None:
    arm = replace(ARMS["alone, filled to 8"], own=2, fill=3, most=7)
    for row in rows(arm, world):
        for drawn, useful, trained in zip(
            row["questions"], row["with_signal"], row["own_trained"], strict=True
        ):
            assert trained == min(3, useful)
            # It stops when it has enough, and at the latest at 7.
            assert useful >= 3 or drawn == 7
            assert 2 <= drawn <= 7
        assert row["completions"] == [8 * drawn for drawn in row["questions"]]


@pytest.mark.slow
def test_the_control_that_waits_steps_on_full_batches_only(world: World) -> None:
    arm = replace(ARMS["alone 2, held to 8"], fill=3)
    held = [0, 0]
    for row in rows(arm, world, replace(TINY, rounds=6)):
        assert row["questions"] == [2, 2]
        for node in (0, 1):
            held[node] += row["with_signal"][node]
            full = held[node] >= 3
            assert row["own_trained"][node] == (3 if full else 0)
            assert row["steps"][node] == (1 if full else 0)
            held[node] -= row["own_trained"][node]


def test_every_arm_and_regime_of_the_table_is_sound() -> None:
    for name, arms in {**settings.TABLE, **settings.QUICK_TABLE}.items():
        assert settings.BASELINE in arms or name == "stale"
        for arm in arms:
            run = Run(REGIMES[name], ARMS[arm], 1)
            assert settings.train_settings(run).lr == REGIMES[name].lr
            assert settings.sharing_settings(run).external == ARMS[arm].external
    assert len(settings.SEEDS) >= 5
    slugs = [arm.slug for arm in (*ARMS.values(), *settings.ABLATIONS.values())]
    assert len(set(slugs)) == len(slugs)
    whole = settings.hybrid_settings(Run(REGIMES["sparse"], ARMS[settings.ABLATED], 1))
    assert whole == HybridSettings()  # what the table is about is what a node does
    for arm in settings.ABLATIONS.values():
        changes = (arm.external, arm.sharing, arm.train, arm.most_completions)
        hybrid = settings.hybrid_settings(Run(REGIMES["sparse"], arm, 1))
        assert (hybrid, changes) != (whole, (6, {}, {}, 0))


# --- measures, by hand ---


def row(number: int, right: list[float], tokens: list[int]) -> dict[str, Any]:
    counts = {
        key: [0, 0]
        for key in (
            "own_trained",
            "external_trained",
            "steps",
            "tokens_trained_own",
            "tokens_trained_external",
        )
    }
    known = {
        "foreign_share": [1.0, 0.5],
        "external_age_rounds": [None, float(number)],
        "kl_external": [None, None],
        "effective_ratio": [0.5, None],
        "own_and_peers_products": [[1.0, 3.0], None] if number == 1 else [None, [3.0, -1.0]],
    }
    own = {"right": right, "completions": [4, 4], "tokens_generated": tokens}
    return {"round": number, **own, **counts, **known}


ROUNDS = [row(1, [1, 0], [10, 10]), row(2, [2, 1], [20, 20]), row(3, [4, 0], [10, 30])]
EVALUATIONS = [
    {"round": 0, "accuracy": [{"a": 0.0, "b": 0.0}, {"a": 0.0, "b": 0.0}]},
    {"round": 3, "accuracy": [{"a": 1.0, "b": 0.5}, {"a": 0.5, "b": 0.0}]},
]
PRACTISED = [["a", "b"], ["a"]]


def test_cumulative_reward_is_the_sum_of_rounds_and_the_mean_of_nodes() -> None:
    found = measures.run_measures(ROUNDS, EVALUATIONS, PRACTISED)
    # Node 0: 1/4 + 2/4 + 4/4 = 1.75, node 1: 0 + 1/4 + 0 = 0.25.
    assert found["cumulative_own_reward"] == 1.0
    assert found["worst_node"] == 0.25
    # Node 0 practises both tasks: 0.75; node 1 only a: 0.5. Over all tasks: 0.75 and 0.25.
    assert (found["held_out"], found["held_out_worst_node"]) == (0.625, 0.5)
    assert found["held_out_all"] == 0.5
    # 10 + 20 + 20 tokens per node, 8 right of both nodes' 100 tokens.
    assert found["tokens_generated_per_node"] == 50
    assert found["right_per_1000_tokens"] == 80
    assert found["oscillation"] is None  # too few rounds
    assert found["foreign_share"] == 0.75
    assert found["external_age_rounds"] == 2.0  # 1, 2 and 3
    assert found["kl_external"] is None  # never measured
    assert found["peers_give"] is None  # three measurements are too few
    many = [row(1, [1, 0], [10, 10]), row(2, [1, 0], [10, 10])] * 10
    # Twenty: own 10 × 1 + 10 × 3 = 40, peers 10 × 3 − 10 × 1 = 20.
    assert measures.peers_give(many) == pytest.approx(1 / 3)


def test_reward_at_equal_generation_counts_the_last_round_in_part() -> None:
    assert measures.reward_at(ROUNDS, 10) == 1 / 8
    # 20 tokens: round 1 whole, half of round 2's 20: (1 + 1.5) / (8 + 4)
    assert measures.reward_at(ROUNDS, 20) == 2.5 / 12
    assert measures.reward_at(ROUNDS, 50) == 8 / 24
    # Held-out goes from 0 at 0 tokens to 0.625 at 50.
    assert measures.held_out_at(ROUNDS, EVALUATIONS, PRACTISED, 20) == pytest.approx(0.25)


def test_oscillation_ignores_a_trend_and_what_chance_explains() -> None:
    line = [0.01 * number for number in range(40)]
    assert measures.oscillation([line]) == 0.0
    # Flat in each block of ten, the blocks' means 0, 1, 0: second difference −2, 4/6; consecutive
    # rounds differ by 1 twice in 29 steps: s² = 2/29/2, a tenth of it is taken off.
    steps = [0.0] * 10 + [1.0] * 10 + [0.0] * 10
    assert measures.oscillation([steps]) == pytest.approx(math.sqrt(4 / 6 - 1 / 290))
    # Alternating 0 and 1: all blocks have mean 1/2; chance explains more than there is.
    assert measures.oscillation([[0.0, 1.0] * 20]) == 0.0


def test_forgetting_is_the_largest_fall_below_an_earlier_block() -> None:
    curve = [0.2] * 10 + [0.6] * 10 + [0.3] * 10 + [0.9] * 10
    assert measures.forgetting([curve, [0.5] * 40]) == pytest.approx(0.15)  # (0.3 + 0) / 2


def test_standard_error_over_seeds() -> None:
    # Mean 2, deviations −1, 0, 1: standard deviation 1, error 1/√3.
    assert measures.mean_and_error([1, 2, 3]) == (2, pytest.approx(1 / math.sqrt(3)))
    assert measures.mean_and_error([4.0]) == (4.0, None)


# --- claims ---


def arm_of(rewards: dict[int, float], against: dict[int, float] | None = None) -> dict[str, Any]:
    """An arm with the same figures under every measure that claims read."""
    found: dict[str, Any] = {"by_seed": rewards, "mean": sum(rewards.values()) / len(rewards)}
    if against is not None:
        mean, error = measures.mean_and_error([rewards[s] - against[s] for s in rewards])
        found |= {"difference": mean, "difference_error": error}
    keys = ("cumulative_own_reward", "held_out", "reward_at_equal_generation")
    return dict.fromkeys(keys, found)


def sparse_table(hybrid: dict[int, float]) -> dict[str, Any]:
    base = {1: 10.0, 2: 10.0}
    others = {arm: arm_of(base) for arm in (*claims.SAPO_MIXES, *claims.DYNAMIC, "8/0")}
    return {"sparse": {"arms": {**others, "hybrid 2/6": arm_of(hybrid, base)}}}


def test_claims_hold_on_every_seed_or_by_three_standard_errors() -> None:
    held = [claim["holds"] for claim in claims.claims(sparse_table({1: 12.1, 2: 12.1}))]
    assert held == [True] * len(held)
    assert len(held) == 8
    # 1.15 times on average, once below: 1.5 and −0.5 above 11.5 are a mean of 0.5 ± 1.
    mixed = claims.claims(sparse_table({1: 13.0, 2: 11.0}))
    assert [claim["holds"] for claim in mixed] == [
        False, True, True, False, False, False, True, True,
    ]  # fmt: skip


def test_worse_than_alone_by_more_than_an_error_is_told() -> None:
    found = {c["claim"].split(":")[0]: c["holds"] for c in claims.claims(
        {"dense": {"arms": {
            "8/0": arm_of({1: 10.0, 2: 10.0}),
            "hybrid 2/6": arm_of({1: 9.0, 2: 9.5}, {1: 10.0, 2: 10.0}),
        }}}
    )}  # fmt: skip
    assert found == {"dense": False}


# --- runs on disk and the table ---


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Warm starts of two seeds, both the shipped model."""
    folder = tmp_path / "starts"
    for seed in (1, 2):
        start = start_folder(folder, seed, TINY.blur_steps)
        shutil.copytree(DEMO, start)
        (start / "start.json").write_text('{"cpu_s": 0}')
    return folder


@pytest.mark.slow
def test_the_table_is_made_of_the_rows(tmp_path: Path, cache: Path) -> None:
    todo = [Run(TINY, ARMS[arm], seed) for arm in ("8/0", "sapo 4/4") for seed in (1, 2)]
    for run in todo:
        runs.do_run(tmp_path, cache, run)
        assert runs.is_finished(tmp_path, run)
    first = table.summarise(tmp_path, todo, "test")
    assert json.loads((tmp_path / "summary.json").read_text()) == json.loads(json.dumps(first))
    found = first["regimes"]["dense"]["arms"]["sapo 4/4"]["cumulative_own_reward"]
    sums: dict[tuple[str, int], float] = {}
    for run in todo:
        lines = (runs.folder_of(tmp_path, run) / "rounds.jsonl").read_text().splitlines()
        for line in map(json.loads, lines):
            own = [r / n for r, n in zip(line["right"], line["completions"], strict=True)]
            key = (run.arm.name, run.seed)
            sums[key] = sums.get(key, 0.0) + sum(own) / 2
    differences = [sums["sapo 4/4", seed] - sums["8/0", seed] for seed in (1, 2)]
    assert found["by_seed"] == pytest.approx({1: sums["sapo 4/4", 1], 2: sums["sapo 4/4", 2]})
    assert found["difference"] == pytest.approx(sum(differences) / 2)
    # The standard error of two values is half their distance.
    assert found["difference_error"] == pytest.approx(abs(differences[0] - differences[1]) / 2)
    # A changed row changes the table: nothing is remembered beside the rows.
    path = runs.folder_of(tmp_path, todo[0]) / "rounds.jsonl"
    lines = path.read_text().splitlines()
    changed = json.loads(lines[0])
    changed["right"] = [right + 1 for right in changed["right"]]
    path.write_text("\n".join([json.dumps(changed), *lines[1:]]) + "\n")
    second = table.summarise(tmp_path, todo, "test")["regimes"]["dense"]["arms"]
    sums_of_seed = [
        arms["8/0"]["cumulative_own_reward"]["by_seed"][1]
        for arms in (first["regimes"]["dense"]["arms"], second)
    ]
    assert sums_of_seed[1] - sums_of_seed[0] == pytest.approx(1 / 64)  # 8 questions × 8 completions
    mean, error = (second["8/0"]["cumulative_own_reward"][key] for key in ("mean", "error"))
    assert f"| 8/0 | {mean:.2f} ± {error:.2f} |" in (tmp_path / "sapo.md").read_text()


@pytest.mark.slow
def test_a_finished_run_is_kept_and_other_settings_refused(tmp_path: Path, cache: Path) -> None:
    run = Run(replace(TINY, rounds=1), ARMS["alone 2"], 1)
    assert not runs.is_finished(tmp_path, run)
    runs.do_run(tmp_path, cache, run)
    folder = runs.folder_of(tmp_path, run)
    assert {path.name for path in folder.iterdir()} >= {"config.json", "environment.json"}
    config = json.loads((folder / "config.json").read_text())
    assert (config["run"]["seed"], config["train"]["lr"]) == (1, TINY.lr)
    with pytest.raises(runs.ConfigError, match="other settings"):
        runs.is_finished(tmp_path, Run(TINY, ARMS["alone 2"], 1))
    (folder / "finished.json").unlink()  # as if it was interrupted
    assert not runs.is_finished(tmp_path, run)
    assert runs.read_run(tmp_path, run) is None
