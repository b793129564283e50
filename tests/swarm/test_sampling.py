"""The published rule: uniform draws, and of the groups only those with a signal."""

import random
from collections import Counter

import pytest
from fakes import peer_group

from protocol.messages import Item
from swarmnode.swarm.admission import Offer
from swarmnode.swarm.sampling import choose_groups, choose_offers, fetch_count


def offer(number: int) -> Offer:
    return Offer(bytes([number] * 32), Item(bytes([number] * 32), b"add1", number, 300), 0.0)


def test_draws_offers_without_replacement() -> None:
    offers = [offer(number) for number in range(10)]
    chosen = choose_offers(offers, 10, random.Random(1))
    assert sorted(o.item.seed for o in chosen) == list(range(10))
    assert chosen != offers


def test_takes_all_when_there_are_fewer_than_wanted() -> None:
    assert choose_offers([offer(3)], 8, random.Random(1)) == [offer(3)]
    assert choose_offers([], 8, random.Random(1)) == []
    assert choose_groups([], 8, random.Random(1)) == []


def test_every_offer_is_equally_likely() -> None:
    offers = [offer(number) for number in range(5)]
    rng = random.Random(1)
    drawn = Counter(o.item.seed for _ in range(2000) for o in choose_offers(offers, 2, rng))
    # 2000 draws of 2 of 5: 800 each, standard deviation sqrt(2000 × 0.4 × 0.6) = 22.
    assert all(abs(count - 800) < 4 * 22 for count in drawn.values())
    assert len(drawn) == 5


def test_the_same_seed_draws_the_same() -> None:
    offers = [offer(number) for number in range(20)]
    assert choose_offers(offers, 4, random.Random(9)) == choose_offers(offers, 4, random.Random(9))


def test_groups_without_a_signal_are_never_chosen() -> None:
    useful = [peer_group([1.0, 0.0], author=number) for number in range(3)]
    useless = [peer_group([1.0, 1.0], author=7), peer_group([0.0, 0.0], author=8)]
    chosen = choose_groups([*useless, *useful], 5, random.Random(1))
    assert sorted(group.origin.author[0] for group in chosen if group.origin) == [0, 1, 2]


def test_every_group_with_a_signal_is_equally_likely() -> None:
    groups = [peer_group([1.0, 0.0], author=number) for number in range(4)]
    rng = random.Random(1)
    drawn = Counter(
        group.origin.author[0]
        for _ in range(2000)
        for group in choose_groups(groups, 1, rng)
        if group.origin
    )
    # 2000 draws of 1 of 4: 500 each, standard deviation sqrt(2000 × 0.25 × 0.75) = 19.4.
    assert all(abs(drawn[number] - 500) < 4 * 19.4 for number in range(4))


@pytest.mark.parametrize(
    ("wanted", "factor", "pooled", "in_flight", "expected"),
    [
        (4, 2, 0, 0, 8),  # 4 × 2
        (4, 2, 3, 2, 3),  # 8 − 3 − 2
        (4, 2, 8, 0, 0),
        (4, 2, 100, 3, 0),  # never negative
        (0, 2, 0, 0, 0),
    ],
)
def test_fetches_what_pool_and_requests_leave_open(
    wanted: int, factor: int, pooled: int, in_flight: int, expected: int
) -> None:
    assert fetch_count(wanted, factor, pooled, in_flight) == expected
