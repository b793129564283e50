"""Exchanges over the memory transport with real seals: what reaches a peer, and what does not.

Each refusal stands beside an honest message that is taken, and each defence is switched off once,
to see that the attack would succeed without it.
"""

import itertools
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import offered
import pytest
from fakes import FakeTasks, own_group
from hypothesis import given
from hypothesis import strategies as st
from offered import announcement, item_of

from protocol import limits
from protocol.envelope import Sealed, open_frame, seal
from protocol.errors import Reason
from protocol.messages import Announcement, Item, Rollout
from protocol.names import question_seed
from swarmnode import identity
from swarmnode.config import SharingSettings, TrustSettings
from swarmnode.identity import Identity
from swarmnode.rollout import Question
from swarmnode.swarm.asking import MAX_ATTEMPTS, MAX_FETCH_S, REST_S
from swarmnode.swarm.conversion import Arrival
from swarmnode.swarm.exchange import MAX_REMEMBERED, Exchange
from swarmnode.swarm.memory import Hub, MemoryTransport
from swarmnode.swarm.publishing import Published

SWARM = bytes([7] * 32)
TASKS = FakeTasks()
DIGEST = TASKS.digest("add")
NOW = 1_000_000.0


def rebuild(digest: bytes, seed: int) -> Question:
    assert digest == DIGEST
    return TASKS.question("add", seed)


@dataclass
class Member:
    """A node's exchange, and what a dishonest node has besides: its key and its transport."""

    me: Identity
    transport: MemoryTransport
    exchange: Exchange

    def publish(self, *groups: Published, now: float = NOW) -> int:
        return self.exchange.publish(groups, round=1, now=now)

    def collect(self, now: float = NOW) -> list[Arrival]:
        return self.exchange.collect(round=3, now=now)

    def request(self, count: int = 1000, now: float = NOW) -> int:
        return self.exchange.request(count, random.Random(1), now)

    def take(self, now: float = NOW) -> list[Arrival]:
        """Hears, fetches everything and receives it."""
        arrivals = self.collect(now)
        self.request(now=now)
        return arrivals + self.collect(now)

    def seal(self, message: Announcement | Rollout) -> Sealed:
        return seal(message, self.me.seed, SWARM)

    def announce(self, *items: Item, created: float = NOW, round: int = 1) -> bytes:
        frame = self.seal(announcement(items, created, round)).frame
        self.transport.publish(frame)
        return frame

    def offer(self, rollout: Rollout, created: float = NOW, **lies: Any) -> Sealed:
        """Holds and announces one rollout, with `lies` told about it."""
        sealed = self.seal(rollout)
        self.transport.hold(sealed.id, sealed.frame)
        self.announce(item_of(sealed, rollout)._replace(**lies), created=created)
        return sealed


def rollout(number: int, created: float = NOW, task: bytes = DIGEST, text: str = "a") -> Rollout:
    return offered.rollout(number, [text, "b"], created, task)


def member(hub: Hub, number: int, max_events: int = 4096, **changes: Any) -> Member:
    me = identity.from_seed(bytes([number] * 32))
    transport = MemoryTransport(hub, me.peer_id, max_events=max_events)
    transport.open()
    options: dict[str, Any] = {
        "swarm_id": SWARM,
        "signing_key": me.seed,
        "public_key": me.public_key,
        "model_label": "tiny",
        "tasks": [DIGEST],
        "rebuild": rebuild,
        "trust": TrustSettings(),
    }
    settings = {name: changes.pop(name) for name in list(changes) if name not in options}
    exchange = Exchange(
        transport, SharingSettings(**{"max_age_s": 600.0, **settings}), **(options | changes)
    )
    return Member(me, transport, exchange)


@pytest.fixture
def hub() -> Hub:
    return Hub()


@pytest.fixture
def author(hub: Hub) -> Member:
    return member(hub, 1)


