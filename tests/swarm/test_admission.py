"""Each rule at its boundary: what is just taken, what is just refused, and under which name."""

import dataclasses

import offered
import pytest

from protocol.envelope import Opened, open_frame, seal
from protocol.errors import Reason
from protocol.messages import Announcement, Item, Rollout
from protocol.names import WHOLE, Shard, shard_of
from swarmnode import identity
from swarmnode.swarm.admission import (
    MAX_AHEAD_S,
    Offer,
    refuse_announcement,
    refuse_item,
    refuse_rollout,
    refuse_unread,
)

SWARM = bytes([7] * 32)
AUTHOR = identity.from_seed(bytes([1] * 32))
ME = identity.from_seed(bytes([2] * 32))
NOW, MAX_AGE_S = 1_000_000.0, 600.0


def rollout(created: float = NOW, seed: int = 5, task: bytes = b"add1") -> Rollout:
    return offered.rollout(seed, ["a"], created, task)


def announcement(created: float = NOW) -> Announcement:
    return offered.announcement([], created)


def opened(message: Announcement | Rollout) -> tuple[Opened, int]:
    frame = seal(message, AUTHOR.seed, SWARM).frame
    return open_frame(frame, SWARM), len(frame)


def refused(message: Announcement | Rollout, publisher: str = AUTHOR.peer_id) -> Reason | None:
    return refuse_announcement(opened(message)[0], publisher, WHOLE, ME.public_key, NOW, MAX_AGE_S)


def test_an_announcement_belongs_on_its_authors_shard() -> None:
    mine, _ = opened(announcement())
    own = shard_of(AUTHOR.public_key, 8)
    other = Shard(8, (own.number + 1) % 8)
    refused_in = [
        refuse_announcement(mine, AUTHOR.peer_id, shard, ME.public_key, NOW, MAX_AGE_S)
        for shard in (WHOLE, own, other)
    ]
    assert refused_in == [None, None, Reason.WRONG_SHARD]


@pytest.mark.parametrize(
    ("created", "reason"),
    [
        (NOW, None),
        (NOW + MAX_AHEAD_S, None),
        (NOW + MAX_AHEAD_S + 1, Reason.FROM_FUTURE),
        (NOW - MAX_AGE_S, None),
        (NOW - MAX_AGE_S - 1, Reason.TOO_OLD),
    ],
)
def test_clocks_may_differ_this_far(created: float, reason: Reason | None) -> None:
    assert refused(announcement(created)) is reason
    taken, size = opened(rollout(created))
    offer = Offer(AUTHOR.public_key, Item(taken.id, b"add1", 5, size), created)
    assert refuse_rollout(taken, size, offer, NOW, MAX_AGE_S) is reason


def test_an_announcement_is_taken_from_its_author_only() -> None:
    assert refused(announcement()) is None
    assert refused(announcement(), ME.peer_id) is Reason.NOT_ANNOUNCED
    assert refused(announcement(), "") is Reason.NOT_ANNOUNCED


def test_a_gossiped_rollout_is_no_announcement() -> None:
    assert refused(rollout()) is Reason.NOT_ANNOUNCED


def test_own_echo_is_told_apart_whoever_sends_it() -> None:
    mine = opened(announcement())[0]
    for publisher in (AUTHOR.peer_id, ME.peer_id):
        reason = refuse_announcement(mine, publisher, WHOLE, AUTHOR.public_key, NOW, MAX_AGE_S)
        assert reason is Reason.OWN


def test_only_tasks_of_the_swarm_are_wanted() -> None:
    item = Item(bytes(32), b"add1", 5, 300)
    assert refuse_item(item, {b"add1", b"mul1"}) is None
    assert refuse_item(item, {b"mul1"}) is Reason.UNKNOWN_TASK


def offer_of(taken: Opened, size: int) -> Offer:
    return Offer(AUTHOR.public_key, Item(taken.id, b"add1", 5, size), NOW)


def test_takes_the_rollout_that_was_announced() -> None:
    taken, size = opened(rollout())
    assert refuse_rollout(taken, size, offer_of(taken, size), NOW, MAX_AGE_S) is None


@pytest.mark.parametrize(
    "difference", ["rollout_id", "task_digest", "seed", "frame_bytes", "author", "kind"]
)
def test_refuses_what_is_not_as_announced(difference: str) -> None:
    taken, size = opened(rollout())
    offer = offer_of(taken, size)
    lies = {"rollout_id": bytes(32), "task_digest": b"mul1", "seed": 6, "frame_bytes": size + 1}
    if difference in lies:
        offer = dataclasses.replace(
            offer, item=offer.item._replace(**{difference: lies[difference]})
        )
    elif difference == "author":
        offer = dataclasses.replace(offer, author=ME.public_key)
    else:
        taken, size = opened(announcement())
        offer = offer_of(taken, size)
    assert refuse_rollout(taken, size, offer, NOW, MAX_AGE_S) is Reason.NOT_ANNOUNCED


def test_offers_of_one_rollout_by_two_authors_are_two() -> None:
    item = Item(bytes(32), b"add1", 5, 300)
    keys = {Offer(who.public_key, item, NOW).key for who in (AUTHOR, ME)}
    assert len(keys) == 2
    assert Offer(ME.public_key, item, NOW + 1).key in keys


ANNOUNCED = seal(announcement(), AUTHOR.seed, SWARM).frame
STRANGER = identity.from_seed(bytes([9] * 32))
OWN_KEY = ME.public_key


@pytest.mark.parametrize(
    ("frame", "publisher", "found"),
    [
        (ANNOUNCED, AUTHOR.peer_id, AUTHOR.public_key),
        (ANNOUNCED, STRANGER.peer_id, Reason.NOT_ANNOUNCED),
        (ANNOUNCED, "QmNoEd25519Key", Reason.NOT_ANNOUNCED),
        (bytes(3016), AUTHOR.peer_id, AUTHOR.public_key),
        (bytes(3017), AUTHOR.peer_id, Reason.TOO_LARGE),
        # What is not of this version, or no announcement, is refused for that, later.
        (b"\x02" + ANNOUNCED[1:], STRANGER.peer_id, STRANGER.public_key),
        (b"\x01\x01" + ANNOUNCED[2:], STRANGER.peer_id, STRANGER.public_key),
        (ANNOUNCED[:33], STRANGER.peer_id, STRANGER.public_key),
        (b"", STRANGER.peer_id, STRANGER.public_key),
        # Ours, repeated by another: that is told apart after the signature.
        (ANNOUNCED[:2] + OWN_KEY + ANNOUNCED[34:], STRANGER.peer_id, STRANGER.public_key),
    ],
)
def test_the_header_names_the_publisher(
    frame: bytes, publisher: str, found: bytes | Reason
) -> None:
    assert refuse_unread(frame, publisher, OWN_KEY) == found
