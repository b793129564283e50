"""Several holders of one rollout: nothing is lost that a live node holds, nothing taken twice."""

import itertools
import random

import pytest
from test_exchange import DIGEST, NOW, Member, hub, member, number_of, published, rollout

from protocol.errors import Reason
from protocol.messages import Announcement, Item
from swarmnode.swarm.admission import Offer
from swarmnode.swarm.asking import MAX_ATTEMPTS, MAX_PEERS, MAX_WANTED, REST_S, Asking
from swarmnode.swarm.memory import Hub, MemoryTransport
from swarmnode.swarm.offers import MAX_AUTHORS
from swarmnode.swarm.transport import FetchProblem

__all__ = ["hub"]  # the fixture

LONG_S = 1000.0  # longer than any rest


def heard_before_it_left(hub: Hub) -> tuple[Member, Member, Member]:
    """An author that is gone, a holder of its rollout, and a reader that heard of both."""
    author, holder, reader = (member(hub, number) for number in (1, 2, 3))
    author.publish(published(author))
    reader.collect()
    assert len(holder.take()) == 1
    hub.cut(author.me.peer_id)
    return author, holder, reader


def test_a_rollout_outlives_its_author(hub: Hub) -> None:
    author, holder, reader = heard_before_it_left(hub)
    assert reader.take() == []  # the author does not answer
    assert reader.exchange.missed == {"unreachable": 1}
    holder.publish(published(holder))
    authors = {arrival.origin.author for arrival in reader.take()}
    assert authors == {author.me.public_key, holder.me.public_key}
    assert reader.exchange.refused == {}


def test_without_its_announcement_nobody_would_know_of_the_holder(hub: Hub) -> None:
    _, holder, reader = heard_before_it_left(hub)
    holder.exchange._publisher._kept.clear()
    holder.publish(published(holder))
    assert {arrival.origin.author for arrival in reader.take()} == {holder.me.public_key}
    assert reader.take() == []


def test_a_rollout_passes_from_holder_to_holder(hub: Hub) -> None:
    members = [member(hub, number) for number in range(1, 6)]
    author, *others = members
    author.publish(published(author))
    for one in others:
        one.collect()
    assert len(others[0].take()) == 1
    hub.cut(author.me.peer_id)
    for holder, reader in itertools.pairwise(others):
        holder.publish(published(holder))
        got = [arrival for _ in range(2) for arrival in reader.take()]
        assert author.me.public_key in {arrival.origin.author for arrival in got}
        hub.cut(holder.me.peer_id)


def test_a_rollout_with_many_holders_is_taken_once(hub: Hub) -> None:
    author, *others = (member(hub, number) for number in range(1, 6))
    author.publish(published(author))
    taken = []
    for _ in range(4):
        for one in others:
            one.publish(published(one))
        for one in others:
            taken += [(id(one), a.origin.author, a.origin.rollout_id) for a in one.take()]
    assert len(taken) == len(set(taken))
    assert sum(origin == author.me.public_key for _, origin, _ in taken) == len(others)


def liar(hub: Hub, number: int, honest_id: bytes) -> Member:
    """Says that it holds what it does not."""
    one = member(hub, number)
    frame = one.seal(announcement_holding(honest_id)).frame
    one.transport.publish(frame)
    return one


def announcement_holding(id: bytes) -> Announcement:
    return Announcement.build(
        round=1, created=NOW, policy_version=0, model_label="liar", items=[], held=[id]
    )