@pytest.fixture
def reader(hub: Hub) -> Member:
    return member(hub, 2)


def number_of(who: Member, *, held_out: bool, start: int = 0) -> int:
    """The first question number of this author that is held out, or is not."""
    for number in itertools.count(start):
        seed = question_seed(SWARM, who.me.public_key, DIGEST, number)
        if TASKS.question("add", seed).held_out is held_out:
            return number
    raise AssertionError


def published(
    who: Member, texts: Sequence[str] = ("right", "wrong"), start: int = 0, held_out: bool = False
) -> Published:
    number = number_of(who, held_out=held_out, start=start)
    question = rebuild(DIGEST, question_seed(SWARM, who.me.public_key, DIGEST, number))
    rewards = [float(text == "right") for text in texts]
    return Published(number, own_group(rewards, texts, question))


# --- what an honest rollout goes through ---


def test_a_published_group_arrives_as_it_was_with_the_question_rebuilt(
    author: Member, reader: Member
) -> None:
    mine = published(author)
    assert author.publish(mine) == 1
    assert reader.collect() == []
    assert reader.request() == 1
    (arrival,) = reader.collect()
    seed = question_seed(SWARM, author.me.public_key, DIGEST, mine.number)
    assert arrival.question == TASKS.question("add", seed) == mine.group.question
    group = arrival.scored([1.0, 0.0])
    assert [completion.text for completion in group.completions] == ["right", "wrong"]
    assert [completion.mean_logp for completion in group.completions] == [-0.5, -0.5]
    assert [completion.token_ids for completion in group.completions] == [None, None]
    assert group.rewards == (1.0, 0.0)
    assert group.policy_version == 4
    assert group.origin is not None
    assert group.origin.author == author.me.public_key
    assert (group.origin.created, group.origin.received_round) == (NOW, 3)


def test_lag_is_what_the_author_announced_since(author: Member, reader: Member) -> None:
    mine = published(author)
    author.publish(mine)
    reader.collect()
    reader.request()
    (arrival,) = reader.collect()
    group = arrival.scored([1.0, 0.0])
    assert reader.exchange.lag(group) == 0
    later = published(author, start=mine.number + 1)
    author.publish(replace(later, group=replace(later.group, policy_version=9)))
    reader.collect()
    assert reader.exchange.lag(group) == 5  # 9 − 4
    author.publish(replace(later, group=replace(later.group, policy_version=2)))
    reader.collect()
    assert reader.exchange.lag(group) == 5  # an older announcement changes nothing


def test_counts_what_was_offered_heard_and_received(author: Member, reader: Member) -> None:
    author.publish(published(author), published(author, start=50))
    assert len(reader.take()) == 2
    assert author.exchange.published == 2
    assert (reader.exchange.announced, reader.exchange.fetched) == (2, 2)
    assert reader.exchange.peers_heard == 1
    assert reader.exchange.in_flight == 0
    assert reader.exchange.refused == {}
    assert reader.exchange.missed == {}


def test_four_members_take_from_each_other_and_not_from_themselves(hub: Hub) -> None:
    members = [member(hub, number) for number in (1, 2, 3, 4)]
    for one in members:
        one.publish(published(one))
    for one in members:
        others = {other.me.public_key for other in members} - {one.me.public_key}
        assert {arrival.origin.author for arrival in one.take()} == others
        assert one.exchange.refused == {}


def test_two_authors_with_one_question_number_ask_different_questions(hub: Hub) -> None:
    members = [member(hub, number) for number in (1, 2, 3)]
    number = 4
    for one in members[:2]:
        question = rebuild(DIGEST, question_seed(SWARM, one.me.public_key, DIGEST, number))
        assert not question.held_out
        one.publish(Published(number, own_group([1, 0], question=question)))
    first, second = members[2].take()
    assert first.question != second.question


