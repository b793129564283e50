"""What one author, one question and one blamed author may be of a round."""

import random

from fakes import FakeTasks, peer_group

from swarmnode.config import DefenceSettings, HybridSettings, SharingSettings
from swarmnode.rollout import Group
from swarmnode.swarm.mixing import Mixing
from swarmnode.swarm.shares import BLAMED, MOST_BLAMED, Blame, limited

TASKS = FakeTasks()


def group(author: int, seed: int) -> Group:
    return peer_group([1.0, 0.0], author=author, question=TASKS.question("add", seed))


FLOOD = [group(1, seed) for seed in range(1, 9)]
OTHERS = [group(2, 11), group(3, 12), group(4, 13)]


def authors(groups: list[Group]) -> list[int]:
    return [g.origin.author[0] for g in groups if g.origin]


def test_an_author_has_its_part_of_a_round_and_all_of_it_without_the_limit() -> None:
    # a quarter of eight
    assert authors(limited([*FLOOD, *OTHERS], 0.25, 0, 8)) == [1, 1, 2, 3, 4]
    assert authors(limited([*FLOOD, *OTHERS], 1.0, 0, 8)) == [1] * 8 + [2, 3, 4]


def test_few_authors_have_equal_parts() -> None:
    assert len(limited(FLOOD, 0.25, 0, 8)) == 8
    # half of eight each
    assert authors(limited([*FLOOD, group(2, 11)], 0.25, 0, 8)) == [1] * 4 + [2]


def test_a_question_has_its_part_of_a_round_and_all_of_it_without_the_limit() -> None:
    same = [group(author, 1) for author in (1, 2, 3)]
    assert authors(limited([*same, group(4, 2)], 1.0, 1, 8)) == [1, 4]
    assert authors(limited([*same, group(4, 2)], 1.0, 0, 8)) == [1, 2, 3, 4]


def test_a_blamed_author_keeps_little_and_gets_it_back() -> None:
    blame = Blame()
    blame.blame([bytes([1] * 32)])
    passed = [len(blame.passed(FLOOD, random.Random(seed))) for seed in range(200)]
    assert 0.05 < sum(passed) / (8 * 200) < 0.15  # BLAMED is a tenth
    assert len(blame.passed(OTHERS, random.Random(0))) == 3
    blame.blame([bytes([1] * 32)])
    assert blame.share(bytes([1] * 32)) == BLAMED**2
    blame.forgive(rounds=1000)
    assert blame.share(bytes([1] * 32)) == 1.0


def test_nobody_blamed_draws_no_chance() -> None:
    rng = random.Random(0)
    before = rng.getstate()
    assert Blame().passed(FLOOD, rng) == FLOOD
    assert rng.getstate() == before


def test_blame_is_bounded_and_survives_a_restart() -> None:
    blame = Blame()
    blame.blame(number.to_bytes(32) for number in range(MOST_BLAMED + 10))
    state = blame.state()
    assert len(state) == MOST_BLAMED
    again = Blame()
    again.load_state(state)
    assert again.share((0).to_bytes(32)) == BLAMED


def test_the_mixing_keeps_to_the_limits_unless_it_has_none() -> None:
    sharing = SharingSettings(rule="hybrid", external=8)
    hybrid = HybridSettings(own_tasks_only=False, stretch=1.0)
    offered = [*FLOOD, group(2, 11), group(3, 12), group(4, 13)]
    chosen = {
        name: authors(
            Mixing(sharing, hybrid, defence=defence).choose(
                offered, lambda group: 0, random.Random(0)
            )
        )
        for name, defence in (("on", DefenceSettings(author_share=0.25)), ("off", None))
    }
    # a quarter of eight, and the three others
    assert (chosen["on"].count(1), len(chosen["on"])) == (2, 5)
    assert (chosen["off"].count(1) > 2, len(chosen["off"])) == (True, 8)
