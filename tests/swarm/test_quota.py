"""Budgets and shares: what one author, one network and a flood of new keys get, and what they would
get without each rule."""

import random
from collections import Counter

import pytest

from swarmnode.config import TrustSettings
from swarmnode.swarm.quota import Buckets, Quota, fair_weights
from swarmnode.swarm.standing import Standing

NOW = 1_000_000.0
Item = tuple[bytes, int]  # author, number


def author(number: int) -> bytes:
    return number.to_bytes(32)


def quota(**changes: object) -> tuple[Quota, Standing]:
    settings = TrustSettings(**({"newcomer_grace": 0} | changes))  # type: ignore[arg-type]
    standing = Standing(settings)
    return Quota(settings, standing), standing


def establish(standing: Standing, *authors: bytes) -> None:
    for one in authors:
        for round in range(3):
            standing.credit(one, round, NOW)


# --- buckets ---


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    buckets = Buckets(rate=2.0, burst=5.0, max_keys=9)
    assert [buckets.allows("a", NOW) for _ in range(6)] == [True] * 5 + [False]
    assert buckets.allows("b", NOW)
    assert [buckets.allows("a", NOW + 1) for _ in range(3)] == [True, True, False]


def test_a_bucket_lets_pass_at_once_what_came_during_a_long_round() -> None:
    buckets = Buckets(rate=2.0, burst=5.0, max_keys=9)
    assert buckets.allows("a", NOW)
    # 4 left, and 2 a second for 100 s.
    assert sum(buckets.allows("a", NOW + 100) for _ in range(1000)) == 204
    # None left, and the next 600 s only.
    assert sum(buckets.allows("a", NOW + 9999) for _ in range(9999)) == 1200


def test_a_refused_amount_costs_nothing() -> None:
    buckets = Buckets(rate=0.0, burst=5.0, max_keys=9)
    assert not buckets.allows("a", NOW, 6)
    assert buckets.allows("a", NOW, 5)
    assert not buckets.allows("a", NOW)


def test_a_clock_that_goes_back_gives_nothing() -> None:
    buckets = Buckets(rate=1.0, burst=1.0, max_keys=9)
    assert buckets.allows("a", NOW)
    assert not buckets.allows("a", NOW - 100)
    assert not buckets.allows("a", NOW)


def test_buckets_are_bounded_and_forget_the_longest_unused() -> None:
    buckets = Buckets(rate=0.0, burst=1.0, max_keys=2)
    assert [buckets.allows(key, NOW) for key in "abac"] == [True, True, False, True]
    assert len(buckets) == 2
    assert not buckets.allows("a", NOW)
    assert buckets.allows("b", NOW)


# --- budgets ---


def test_one_author_announces_so_often_and_others_still_may() -> None:
    kept, _ = quota()
    assert sum(kept.allows_announcement(author(1), NOW) for _ in range(1000)) == 60
    assert kept.allows_announcement(author(2), NOW)
    assert kept.allows_announcement(author(1), NOW + 1)


def test_new_keys_share_one_budget_and_the_established_have_their_own() -> None:
    kept, standing = quota()
    establish(standing, author(0))
    assert sum(kept.allows_announcement(author(n), NOW) for n in range(1, 9999)) == 1200
    assert kept.allows_announcement(author(0), NOW)


def test_authors_of_one_network_share_a_budget_once_it_is_known() -> None:
    kept, standing = quota()
    authors = [author(n) for n in range(100)]
    establish(standing, *authors)
    for one in authors[:50]:
        standing.locate(one, "/ip4/203.0.113.7/tcp/1", NOW)
    assert sum(kept.allows_announcement(a, NOW) for _ in range(9) for a in authors[:50]) == 240
    assert all(kept.allows_announcement(a, NOW) for _ in range(9) for a in authors[50:])


def test_offers_are_counted_by_author() -> None:
    kept, _ = quota()
    assert sum(kept.allows_offers(author(1), 64, NOW) for _ in range(100)) == 1024 / 64
    assert kept.allows_offers(author(2), 64, NOW)


def test_with_the_switch_off_nothing_is_counted() -> None:
    kept, _ = quota(quotas=False)
    assert all(kept.allows_announcement(author(1), NOW) for _ in range(2000))
    assert all(kept.allows_offers(author(1), 64, NOW) for _ in range(2000))
    assert len(kept) == 0


def test_budgets_are_bounded() -> None:
    kept, _ = quota(max_authors=10)
    for number in range(100):
        kept.allows_announcement(author(number), NOW)
        kept.allows_offers(author(number), 1, NOW)
    assert len(kept) == 10 + 10 + 1


# --- shares ---


def drawn(kept: Quota, items: list[Item], count: int, times: int = 400) -> Counter[bytes]:
    """How often each author's items are drawn, in many draws of `count`."""
    found: Counter[bytes] = Counter()
    for seed in range(times):
        chosen = kept.draw(items, lambda item: item[0], count, random.Random(seed))
        assert len(set(chosen)) == len(chosen)
        found.update(one for one, _ in chosen)
    return found


def offers(authors: list[bytes], each: int) -> list[Item]:
    return [(one, number) for one in authors for number in range(each)]


def share(found: Counter[bytes], authors: list[bytes]) -> float:
    return sum(found[one] for one in authors) / found.total()