@pytest.mark.parametrize(("completions", "parts"), [(8, [8]), (9, [1, 8]), (20, [4, 8, 8])])
def test_a_large_group_travels_in_parts_and_loses_nothing(
    author: Member, reader: Member, completions: int, parts: list[int]
) -> None:
    texts = [f"answer {index}" for index in range(completions)]
    assert author.publish(published(author, texts)) == len(parts)
    arrivals = reader.take()
    assert sorted(len(arrival.completions) for arrival in arrivals) == parts
    arrived = [c.text for arrival in arrivals for c in arrival.completions]
    assert sorted(arrived) == sorted(texts)
    assert {arrival.question.seed for arrival in arrivals} == {arrivals[0].question.seed}


def test_equal_parts_of_a_group_are_one_rollout(author: Member, reader: Member) -> None:
    """Of a policy that answers alike sixteen times; an announcement may name an id once."""
    assert author.publish(published(author, ["right"] * 16)) == 1
    assert len(reader.take()) == 1


def test_offers_what_one_announcement_holds(author: Member, reader: Member) -> None:
    groups = [published(author, [f"text {n}"]) for n in range(limits.MAX_ITEMS + 6)]
    assert author.publish(*groups) == limits.MAX_ITEMS == author.exchange.published
    assert len(reader.take()) == limits.MAX_ITEMS


def test_without_groups_nothing_is_said(author: Member, reader: Member) -> None:
    assert author.publish() == 0
    assert reader.transport.poll() == []


def test_asks_for_no_more_than_wanted(author: Member, reader: Member) -> None:
    author.publish(*(published(author, [f"text {n}"]) for n in range(20)))
    reader.collect()
    assert reader.request(3) == 3
    assert reader.exchange.in_flight == 3
    assert len(reader.collect()) == 3


def test_nothing_is_asked_for_twice(author: Member, reader: Member) -> None:
    author.publish(published(author))
    reader.collect()
    assert reader.request() == 1
    assert reader.request() == 0  # in flight
    assert len(reader.collect()) == 1
    assert reader.request() == 0  # taken
    author.announce(*(item for item in items_of(author)), round=2)
    assert reader.take() == []  # nor when it is announced again
    assert reader.exchange.fetched == 1


def items_of(who: Member) -> list[Item]:
    """Everything this member holds, as items."""
    found = []
    for id in who.transport._outbox.ids():
        frame = who.transport._outbox.get(id)
        assert frame is not None
        message = open_frame(frame, SWARM).message
        assert type(message) is Rollout
        found.append(Item(id, message.task_digest, message.seed, len(frame)))
    return found


def test_only_the_newest_announcements_of_an_author_are_drawn_from(
    author: Member, reader: Member
) -> None:
    for number in range(5):
        author.publish(published(author, [f"round {number}"]))
    arrived = [arrival.completions[0].text for arrival in reader.take()]
    assert sorted(arrived) == ["round 3", "round 4"]  # keep_announcements is 2
    assert reader.exchange.announced == 5


def test_a_late_offer_is_not_asked_for(author: Member, reader: Member) -> None:
    author.publish(published(author))
    reader.collect()
    assert reader.request(now=NOW + 601) == 0
    assert reader.exchange.peers_heard == 0
    assert reader.exchange.refused == {}


# --- what goes wrong on the way ---


def test_what_the_peer_does_not_hold_is_counted_and_not_asked_for_again(
    author: Member, reader: Member
) -> None:
    author.announce(Item(bytes([5] * 32), DIGEST, 4, 300))
    assert reader.take() == []
    assert reader.exchange.missed == {"absent": 1}
    assert reader.request() == 0


def test_an_unreachable_peer_is_asked_again_when_it_is_back(
    hub: Hub, author: Member, reader: Member
) -> None:
    author.publish(published(author))
    reader.collect()
    hub.cut(author.me.peer_id)
    reader.request()
    assert reader.collect() == []
    assert reader.exchange.missed == {"unreachable": 1}
    hub.join_again(author.me.peer_id)
    assert len(reader.take(NOW + REST_S)) == 1


