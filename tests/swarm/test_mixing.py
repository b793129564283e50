"""What a node takes from its peers, by rule and by switch."""

import json
import random
from collections import Counter
from collections.abc import Sequence

import pytest
from fakes import own_group, peer_group

from swarmnode.config import HybridSettings, SharingSettings, TrustSettings
from swarmnode.rollout import Group, Question
from swarmnode.swarm.ability import Ability
from swarmnode.swarm.guard import LEAST_SHARE, WINDOW_GROUPS, Guard
from swarmnode.swarm.mixing import Mixing
from swarmnode.swarm.sampling import choose_weighted

MIXED, RIGHT, WRONG = [1.0, 0.0], [1.0, 1.0], [0.0, 0.0]


def mixing(rule: str = "hybrid", external: int = 2, **switches: object) -> Mixing:
    hybrid = HybridSettings(**({"stretch": 1.0, "fill": 1.0} | switches))
    return Mixing(SharingSettings(rule=rule, external=external), hybrid)


def practising(found: Mixing, rewards: Sequence[float] = WRONG) -> Mixing:
    """After many own answers to the task of `fakes`."""
    found.note_own([own_group(rewards)] * 30)
    return found


def no_lag(group: Group) -> int:
    return 0


def other_task() -> Question:
    return Question("subtract", b"sub1", 5, "5 - 1?", "4", False)


def choose(found: Mixing, groups: Sequence[Group], lag: int = 0) -> list[Group]:
    return found.choose(groups, lambda group: lag, random.Random(1))


def test_off_takes_nothing() -> None:
    assert choose(mixing("off"), [peer_group(MIXED)]) == []


def test_sapo_takes_groups_with_signal_whatever_the_switches_say() -> None:
    found = mixing("sapo", own_tasks_only=True, rescue_below=1.0, max_lag=0, fill=1.0, paired=1)
    groups = [peer_group(MIXED), peer_group(RIGHT), peer_group(WRONG)]
    assert choose(found, groups, lag=99) == [groups[0]]
    assert [found.is_useful(group) for group in groups] == [True, False, False]
    assert found.own_questions(2) == 2
    assert found.pair(groups, no_lag, random.Random(1)) == []


def test_an_all_right_group_is_rescued_only_where_this_node_is_mostly_wrong() -> None:
    weak, strong = practising(mixing(), WRONG), practising(mixing(), RIGHT)
    assert weak.is_useful(peer_group(RIGHT))
    assert not strong.is_useful(peer_group(RIGHT))
    assert not practising(mixing(rescue_below=0.0), WRONG).is_useful(peer_group(RIGHT))
    assert not weak.is_useful(peer_group(WRONG))


def test_tasks_that_are_not_practised_are_left_out_only_with_the_switch() -> None:
    group = peer_group(MIXED, question=other_task())
    assert not practising(mixing()).is_useful(group)
    assert practising(mixing(own_tasks_only=False)).is_useful(group)


def test_own_questions_fill_the_place_of_missing_groups() -> None:
    found = practising(mixing(external=6))
    assert found.own_questions(2) == 2  # nothing is known yet
    choose(found, [peer_group(MIXED)] * 4)
    assert found.own_questions(2) == 2 + 6 - 4
    choose(found, [peer_group(MIXED)] * 6)
    assert found.own_questions(2) == 2
    without = practising(mixing(external=6, fill=0.0))
    choose(without, [])
    assert without.own_questions(2) == 2


def test_more_are_taken_where_more_are_useful() -> None:
    found = practising(mixing(external=2, stretch=2.5))
    groups = [peer_group(MIXED, author=n) for n in range(1, 8)]
    assert found.external == 5
    assert len(choose(found, groups)) == 5
    assert len(choose(found, groups[:3])) == 3
    assert found.own_questions(1) == 1  # filled up to 2
    choose(found, groups[:1])
    assert found.own_questions(1) == 1 + 2 - 1
    wide = practising(mixing(external=2, stretch=2.5, fill=2.5))
    choose(wide, groups[:3])
    assert wide.own_questions(1) == 1 + 5 - 3
    assert len(choose(mixing("sapo", external=2, stretch=2.5), groups)) == 2


def test_a_group_whose_author_has_moved_on_is_not_trained_on() -> None:
    found = practising(mixing(max_lag=3))
    assert len(choose(found, [peer_group(MIXED)], lag=3)) == 1
    assert choose(found, [peer_group(MIXED)], lag=4) == []


def test_paired_groups_are_chosen_in_the_same_round_and_count() -> None:
    found = practising(mixing(external=2, paired=1))
    groups = [peer_group(MIXED, author=n) for n in range(1, 6)]
    paired = found.pair(groups, no_lag, random.Random(1))
    assert len(paired) == 1
    chosen = choose(found, groups)
    assert chosen[0] is paired[0]
    assert len(chosen) == len({id(group) for group in chosen}) == 2