def test_liars_who_say_they_hold_it_do_not_keep_it_from_being_found(hub: Hub) -> None:
    author, holder, reader = heard_before_it_left(hub)
    (id,) = holder.transport._outbox.ids()
    holder.publish(published(holder))
    for number in range(10, 10 + MAX_PEERS // 2):
        liar(hub, number, id)
    got = [arrival for _ in range(MAX_PEERS) for arrival in reader.take()]
    assert author.me.public_key in {arrival.origin.author for arrival in got}


def test_what_a_false_holder_serves_is_refused_and_the_author_asked_again(hub: Hub) -> None:
    author, reader = member(hub, 1), member(hub, 2)
    number = number_of(author, held_out=False)
    sealed = author.offer(rollout(number))
    reader.collect()
    hub.cut(author.me.peer_id)
    reader.request()
    false = liar(hub, 9, sealed.id)
    false.transport.hold(sealed.id, author.seal(rollout(number, text="other")).frame)
    assert reader.take() == []  # notes the failure and the liar, asks it
    assert reader.collect() == []
    assert reader.exchange.refused == {Reason.NOT_ANNOUNCED: 1}
    hub.join_again(author.me.peer_id)
    assert reader.take() == []  # the author rests
    assert len(reader.take(NOW + REST_S)) == 1


def test_a_held_rollout_that_is_refused_is_not_served_on(hub: Hub) -> None:
    author, reader = member(hub, 1), member(hub, 2)
    author.offer(rollout(number_of(author, held_out=True)))
    assert reader.take() == []
    assert reader.exchange.refused == {Reason.HELD_OUT: 1}
    assert reader.transport._outbox.ids() == []


# --- the rules, one by one ---


def asking() -> tuple[Asking, Offer]:
    transport = MemoryTransport(Hub(), "nobody")
    return Asking(transport, bytes(32)), Offer(bytes([1] * 32), Item(b"i" * 32, DIGEST, 1, 9), NOW)


def tries(one: Asking, offer: Offer, problem: FetchProblem, most: int = 50) -> list[bytes]:
    """Whom the offer is asked of until nobody is left; between tries there is time enough."""
    asked: list[bytes] = []
    now = NOW
    while not one.is_given_up(offer) and len(asked) < most:
        now += LONG_S
        assert is_open(one, offer, now)
        assert one.ask([offer], now) == 1
        (asked_now,) = one._in_flight.values()
        asked.append(asked_now.peer)
        assert one.answered(asked_now.peer, b"i" * 32) == offer
        one.failed(offer, asked_now.peer, problem, now)
    return asked


def is_open(one: Asking, offer: Offer, now: float) -> bool:
    return any(one.opened([offer], now))


def fail(one: Asking, offer: Offer, now: float) -> None:
    assert one.ask([offer], now) == 1
    assert one.answered(offer.author, b"i" * 32) == offer
    one.failed(offer, offer.author, FetchProblem.UNREACHABLE, now)


def test_a_peer_that_is_away_for_a_while_costs_nothing_however_short_the_rounds_are() -> None:
    one, offer = asking()
    now, asked_at = NOW, []
    while not one.is_given_up(offer):
        if is_open(one, offer, now):
            asked_at.append(now - NOW)
            fail(one, offer, now)
        now += 0.5
    assert asked_at == [0.0, 2.0, 6.0, 14.0, 30.0]


def test_a_holder_is_asked_while_the_author_rests() -> None:
    one, offer = asking()
    fail(one, offer, NOW)
    assert not is_open(one, offer, NOW + 0.5)
    assert not one.is_given_up(offer)
    one.note_held(key(2), b"iiii")
    assert is_open(one, offer, NOW + 0.5)


def key(number: int) -> bytes:
    return bytes([number] * 32)


def test_holders_are_asked_in_turn_with_the_author() -> None:
    one, offer = asking()
    for holder in (key(2), key(3)):
        one.note_held(holder, b"xxxxiiii")
    asked = tries(one, offer, FetchProblem.UNREACHABLE)
    assert asked == [key(1), key(3), key(2)] * MAX_ATTEMPTS  # who said so last first


@pytest.mark.parametrize("problem", [FetchProblem.ABSENT, FetchProblem.MALFORMED])
def test_who_does_not_have_it_is_asked_once(problem: FetchProblem) -> None:
    one, offer = asking()
    one.note_held(key(2), b"iiii")
    assert tries(one, offer, problem) == [key(1), key(2)]


def test_no_more_than_some_peers_are_asked_for_one_offer() -> None:
    one, offer = asking()
    for number in range(2, 60):
        one.note_held(key(number), b"iiii")
    assert len(tries(one, offer, FetchProblem.ABSENT)) == MAX_PEERS


def test_an_own_limit_is_nobodys_fault() -> None:
    one, offer = asking()
    assert len(tries(one, offer, FetchProblem.BUDGET, most=20)) == 20


def test_ids_are_compared_where_they_begin() -> None:
    one, offer = asking()
    one.note_held(key(2), b"xxiiiixx")  # two ids, across which it reads iiii
    assert tries(one, offer, FetchProblem.ABSENT) == [key(1)]


def test_what_holders_say_stays_within_bounds() -> None:
    one, _ = asking()
    rng = random.Random(1)
    for number in range(3000):
        one.note_held(number.to_bytes(32, "big"), rng.randbytes(64))
        one.note_held(key(7), rng.randbytes(64))
    assert one.remembered <= 1024
    assert max(map(len, one._held.values())) <= 192


def test_what_was_asked_for_is_asked_for_whatever_its_author_announced_since(hub: Hub) -> None:
    author, reader = member(hub, 1), member(hub, 2)
    author.publish(published(author, ["first"]))
    reader.collect()
    hub.cut(author.me.peer_id)
    reader.request()
    assert reader.collect() == []
    hub.join_again(author.me.peer_id)
    for text in ("second", "third"):  # as many announcements as are kept
        author.publish(published(author, [text]))
    got = {arrival.rollout.texts for arrival in reader.take(NOW + REST_S)}
    assert got == {("first",), ("second",), ("third",)}


def test_offers_that_nobody_delivers_are_remembered_up_to_a_number() -> None:
    one, _ = asking()
    offers = [
        Offer(bytes([1] * 32), Item(n.to_bytes(32, "big"), DIGEST, n, 9), NOW)
        for n in range(MAX_WANTED + 10)
    ]
    one.ask(offers, NOW)
    for offer in offers:
        one.answered(offer.author, offer.item.rollout_id)
        one.failed(offer, offer.author, FetchProblem.UNREACHABLE, NOW)
    one.forget((), NOW)
    assert one.wanted() == offers[10:]
    one.forget([offers[-1].key], NOW)
    assert one.wanted() == offers[10:-1]
    one.forget((), NOW + 1)
    assert one.wanted() == []
    assert one.remembered == 0


def test_an_author_that_is_avoided_is_not_asked_again() -> None:
    one, offer = asking()
    fail(one, offer, NOW)
    one.drop(key(2))
    assert one.wanted() == [offer]
    one.drop(offer.author)
    assert one.wanted() == []


def offer_of(author: int, number: int) -> Offer:
    item = Item(bytes([author]) + number.to_bytes(31), DIGEST, number, 9)
    return Offer(key(author), item, NOW)


def asked_for(one: Asking, offers: list[Offer], now: float) -> list[Offer]:
    """Asks for these, and hears that nobody could be reached."""
    assert one.ask(offers, now) == len(offers)
    for offer in offers:
        assert one.answered(offer.author, offer.item.rollout_id) == offer
        one.failed(offer, offer.author, FetchProblem.UNREACHABLE, now)
    return offers


def test_of_a_peer_that_is_away_one_offer_is_asked_for_at_a_time_after_rests() -> None:
    one, _ = asking()
    gone = [offer_of(1, number) for number in range(40)]
    there = [offer_of(2, number) for number in range(3)]
    assert one.opened(gone + there, NOW) == (gone + there, [])
    asked_for(one, gone[:16], NOW)
    probed_at, now = [], NOW
    while now < NOW + 200:
        now += 0.5
        new, away = one.opened([*one.wanted(), *gone[16:], *there], now)
        assert new == there
        if away:
            assert len(away) == 1
            probed_at.append(now - NOW)
            asked_for(one, away, now)
    assert probed_at == [2.0, 6.0, 14.0, 30.0, 62.0, 94.0, 126.0, 158.0, 190.0]
    assert one.ask(gone[16:], NOW + 500) == 1
    assert one.opened(gone[16:], NOW + 500) == ([], []), "its answer is waited for"
    one.note_held(key(1), b"")
    assert one.opened(gone[17:], now) == (gone[17:], [])


def test_who_is_away_is_asked_last_and_a_holder_of_its_offers_before() -> None:
    one, offer = asking()
    fail(one, offer, NOW)
    other = offer_of(1, 5)
    assert one.opened([other], NOW + LONG_S) == ([], [other])
    one.note_held(key(2), other.item.rollout_id[:4])
    assert one.opened([other], NOW + 0.5) == ([other], [])
    assert one.ask([other], NOW + 0.5) == 1
    (asked_now,) = one._in_flight.values()
    assert asked_now.peer == key(2)


def test_no_more_peers_are_remembered_as_away_than_authors() -> None:
    one, _ = asking()
    for number in range(MAX_AUTHORS + 5):
        author = number.to_bytes(32)
        asked_for(one, [Offer(author, Item(author, DIGEST, 1, 9), NOW)], NOW)
    assert len(one._away) == MAX_AUTHORS


def test_many_who_left_do_not_hold_up_who_stays(hub: Hub) -> None:
    """Four offers are asked for a round; those of twenty who left are four hundred."""
    reader = member(hub, 40, keep_announcements=100)
    for number in range(1, 21):
        author = member(hub, number)
        for start in range(0, 400, 20):
            author.publish(published(author, start=start))
        reader.collect()
        hub.cut(author.me.peer_id)
    for second in range(100):
        reader.collect(now=NOW + second)
        reader.request(4, now=NOW + second)
    assert reader.exchange.missed["unreachable"] < 20 * 10, "one at a time, after longer rests"
    living = member(hub, 30)
    living.publish(published(living), now=NOW + 100)
    reader.collect(now=NOW + 100)
    reader.request(4, now=NOW + 100)
    (arrival,) = reader.collect(now=NOW + 100)
    assert arrival.origin.author == living.me.public_key