def test_an_offer_is_asked_for_a_few_times_only_and_then_for_ever_dropped(
    hub: Hub, author: Member, reader: Member
) -> None:
    author.publish(published(author))
    reader.collect()
    hub.cut(author.me.peer_id)
    now = NOW
    for _ in range(MAX_ATTEMPTS):
        assert reader.request(now=now) == 1
        assert reader.collect(now) == []
        assert reader.request(now=now) == 0  # the author rests
        now += 60
    assert reader.request(now=now) == 0
    assert reader.exchange.missed == {"unreachable": MAX_ATTEMPTS}
    hub.join_again(author.me.peer_id)
    author.announce(*items_of(author), round=2)
    assert reader.take() == []  # announced again it is the same offer
    author.publish(published(author, ["another"]))
    assert len(reader.take()) == 1  # the author is not blamed for good


def test_unanswered_requests_count_as_attempts(hub: Hub) -> None:
    author, reader = member(hub, 1), member(hub, 2)
    author.publish(published(author))
    reader.collect()
    now = NOW
    for _ in range(MAX_ATTEMPTS):
        assert reader.request(now=now) == 1
        reader.transport.poll()  # the answer is lost
        now += MAX_FETCH_S + 1
    assert reader.request(now=now) == 0
    assert reader.exchange.missed == {"no_answer": MAX_ATTEMPTS}


def test_attempts_are_forgotten_with_their_offers(hub: Hub, author: Member, reader: Member) -> None:
    author.publish(published(author))
    reader.collect()
    hub.cut(author.me.peer_id)
    reader.request()
    reader.collect()
    assert reader.exchange._asking.remembered == 1
    reader.request(now=NOW + 601)  # the offer is too old by now
    assert reader.exchange._asking.remembered == 0


def test_a_fetch_whose_answer_was_lost_is_given_up_and_tried_again(hub: Hub) -> None:
    author, reader = member(hub, 1), member(hub, 2, max_events=1)
    author.publish(published(author, ["first"]), published(author, ["second"]))
    reader.collect()
    assert reader.request() == 2
    assert len(reader.collect()) == 1  # the queue holds one event
    assert reader.request(now=NOW + MAX_FETCH_S) == 0
    assert reader.exchange.in_flight == 1
    assert reader.request(now=NOW + MAX_FETCH_S + 1) == 1
    assert reader.exchange.missed == {"no_answer": 1}
    assert len(reader.collect()) == 1


def test_an_answer_that_comes_after_all_is_taken_once(author: Member, reader: Member) -> None:
    author.publish(published(author))
    reader.collect()
    reader.request()
    reader.request(now=NOW + MAX_FETCH_S + 1)  # given up and asked again; then both answers come
    assert len(reader.collect(now=NOW + MAX_FETCH_S + 1)) == 1
    assert reader.exchange.fetched == 1
    assert reader.exchange.refused == {}


def test_a_failure_that_comes_after_giving_up_is_counted_once(
    hub: Hub, author: Member, reader: Member
) -> None:
    author.publish(published(author))
    reader.collect()
    hub.cut(author.me.peer_id)
    reader.request()
    reader.request(now=NOW + 601)  # given up; the offer is too old to be asked for again
    reader.collect()
    assert reader.exchange.missed == {"no_answer": 1}


# --- the state of a resumed node ---


def test_a_resumed_node_takes_nothing_twice_and_counts_on(hub: Hub, author: Member) -> None:
    before = member(hub, 2)
    author.publish(published(author))
    author.announce(Item(bytes([5] * 32), b"none", 4, 300))
    assert len(before.take()) == 1
    before.publish(published(before))
    state = json.loads(json.dumps(before.exchange.state()))
    after, forgetful = member(hub, 2), member(hub, 3)
    after.exchange.load_state(state)
    assert after.exchange.state() == before.exchange.state()
    author.announce(*items_of(author), round=2)
    assert after.take() == []
    assert after.exchange.refused == {Reason.UNKNOWN_TASK: 1}
    assert (after.exchange.published, after.exchange.announced, after.exchange.fetched) == (1, 1, 1)
    assert len(forgetful.take()) == 1  # without that state it is taken