@pytest.mark.parametrize(
    ("priority", "often"),
    # Means 1/2 and 1/8, own rate 0. balance: 4 m (1 − m) = 1 and 0.4375; headroom: the means.
    [("uniform", 0.5), ("balance", 1 / 1.4375), ("headroom", 0.5 / 0.625)],
)
def test_priority_decides_who_is_drawn_how_often(priority: str, often: float) -> None:
    found = practising(mixing(external=1, priority=priority))
    groups = [peer_group([1.0, 0.0]), peer_group([1.0] + [0.0] * 7)]
    rng = random.Random(1)
    drawn = Counter(len(found.choose(groups, no_lag, rng)[0].rewards) for _ in range(4000))
    # Standard deviation of a share over 4000 draws: at most 0.008.
    assert drawn[2] / 4000 == pytest.approx(often, abs=0.03)


def test_weighted_draws_are_without_replacement_and_in_proportion() -> None:
    groups = [peer_group(MIXED, author=n) for n in range(1, 4)]
    rng = random.Random(1)
    first = Counter(
        choose_weighted(groups, [1.0, 2.0, 5.0], 1, rng)[0].origin.author[0] for _ in range(4000)
    )
    assert [first[n] / 4000 for n in (1, 2, 3)] == pytest.approx([1 / 8, 2 / 8, 5 / 8], abs=0.03)
    assert len({id(g) for g in choose_weighted(groups, [1.0, 2.0, 5.0], 3, rng)}) == 3


def test_ability_is_a_decayed_mean_by_task() -> None:
    ability = Ability()
    assert ability.rate("add") is None
    ability.note([own_group(RIGHT), own_group(WRONG)])
    assert ability.rate("add") == pytest.approx(0.9 / 1.9)  # the older counts 0.9
    restored = Ability()
    restored.load_state(json.loads(json.dumps(ability.state())))
    assert restored.rate("add") == ability.rate("add")


def windows(guard: Guard, *means: float) -> float:
    """Whole windows of groups of eight with these mean rewards."""
    for mean in means:
        count = round(8 * mean)
        guard.note([own_group([1.0] * count + [0.0] * (8 - count))] * (WINDOW_GROUPS - 2))
        guard.note([own_group(MIXED)] * 2)  # some spread, so that errors are not zero
    return guard.share


def test_a_fall_halves_the_share_and_it_comes_back_slowly() -> None:
    guard = Guard()
    assert windows(guard, 0.5, 0.5) == 1.0
    assert windows(guard, 0.25) == 0.5
    # Compared with the last three windows: the fall is seen in each of the next ones too.
    assert windows(guard, 0.25) == 0.25
    assert windows(guard, 0.25) == 0.125
    assert windows(guard, 0.25) == pytest.approx(0.125 + 0.1 * 0.875)
    assert windows(guard, *[0.25] * 60) == pytest.approx(1.0, abs=0.01)


def test_the_share_has_a_floor_and_chance_alone_leaves_it_high() -> None:
    guard = Guard()
    windows(guard, *[1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125])
    assert guard.share == LEAST_SHARE
    rng, calm = random.Random(1), Guard()
    shares = []
    for _ in range(100):
        rewards = [[float(rng.random() < 0.4) for _ in range(8)] for _ in range(WINDOW_GROUPS)]
        calm.note([own_group(r) for r in rewards])
        shares.append(calm.share)
    assert sum(shares) / len(shares) > 0.6


def test_only_hybrid_with_the_guard_lowers_the_weight() -> None:
    for found, expected in (
        (mixing(), 0.5),
        (mixing(guard=False), 1.0),
        (mixing("sapo"), 1.0),
    ):
        for rewards in ([1.0] * 7 + [0.0], [0.0] * 7 + [1.0]):
            found.note_own([own_group(rewards)] * (WINDOW_GROUPS - 1) + [own_group(MIXED)])
        assert found.foreign_share == expected


def test_state_continues_where_it_was_taken() -> None:
    one, other = practising(mixing(external=6)), mixing(external=6)
    choose(one, [peer_group(MIXED)] * 2)
    other.load_state(json.loads(json.dumps(one.state())))
    assert other.own_questions(2) == one.own_questions(2) == 6
    assert other.state() == one.state()
    rest = WINDOW_GROUPS
    for found in (one, other):
        found.note_own([own_group(MIXED)] * rest)
    assert other.state() == one.state()


def test_many_groups_of_one_author_are_chosen_no_more_often() -> None:
    groups = [peer_group(MIXED, author=1, created=float(n)) for n in range(90)]
    groups += [peer_group(MIXED, author=author) for author in range(2, 11)]

    def share_of_one(trust: TrustSettings | None) -> float:
        found = Mixing(SharingSettings(external=1), HybridSettings(stretch=1.0), trust)
        practising(found)
        chosen = [
            group.origin
            for seed in range(300)
            for group in found.choose(groups, no_lag, random.Random(seed))
        ]
        return sum(origin is not None and origin.author[0] == 1 for origin in chosen) / len(chosen)

    assert share_of_one(TrustSettings()) == pytest.approx(0.1, abs=0.05)
    assert share_of_one(TrustSettings(fair_shares=False)) == pytest.approx(0.91, abs=0.05)
