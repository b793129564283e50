"""How many shards a node believes in and what it listens to, without any network."""

import functools
import hashlib
import heapq
import itertools
from collections.abc import Iterable, Sequence
from random import Random

import pytest

from protocol.names import WHOLE, Shard, rank_of, shard_of
from swarmnode.swarm.sharding import (
    BEACON_S,
    LEAST_SAMPLE,
    MAX_LOBBY,
    MAX_SHARD,
    SAMPLE,
    SETTLE_S,
    SMALL,
    SPLIT_ABOVE,
    WINDOW_S,
    Sharding,
    estimated_size,
)

ROUND_S = 30.0


def key(number: int) -> bytes:
    return hashlib.sha256(b"node %d" % number).digest()


def keys(count: int, start: int = 0) -> list[bytes]:
    return [key(number) for number in range(start, start + count)]


def lowest(authors: Iterable[bytes]) -> list[bytes]:
    return heapq.nsmallest(SAMPLE, authors, key=rank_of)


@functools.cache
def told(nodes: int, start: int = 0) -> tuple[bytes, ...]:
    """Who says in the lobby of a swarm of so many nodes that it is there."""
    return tuple(lowest(keys(nodes, start)))


def view(
    of: bytes, lobby: Iterable[bytes], now: float = 0.0, shard: Sequence[bytes] = ()
) -> Sharding:
    """The view of a node that heard these in the lobby, and these in its own shard."""
    one = Sharding(of)
    for author in lobby:
        one.heard(author, WHOLE, now)
    one.update(now, Random(1))
    for author in shard:
        one.heard(author, one.own, now)
    return one


def grown(me: bytes, authors: Sequence[bytes]) -> Sharding:
    """A node that joined a swarm of these authors."""
    return view(me, lowest(authors), shard=authors)


# --- the size of the swarm ---


@pytest.mark.parametrize("nodes", [1, 5, 23])
def test_a_few_nodes_are_counted(nodes: int) -> None:
    assert estimated_size([rank_of(author) for author in keys(nodes)]) == nodes


@pytest.mark.parametrize("nodes", [300, 1000, 10_000, 100_000])
def test_the_lowest_ranks_tell_the_size_of_any_swarm(nodes: int) -> None:
    ranks = [rank_of(author) for author in told(nodes)]
    assert estimated_size(ranks) == pytest.approx(nodes, rel=0.4)  # three standard errors


def test_half_of_the_lowest_ranks_tell_it_too() -> None:
    ranks = Random(2).sample([rank_of(author) for author in told(10_000)], 32)
    assert estimated_size(ranks) == pytest.approx(10_000, rel=0.5)


def test_newcomers_in_the_lobby_do_not_make_a_large_swarm_look_small() -> None:
    heard = [*told(10_000)[::2], *keys(15, start=20_000)]
    assert estimated_size([rank_of(author) for author in heard]) > 5000


@pytest.mark.parametrize("nodes", range(LEAST_SAMPLE, 200, 8))
def test_a_small_swarm_never_looks_like_one_with_shards(nodes: int) -> None:
    for start in range(0, 4000, 200):
        ranks = [rank_of(author) for author in keys(nodes, start)]
        assert estimated_size(ranks) <= SPLIT_ABOVE


@pytest.mark.parametrize("nodes", [200, 1000, 10_000])
def test_one_liar_changes_the_estimate_little(nodes: int) -> None:
    """It has one key, however low its rank. The lowest rank alone would be its to choose."""
    ranks = [rank_of(author) for author in told(nodes)]
    liar = 1e-9
    assert estimated_size([liar, *ranks]) == pytest.approx(estimated_size(ranks), rel=0.1)
    by_the_lowest_alone = 1 / min([liar, *ranks])
    assert by_the_lowest_alone > 10_000 * nodes


# --- the number of shards ---


@pytest.mark.parametrize("nodes", [0, 1, 8, 40, 150])
def test_a_small_swarm_has_one_topic_and_nothing_else(nodes: int) -> None:
    one = view(key(-1), keys(nodes))
    assert (one.own, one.listening, one.owes_beacon(0.0)) == (WHOLE, (), False)