# --- refusals ---


def stranger_repeats(author: Member, stranger: Member, honest: Sealed) -> None:
    stranger.transport.publish(author.announce())


def gossips_a_rollout(author: Member, stranger: Member, honest: Sealed) -> None:
    stranger.transport.publish(stranger.seal(rollout(4)).frame)


def repeats_itself(author: Member, stranger: Member, honest: Sealed) -> None:
    stranger.transport.publish(stranger.announce())


def tampers_with_an_announcement(author: Member, stranger: Member, honest: Sealed) -> None:
    frame = bytearray(stranger.seal(announcement([], NOW, 9)).frame)
    frame[-1] ^= 1
    stranger.transport.publish(bytes(frame))


def announces_for_another_swarm(author: Member, stranger: Member, honest: Sealed) -> None:
    sealed = seal(announcement([], NOW, 9), stranger.me.seed, bytes([8] * 32))
    stranger.transport.publish(sealed.frame)


def serves_another_rollout(author: Member, stranger: Member, honest: Sealed) -> None:
    sealed = stranger.offer(rollout(4))
    stranger.transport.hold(sealed.id, stranger.seal(rollout(4, text="other")).frame)


def serves_anothers_rollout(author: Member, stranger: Member, honest: Sealed) -> None:
    stranger.transport.hold(honest.id, honest.frame)
    stranger.announce(Item(honest.id, DIGEST, 4, len(honest.frame)))


def serves_an_announcement(author: Member, stranger: Member, honest: Sealed) -> None:
    sealed = stranger.seal(announcement([], NOW, 9))
    stranger.transport.hold(sealed.id, sealed.frame)
    stranger.announce(Item(sealed.id, DIGEST, 4, len(sealed.frame)))


def serves_a_tampered_frame(author: Member, stranger: Member, honest: Sealed) -> None:
    sealed = stranger.offer(rollout(4))
    frame = bytearray(sealed.frame)
    frame[50] ^= 1  # in the signature
    stranger.transport.hold(sealed.id, bytes(frame))


Attack = Callable[[Member, Member, Sealed], object]
ATTACKS: dict[str, tuple[Attack, Reason]] = {
    "announced-from-the-future": (
        lambda a, s, h: s.offer(rollout(4), created=NOW + 121),
        Reason.FROM_FUTURE,
    ),
    "announced-long-ago": (lambda a, s, h: s.offer(rollout(4), created=NOW - 601), Reason.TOO_OLD),
    "rollout-from-the-future": (lambda a, s, h: s.offer(rollout(4, NOW + 121)), Reason.FROM_FUTURE),
    "old-rollout-announced-anew": (lambda a, s, h: s.offer(rollout(4, NOW - 601)), Reason.TOO_OLD),
    "unknown-task": (lambda a, s, h: s.offer(rollout(4, task=b"none")), Reason.UNKNOWN_TASK),
    "held-out-question": (
        lambda a, s, h: s.offer(rollout(number_of(s, held_out=True))),
        Reason.HELD_OUT,
    ),
    "other-task-announced": (
        lambda a, s, h: s.offer(rollout(4, task=b"none"), task_digest=DIGEST),
        Reason.NOT_ANNOUNCED,
    ),
    "other-seed-announced": (lambda a, s, h: s.offer(rollout(4), seed=5), Reason.NOT_ANNOUNCED),
    "other-size-announced": (
        lambda a, s, h: s.offer(rollout(4), frame_bytes=1),
        Reason.NOT_ANNOUNCED,
    ),
    "serves-another-rollout": (serves_another_rollout, Reason.NOT_ANNOUNCED),
    "serves-anothers-rollout": (serves_anothers_rollout, Reason.NOT_ANNOUNCED),
    "serves-an-announcement": (serves_an_announcement, Reason.NOT_ANNOUNCED),
    "serves-a-tampered-frame": (serves_a_tampered_frame, Reason.BAD_SIGNATURE),
    "stranger-repeats": (stranger_repeats, Reason.NOT_ANNOUNCED),
    "gossips-a-rollout": (gossips_a_rollout, Reason.NOT_ANNOUNCED),
    "repeats-itself": (repeats_itself, Reason.DUPLICATE),
    "tampered-announcement": (tampers_with_an_announcement, Reason.BAD_SIGNATURE),
    "another-swarm": (announces_for_another_swarm, Reason.BAD_SIGNATURE),
    "no-frame": (lambda a, s, h: s.transport.publish(b"\x01"), Reason.MALFORMED),
    "another-version": (lambda a, s, h: s.transport.publish(b"\x63" * 200), Reason.WRONG_VERSION),
    "another-kind": (lambda a, s, h: s.transport.publish(b"\x01\x63" * 99), Reason.UNKNOWN_KIND),
}