def test_who_offers_much_is_drawn_no_more_often() -> None:
    honest = [author(n) for n in range(1, 10)]
    items = offers([author(0)], 291) + offers(honest, 1)
    kept, _ = quota()
    assert share(drawn(kept, items, 1), [author(0)]) == pytest.approx(0.1, abs=0.05)
    unfair, _ = quota(fair_shares=False)
    assert share(drawn(unfair, items, 1), [author(0)]) > 0.95


def test_newcomers_get_a_tenth_however_many_they_are() -> None:
    known, new = [author(n) for n in range(4)], [author(n) for n in range(10, 110)]
    items = offers(known, 30) + offers(new, 2)
    kept, standing = quota()
    establish(standing, *known)
    for count in (1, 4, 24):
        assert share(drawn(kept, items, count, 300), new) == pytest.approx(0.1, abs=0.05)
    open_lane, standing = quota(newcomer_share=1.0)
    establish(standing, *known)
    assert share(drawn(open_lane, items, 4, 20), new) == 1.0


def test_at_the_start_newcomers_are_not_held_back() -> None:
    kept, standing = quota(newcomer_grace=20)
    establish(standing, author(1))
    items = offers([author(1)], 50) + offers([author(n) for n in range(2, 11)], 50)
    assert share(drawn(kept, items, 4), [author(1)]) == pytest.approx(0.1, abs=0.03)
    standing.credit(author(1), 22, NOW)  # 20 rounds after round 2
    assert share(drawn(kept, items, 4), [author(1)]) == pytest.approx(0.9, abs=0.03)


def test_a_newcomer_shares_the_part_of_its_network() -> None:
    kept, standing = quota()
    establish(standing, author(0), author(1))
    for number, host in ((0, "1.1.1.1"), (1, "2.2.2.1"), (2, "1.1.1.2"), (3, "1.1.1.3")):
        standing.locate(author(number), f"/ip4/{host}/tcp/1", NOW)
    found = drawn(kept, offers([author(n) for n in range(4)], 50), 4)
    assert found[author(1)] / found.total() == pytest.approx(0.5, abs=0.04)
    assert all(
        found[author(n)] / found.total() == pytest.approx(1 / 6, abs=0.03) for n in (0, 2, 3)
    )


def test_a_flood_of_new_keys_leaves_half_of_the_lane_to_those_who_were_met() -> None:
    kept, standing = quota(newcomer_share=0.5)
    establish(standing, author(0))
    standing.locate(author(0), "/ip4/1.1.1.1/tcp/1", NOW)
    standing.locate(author(1), "/ip4/2.2.2.2/tcp/1", NOW)
    flood = [author(n) for n in range(10, 400)]
    found = drawn(kept, offers([author(0), author(1)], 50) + offers(flood, 2), 8)
    assert found[author(1)] / found.total() == pytest.approx(0.25, abs=0.03)
    assert share(found, flood) == pytest.approx(0.25, abs=0.03)


def test_without_anybody_established_newcomers_get_all() -> None:
    kept, _ = quota()
    items = offers([author(1), author(2)], 4)
    assert len(kept.draw(items, lambda item: item[0], 8, random.Random(1))) == 8


def test_what_newcomers_leave_goes_to_the_established_and_not_the_other_way() -> None:
    kept, standing = quota()
    establish(standing, author(1))
    only_known = offers([author(1)], 20)
    assert len(kept.draw(only_known, lambda item: item[0], 10, random.Random(1))) == 10
    few_known = offers([author(1)], 2) + offers([author(2)], 50)
    assert drawn(kept, few_known, 10)[author(2)] == 400  # one of ten in each of 400 draws


@pytest.mark.parametrize(("most", "expected"), [(1, 1 / 11), (2, 2 / 12)])
def test_a_network_counts_as_so_many_authors_at_most(most: int, expected: float) -> None:
    honest, sybils = [author(n) for n in range(10)], [author(n) for n in range(100, 140)]
    kept, standing = quota(authors_per_network=most)
    establish(standing, *honest, *sybils)
    for number, one in enumerate(honest):
        standing.locate(one, f"/ip4/198.51.{number}.1/tcp/1", NOW)
    for one in sybils:
        standing.locate(one, "/ip4/203.0.113.7/tcp/1", NOW)
    items = offers(honest + sybils, 8)
    assert share(drawn(kept, items, 4), sybils) == pytest.approx(expected, abs=0.03)
    blind, standing = quota(authors_per_network=1000)
    establish(standing, *honest, *sybils)
    assert share(drawn(blind, items, 4), sybils) == pytest.approx(0.8, abs=0.05)


def test_all_nodes_in_one_network_are_drawn_alike() -> None:
    authors = [author(n) for n in range(5)]
    kept, standing = quota()
    establish(standing, *authors)
    for one in authors:
        standing.locate(one, "/ip4/127.0.0.1/tcp/1", NOW)
    found = drawn(kept, offers(authors, 4), 5)
    assert all(found[one] == pytest.approx(400, rel=0.15) for one in authors)


def test_everything_is_drawn_once_when_all_is_asked_for() -> None:
    kept, _ = quota()
    items = offers([author(n) for n in range(20)], 3)
    assert sorted(kept.draw(items, lambda item: item[0], 999, random.Random(1))) == sorted(items)


def test_weights_share_alike() -> None:
    one, two, other = (b"a", "x"), (b"b", "x"), (b"c", "")
    # Network x: two authors count as one, each half of it; of a's two items each a quarter.
    assert fair_weights([one, one, two, other], 1) == [0.25, 0.25, 0.5, 1.0]
    assert fair_weights([one, one, two, other], 2) == [0.5, 0.5, 1.0, 1.0]
    assert fair_weights([], 2) == []