@pytest.mark.parametrize("nodes", [400, 1000, 10_000, 200_000])
def test_all_members_of_a_large_swarm_agree_on_shards_of_some_dozen_authors(nodes: int) -> None:
    views = [view(me, told(nodes)) for me in keys(50)]
    (shards,) = {one.own.of for one in views}
    assert 15 <= nodes / shards <= 60


def test_what_is_heard_does_not_grow_with_the_swarm() -> None:
    for nodes in (400, 1000, 3000, 10_000, 30_000, 100_000):
        views = [view(key(number), told(nodes)) for number in range(100)]
        heard = [nodes * len(one._drawn) / one.own.of for one in views]
        assert 70 <= sum(heard) / len(heard) <= 145
        assert max(len(one.listening) for one in views) <= 24
        assert all(one.own in one.listening for one in views)


def test_nodes_whose_counts_differ_by_one_step_hear_one_another() -> None:
    """Between 256 and 257 nodes, and at every doubling."""
    few, many = keys(200), keys(40)
    for me, author in itertools.product(many[:20], many[20:]):
        settled, ahead = view(me, told(2000)), view(author, told(2000))
        for shards in (settled.own.of // 2, settled.own.of * 2):
            ahead._change(shards, 0.0)
            hears = shard_of(author, settled.own.of) in settled._drawn
            assert (ahead.own in settled.listening) >= hears
    behind = view(key(1), few)
    assert len(behind.listening) == 8  # near the limit it hears all first shards
    assert {shard_of(author, 8) for author in many} <= set(behind.listening)


def test_a_growing_and_shrinking_swarm_changes_its_shards_without_swinging() -> None:
    me, counts, now = key(-5), [], 0.0
    one = Sharding(me)
    sizes = [*range(100, 1600, 100), *range(1600, 50, -100)]
    for nodes in sizes:
        authors = keys(nodes)
        for _ in range(3):
            now += SETTLE_S + 1  # longer than the window: only what is heard now counts
            for author in lowest(authors) if one.own != WHOLE else authors:
                one.heard(author, WHOLE, now)
            for author in authors:
                if shard_of(author, one.own.of) == one.own != WHOLE:
                    one.heard(author, one.own, now)
            one.update(now, Random(3))
        counts.append(one.own.of)
    steps = [after / before for before, after in itertools.pairwise(counts) if after != before]
    assert counts[0] == counts[-1] == 1
    assert max(counts) >= 32
    turn = steps.index(next(step for step in steps if step < 1))
    assert all(step > 1 for step in steps[:turn])
    assert all(step < 1 for step in steps[turn:])


def test_many_keys_of_low_rank_send_a_node_back_to_where_everyone_hears_it() -> None:
    honest, forged = keys(300), told(30_000, start=10**6)
    one = view(honest[0], [*honest, *forged])
    assert one.own.of >= 1024  # it believes what it hears
    for author in honest:
        one.heard(author, WHOLE, SETTLE_S)  # the others, who are back already
    one.update(SETTLE_S, Random(1))
    assert one.own == WHOLE
    for author in [*honest, *forged]:
        one.heard(author, WHOLE, SETTLE_S + ROUND_S)
    one.update(SETTLE_S + ROUND_S, Random(1))
    assert one.own.of == 8  # 364 authors, counted; a forger's ranks are not believed now


def test_without_that_a_forger_would_isolate_every_node() -> None:
    honest, forged = keys(300), told(30_000, start=10**6)
    views = [view(me, [*honest, *forged]) for me in honest]
    owns = [one.own for one in views]
    assert len(set(owns)) > 200


# --- beacons and draws ---


def test_only_the_lowest_ranks_send_beacons_and_once_a_minute() -> None:
    authors = keys(1000)
    ranked = sorted(authors, key=rank_of)
    others = {me: [author for author in ranked[: SAMPLE + 1] if author != me] for me in authors}
    senders = [me for me in authors if view(me, others[me][:SAMPLE]).owes_beacon(0.0)]
    assert set(senders) == set(told(1000))
    one = view(senders[0], others[senders[0]])
    due = [one.owes_beacon(now) for now in (0.0, BEACON_S - 1, BEACON_S)]
    assert due == [True, False, True]


def test_who_is_silent_for_the_window_is_forgotten() -> None:
    one = view(key(-1), keys(100))
    one.update(WINDOW_S + 1, Random(1))
    assert (one.estimate, one.known) == (0.0, 0)


def test_one_drawn_shard_at_a_time_is_replaced_and_the_own_one_stays() -> None:
    mates, now = keys(1500), 0.0
    one, seen = view(key(-1), told(1500)), set()
    for _ in range(100):
        before = list(one._drawn)
        now += 2 * ROUND_S
        for author in told(1500):
            one.heard(author, WHOLE, now)
        for author in mates:
            one.heard(author, one.own, now)
        one.update(now, Random(int(now)))
        assert one._drawn[0] == one.own
        assert len(set(before) - set(one._drawn)) <= 1
        seen |= set(one._drawn)
    assert len(seen) > 8


def test_a_flood_of_keys_stays_within_bounds() -> None:
    one = view(key(-1), told(10_000))
    for author in keys(20_000, start=50_000):
        one.heard(author, WHOLE, 1.0)
        one.heard(author, one.own, 1.0)
    assert one.known <= MAX_LOBBY + MAX_SHARD
    one.update(1.0, Random(1))
    assert len(one.listening) <= 24
    assert all(isinstance(shard, Shard) for shard in one.listening)


# --- the small audience ---


def small_view(me: bytes, others: Iterable[bytes]) -> Sharding:
    """With the small audience, of a node that heard these in the lobby."""
    one = Sharding(me, SMALL)
    heard = list(others)
    for now in (0.0, SMALL.split_after_s):
        for author in heard:
            one.heard(author, WHOLE, now)
        one.update(now, Random(me))
    return one


def small_views(nodes: int, start: int) -> list[Sharding]:
    """Those of all nodes of a swarm in which every one has heard every other once."""
    everyone = keys(nodes, start)
    return [small_view(me, (key for key in everyone if key != me)) for me in everyone]


@pytest.mark.parametrize("nodes", [16, 32, 64, 200])
def test_a_small_audience_is_the_same_from_8_nodes_on(nodes: int) -> None:
    """8 nodes hear 7 each, as all hear all."""
    means = []
    for start in range(0, 4000, 400):
        views = small_views(nodes, start)
        authors = list(zip(keys(nodes, start), views, strict=True))
        heard = [
            sum(author.own in one.listening for key, author in authors if key != me)
            for me, one in authors
        ]
        means.append(sum(heard) / nodes)
    assert 5 <= sum(means) / len(means) <= 8, means


@pytest.mark.parametrize("nodes", range(1, 13))
def test_a_dozen_nodes_have_one_topic_whatever_their_ranks(nodes: int) -> None:
    for start in range(0, 2000, 100):
        for one in small_views(nodes, start):
            assert (one.own, one.owes_beacon(99.0)) == (WHOLE, False)


def test_with_a_small_audience_16_nodes_say_that_they_are_there() -> None:
    everyone = keys(100)
    heard = heapq.nsmallest(SMALL.sample, everyone, key=rank_of)
    beacons = [
        me for me in everyone if small_view(me, (k for k in heard if k != me)).owes_beacon(1)
    ]
    assert 14 <= len(beacons) <= 18


def test_alone_in_its_small_shard_a_node_announces_to_all_again() -> None:
    one = small_view(key(0), keys(40, start=1))
    assert one.own.of > 1
    for author in keys(40, start=1):
        one.heard(author, WHOLE, SETTLE_S)
    one._mates.clear()
    later = SMALL.split_after_s + SETTLE_S
    one.update(later, Random(1))
    assert one.own == WHOLE


def test_a_swarm_that_gathers_waits_until_all_had_their_turn() -> None:
    everyone, me = keys(40, start=1), key(0)
    one = Sharding(me, SMALL)
    for number, author in enumerate(everyone):
        one.heard(author, WHOLE, float(number))
        one.update(float(number), Random(1))
    assert one.own == WHOLE
    one.update(13 + SMALL.split_after_s, Random(1))
    assert one.own.of == small_view(me, everyone).own.of > 4