@pytest.mark.parametrize(("attack", "reason"), ATTACKS.values(), ids=ATTACKS.keys())
def test_refuses_the_attack_under_its_name_and_takes_what_is_honest(
    hub: Hub, author: Member, reader: Member, attack: Attack, reason: Reason
) -> None:
    stranger = member(hub, 3)
    honest = author.offer(rollout(number_of(author, held_out=False)))
    attack(author, stranger, honest)
    arrivals = reader.take()
    assert [arrival.origin.author for arrival in arrivals] == [author.me.public_key]
    assert reader.exchange.refused == {reason: 1}


def test_own_announcement_come_back_is_told_apart(author: Member, reader: Member) -> None:
    frame = author.announce()
    reader.transport.publish(frame)
    author.collect()
    assert author.exchange.refused == {Reason.OWN: 1}


def test_the_caller_counts_what_its_scorer_died_on(author: Member, reader: Member) -> None:
    author.offer(rollout(number_of(author, held_out=False)))
    (arrival,) = reader.take()
    reader.exchange.refuse_unscorable(arrival, NOW)
    assert reader.exchange.refused == {Reason.UNSCORABLE: 1}


def test_a_held_out_question_is_not_published(author: Member, reader: Member) -> None:
    with pytest.raises(ValueError, match="held-out"):
        author.publish(published(author), published(author, held_out=True))
    assert items_of(author) == []
    assert reader.transport.poll() == []


def test_announcing_anothers_rollout_does_not_keep_it_from_being_fetched(
    hub: Hub, author: Member, reader: Member
) -> None:
    """The stranger is asked first, in vain; ids alone would count that against the author."""
    stranger = member(hub, 3)
    honest = author.seal(rollout(number_of(author, held_out=False)))
    item = Item(honest.id, DIGEST, number_of(author, held_out=False), len(honest.frame))
    author.transport.hold(honest.id, honest.frame)
    stranger.announce(item)
    assert reader.take() == []
    assert reader.exchange.missed == {"absent": 1}
    author.announce(item)
    assert len(reader.take()) == 1


def test_announcing_one_rollout_twice_is_one_offer(author: Member, reader: Member) -> None:
    """A fetch may name an id once: drawn twice, this raised in the reader's round."""
    sealed = author.seal(rollout(4))
    author.transport.hold(sealed.id, sealed.frame)
    for round in (1, 2):
        author.announce(item_of(sealed, rollout(4)), round=round)
    reader.collect()
    assert reader.request() == 1
    assert len(reader.collect()) == 1


# --- the same attacks with one defence off succeed ---


