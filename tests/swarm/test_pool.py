"""The pool is bounded in number, age and waiting, and gives each group once."""

import pytest
from fakes import own_group, peer_group

from swarmnode.rollout import Group
from swarmnode.swarm.pool import Pool


def authors(pool: Pool) -> list[int]:
    return [group.origin.author[0] for group in pool.groups() if group.origin]


def pool_of(*groups: Group, capacity: int = 10) -> Pool:
    pool = Pool(capacity, max_age_s=600.0, max_wait_rounds=5)
    for group in groups:
        pool.add(group)
    return pool


def test_keeps_groups_oldest_first() -> None:
    pool = pool_of(*(peer_group([1, 0], author=number) for number in (3, 1, 2)))
    assert authors(pool) == [3, 1, 2]
    assert len(pool) == 3


def test_full_pool_drops_the_oldest() -> None:
    pool = pool_of(*(peer_group([1, 0], author=number) for number in range(5)), capacity=3)
    assert authors(pool) == [2, 3, 4]


def test_drops_what_is_older_than_the_limit_by_its_authors_clock() -> None:
    pool = pool_of(
        peer_group([1, 0], author=1, created=399.0), peer_group([1, 0], author=2, created=400.0)
    )
    assert pool.expire(now=1000.0, round=0) == 1  # 1000 − 600 = 400 is still fresh
    assert authors(pool) == [2]


def test_drops_what_waited_more_rounds_than_the_limit() -> None:
    pool = pool_of(
        peer_group([1, 0], author=1, received_round=4),
        peer_group([1, 0], author=2, received_round=5),
    )
    assert pool.expire(now=0.0, round=10) == 1  # 10 − 5 = 5 rounds are allowed, 6 are not
    assert authors(pool) == [2]


def test_expiring_keeps_order_and_capacity() -> None:
    pool = pool_of(*(peer_group([1, 0], author=number) for number in range(3)), capacity=3)
    assert pool.expire(now=0.0, round=0) == 0
    pool.add(peer_group([1, 0], author=9))
    assert authors(pool) == [1, 2, 9]


def test_a_group_may_be_used_as_often_as_allowed_and_then_is_gone() -> None:
    pool = Pool(10, max_age_s=600.0, max_wait_rounds=5, max_uses=2)
    for number in range(2):
        pool.add(peer_group([1, 0], author=number))
    pool.take(pool.groups()[:1])
    assert authors(pool) == [0, 1]
    pool.take(pool.groups())
    assert authors(pool) == [1]
    pool.add(peer_group([1, 0], author=7))
    pool.take(pool.groups())
    assert authors(pool) == [7]


def test_uses_belong_to_a_rollout_and_not_to_an_object() -> None:
    pool = Pool(10, max_age_s=600.0, max_wait_rounds=5, max_uses=2)
    pool.add(peer_group([1, 0], author=1))
    pool.take([peer_group([1, 0], author=1)])  # equal, another object
    assert authors(pool) == [1]
    pool.take(pool.groups())
    assert authors(pool) == []


def test_a_taken_group_is_gone() -> None:
    pool = pool_of(*(peer_group([1, 0], author=number) for number in range(3)))
    pool.take(pool.groups()[1:2])
    assert authors(pool) == [0, 2]


def test_of_equal_groups_only_the_taken_one_goes() -> None:
    pool = pool_of(peer_group([1, 0]), peer_group([1, 0]))
    assert pool.groups()[0] == pool.groups()[1]
    pool.take(pool.groups()[:1])
    assert len(pool) == 1


def test_mean_age_is_by_the_authors_clocks() -> None:
    assert pool_of().mean_age_s(100.0) == 0.0
    pool = pool_of(peer_group([1, 0], created=90.0), peer_group([1, 0], created=70.0))
    assert pool.mean_age_s(100.0) == 20.0  # (10 + 30) / 2


def test_own_groups_are_not_pooled() -> None:
    with pytest.raises(ValueError, match="peers"):
        pool_of(own_group([1, 0]))
