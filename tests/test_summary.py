"""The demo's record from hand-made rows, and each claim both ways."""

import json
from pathlib import Path
from typing import Any

import pytest

from swarmnode import identity
from swarmnode.errors import SwarmNodeError
from swarmnode.summary import check, summarise

TOTALS: dict[str, Any] = {
    "published": 60,
    "fetched": 21,
    "accepted": 20,
    "refused": {"too_old": 1},
    "external_groups_trained": 12,
    "trained_from": {"12D3KooWOther": 12},
    "bytes_in": 3000,
    "bytes_out": 2000,
    "tokens_generated": 9000,
    "wall_s": 45.0,
}


def run(folder: Path, rewards: list[float], evaluations: list[dict[str, float]]) -> Path:
    """The run directory of a node whose rounds had these own rewards."""
    folder.mkdir()
    identity.load_or_create(folder / "identity.key")
    rounds = [
        {"round": number, "own_reward": reward, "totals": TOTALS | {"published": number}}
        for number, reward in enumerate(rewards, start=1)
    ]
    rows = [
        {"accuracy": accuracy, "constant_baseline": {"add": 0.1, "mul": 0.3}}
        for accuracy in evaluations
    ]
    for name, lines in (("rounds", rounds), ("evaluations", rows)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_a_node_is_summed_up_from_its_rows(tmp_path: Path) -> None:
    rewards = [0.0, 0.1, 0.2, 0.9, *([0.5] * 9), 0.7]
    evaluations = [{"add": 0.1, "mul": 0.2}, {"add": 0.0, "mul": 0.0}, {"add": 0.6, "mul": 0.4}]
    folder = run(tmp_path / "node", rewards, evaluations)
    (node,) = summarise([folder])["nodes"]
    assert node == {
        "peer_id": identity.load(folder / "identity.key").peer_id,
        "rounds": 14,
        "own_reward_first": pytest.approx(0.1),  # (0 + 0.1 + 0.2) / 3
        "own_reward_last": pytest.approx(0.52),  # (9 × 0.5 + 0.7) / 10
        "heldout_before": pytest.approx(0.15),  # (0.1 + 0.2) / 2
        "heldout_after": pytest.approx(0.5),  # (0.6 + 0.4) / 2
        "constant_baseline": pytest.approx(0.2),  # (0.1 + 0.3) / 2
        "published": 14,
        "fetched": 21,
        "accepted": 20,
        "refused": {"too_old": 1},
        "external_groups_trained": 12,
        "peers_trained_from": {"12D3KooWOther": 12},
        "bytes_in": 3000,
        "bytes_out": 2000,
        "tokens_per_s": 200.0,  # 9000 / 45
        "wall_s": 45.0,
    }


def test_an_unfinished_run_has_no_summary(tmp_path: Path) -> None:
    for name, rewards, evaluations in (
        ("no-round", [], [{"add": 0.1}, {"add": 0.2}]),
        ("no-last-evaluation", [0.1], [{"add": 0.1}]),
    ):
        folder = run(tmp_path / name, rewards, evaluations)
        with pytest.raises(SwarmNodeError, match="holds no finished run"):
            summarise([folder])


def nodes(**changes: Any) -> dict[str, Any]:
    """Two nodes of which everything holds; `changes` are made to the second."""
    first = {
        "peer_id": "a",
        "own_reward_first": 0.1,
        "own_reward_last": 0.4,
        "heldout_before": 0.1,
        "heldout_after": 0.4,
        "constant_baseline": 0.2,
        "refused": {},
        "peers_trained_from": {"b": 3, "elsewhere": 1},
    }
    second = first | {"peer_id": "b", "peers_trained_from": {"a": 5}} | changes
    return {"nodes": [first, second]}


def verdicts(summary: dict[str, Any]) -> list[bool]:
    return [finding.holds for finding in check(summary)]


def test_all_claims_hold_of_a_demo_that_worked() -> None:
    findings = check(nodes())
    assert [finding.holds for finding in findings] == [True] * 4
    assert [finding.figures for finding in findings] == [
        "0.100 → 0.400",
        "0.100 → 0.400, constant 0.200",
        "1/1 1/1",
        "0 refused",
    ]


@pytest.mark.parametrize(
    ("changes", "failed"),
    [
        ({"own_reward_first": 0.31}, 0),  # mean 0.205 twice is 0.41 > 0.4
        ({"own_reward_first": 0.0, "own_reward_last": 0.0}, 0),  # mean 0.2 < 0.25
        ({"heldout_before": 0.75, "heldout_after": 0.25}, 1),  # means 0.425 and 0.325
        ({"constant_baseline": 0.7}, 1),  # mean 0.45 > 0.4
        ({"peers_trained_from": {}}, 2),
        ({"peers_trained_from": {"elsewhere": 9}}, 2),
        ({"refused": {"too_old": 1}}, 3),
    ],
)
def test_each_claim_fails_by_itself(changes: dict[str, Any], failed: int) -> None:
    assert verdicts(nodes(**changes)) == [index != failed for index in range(4)]


def test_a_gain_at_the_limits_is_enough() -> None:
    limit = {"own_reward_first": 0.1, "own_reward_last": 0.1}
    # means: first 0.1, last (0.4 + 0.1) / 2 = 0.25, which is 2.5 times as much
    assert verdicts(nodes(**limit))[0]