def test_without_the_held_out_rule_the_answer_to_an_evaluation_would_be_trained_on(
    hub: Hub, author: Member
) -> None:
    def lenient(digest: bytes, seed: int) -> Question:
        return TASKS.question("add", seed + 1)

    open_minded = member(hub, 2, rebuild=lenient)
    author.offer(rollout(number_of(author, held_out=True)))
    assert len(open_minded.take()) == 1


def test_without_the_age_limit_an_old_rollout_would_be_trained_on(hub: Hub, author: Member) -> None:
    patient = member(hub, 2, max_age_s=1e6)
    author.offer(rollout(4, NOW - 601))
    assert len(patient.take()) == 1


def test_without_the_task_rule_another_task_would_be_asked_for(hub: Hub, author: Member) -> None:
    open_minded = member(hub, 2, tasks=[DIGEST, b"none"], rebuild=lambda d, s: rebuild(DIGEST, s))
    author.offer(rollout(4, task=b"none"))
    assert len(open_minded.take()) == 1


def test_what_a_stranger_repeats_is_signed_and_only_its_publisher_is_wrong(
    author: Member, reader: Member
) -> None:
    frame = author.announce()
    assert open_frame(frame, SWARM).author == author.me.public_key


# --- bounds ---


def test_a_flood_of_announcements_leaves_only_the_newest(hub: Hub, author: Member) -> None:
    reader = member(hub, 2, trust=TrustSettings(quotas=False))
    for round in range(20):
        items = [
            Item(bytes([round, n]) + bytes(30), DIGEST, n, 300) for n in range(limits.MAX_ITEMS)
        ]
        author.announce(*items, round=round)
    reader.collect()
    assert reader.exchange.announced == 20 * limits.MAX_ITEMS
    assert reader.request(10_000) == 2 * limits.MAX_ITEMS
    assert reader.request(10_000) == 0


def test_what_is_remembered_is_forgotten_when_it_could_not_be_admitted_any_more(
    author: Member, reader: Member
) -> None:
    author.offer(rollout(4))
    assert len(reader.take()) == 1
    assert len(reader.exchange.state()["taken"]) == 1
    (old,) = items_of(author)
    later = NOW + 600 + 120 + 1  # max_age_s + MAX_AHEAD_S
    author.offer(rollout(4, later), created=later)
    assert len(reader.take(later)) == 1
    assert len(reader.exchange.state()["taken"]) == 1  # the first is forgotten
    author.announce(old, created=later, round=2)
    assert reader.take(later) == []
    assert reader.exchange.refused == {Reason.TOO_OLD: 1}
    assert MAX_REMEMBERED / 720 > 90  # a second, as the comment at the constant says


# --- any bytes ---


@given(frame=st.binary(min_size=1, max_size=limits.MAX_ANNOUNCEMENT_BYTES))
def test_any_bytes_are_refused_and_never_raise(frame: bytes) -> None:
    hub = Hub()
    author, reader = member(hub, 1), member(hub, 2)
    author.transport.publish(frame)
    assert reader.take() == []
    assert reader.exchange.refused.total() == 1


@given(at=st.integers(0, 400), bit=st.integers(0, 7), of_rollout=st.booleans())
def test_no_flipped_bit_raises_or_arrives(at: int, bit: int, of_rollout: bool) -> None:
    hub = Hub()
    author, reader = member(hub, 1), member(hub, 2)
    honest = rollout(number_of(author, held_out=False))
    sealed = author.seal(honest)
    told = author.seal(announcement([item_of(sealed, honest)], NOW, 1)).frame
    frame = bytearray(sealed.frame if of_rollout else told)
    frame[at % len(frame)] ^= 1 << bit
    author.transport.hold(sealed.id, bytes(frame) if of_rollout else sealed.frame)
    author.transport.publish(told if of_rollout else bytes(frame))
    assert reader.take() == []
    assert reader.exchange.refused.total() == 1
