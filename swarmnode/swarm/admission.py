"""Whether what a peer sent is taken, and if not, under which name it is refused.

Pure rules, cheapest first; the caller counts. Bytes that do not parse never come here: `protocol`
refuses them (too_large, wrong_version, unknown_kind, bad_compression, bad_signature, malformed,
not_canonical, out_of_bounds). The order for the rest:

| step | rule | reason |
|---|---|---|
| announcement | it has more bytes than an announcement can have | `too_large` |
| announcement | its header names another author than its publisher | `not_announced` |
| announcement | the very same bytes were read before | `duplicate` |
| announcement | its author is avoided (`standing.py`) | `avoided` |
| announcement | its author, network or newcomers are over budget (`quota.py`) | `over_quota` |
| bytes | signature, decoding, limits: `protocol` | see SPEC.md section 9 |
| announcement | it is this node's own, echoed | `own` |
| announcement | its publisher is not its author, or it is a rollout | `not_announced` |
| announcement | it came on the topic of a shard that is not its author's | `wrong_shard` |
| announcement, rollout | its clock is ahead of ours by more than `MAX_AHEAD_S` | `from_future` |
| announcement, rollout | it is older than `max_age_s` | `too_old` |
| announcement | it was heard before (`exchange` remembers ids) | `duplicate` |
| announcement | it offers more than its author's budget (`quota.py`) | `over_quota` |
| offer | its task is none of this swarm's | `unknown_task` |
| offer | its number is far from its author's others (`numbers.py`) | `wrong_number` |
| offer | its number was announced before, at another time (`numbers.py`) | `duplicate` |
| rollout | its id, author, task, seed or size is not as announced | `not_announced` |
| question | rebuilt, it belongs to the held-out split | `held_out` |
| question | its texts were written before for another, or by another (`copies.py`) | `copied` |
| scoring | the scorer died or hung on it | `unscorable` |
"""

from collections.abc import Container
from dataclasses import dataclass, field

from protocol.envelope import AUTHOR, Opened
from protocol.errors import Reason
from protocol.limits import MAX_ANNOUNCEMENT_BYTES, PROTOCOL_VERSION, PUBLIC_KEY_BYTES
from protocol.messages import Announcement, Item, Kind, Rollout
from protocol.names import Shard, peer_id, public_key_of, shard_of

# Seconds by which an honest clock may be ahead: laptops without NTP drift by about a minute.
MAX_AHEAD_S = 120.0
# What an announcement of this version begins with; others are refused for that.
_HEADER = bytes((PROTOCOL_VERSION, Kind.ANNOUNCEMENT))


@dataclass(frozen=True, slots=True)
class Offer:
    """One rollout that `author` announced and that this node may fetch.

    `key` names the rollout and who offers it. By its id alone, whoever announced another's rollout
    would settle whether that is fetched from its author.
    """

    author: bytes
    item: Item
    created: float
    key: bytes = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", self.author + self.item.rollout_id)


def refuse_unread(frame: bytes, publisher: str, me: bytes) -> bytes | Reason:
    """Who published an announcement, as a key, or why it is refused by its size and header.

    GossipSub vouches for the publisher. One frame of ours that another publishes passes: it is
    counted as `own` later."""
    if len(frame) > MAX_ANNOUNCEMENT_BYTES:
        return Reason.TOO_LARGE
    try:
        key = public_key_of(publisher)
    except ValueError:
        return Reason.NOT_ANNOUNCED  # no author has such a key
    claimed = frame[AUTHOR]
    is_another = len(claimed) == PUBLIC_KEY_BYTES and claimed not in (key, me)
    return Reason.NOT_ANNOUNCED if is_another and frame[:2] == _HEADER else key


def refuse_announcement(
    opened: Opened, publisher: str, shard: Shard, me: bytes, now: float, max_age_s: float
) -> Reason | None:
    """Why what peer id `publisher` gossiped on the topic of `shard`, opened, is refused as an
    announcement, or None."""
    if opened.author == me:
        return Reason.OWN
    announcement = opened.message
    if type(announcement) is not Announcement or publisher != peer_id(opened.author):
        return Reason.NOT_ANNOUNCED
    if shard_of(opened.author, shard.of) != shard:
        return Reason.WRONG_SHARD
    return _refuse_age(announcement.created, now, max_age_s)


def offers_of(opened: Opened) -> tuple[Offer, ...]:
    """What an announcement offers, in its order."""
    announcement = opened.message
    assert type(announcement) is Announcement
    created = float(announcement.created)
    return tuple(Offer(opened.author, item, created) for item in announcement.items)


def refuse_item(item: Item, tasks: Container[bytes]) -> Reason | None:
    """Why one offered rollout is refused, or None. `tasks` are the swarm's task digests."""
    return None if item.task_digest in tasks else Reason.UNKNOWN_TASK


def refuse_rollout(
    opened: Opened, frame_bytes: int, offer: Offer, now: float, max_age_s: float
) -> Reason | None:
    """Why a fetched frame, opened, is refused for the `offer` it was fetched for, or None."""
    rollout = opened.message
    if type(rollout) is not Rollout or not _as_announced(opened, rollout, frame_bytes, offer):
        return Reason.NOT_ANNOUNCED
    return _refuse_age(rollout.created, now, max_age_s)


def _as_announced(opened: Opened, rollout: Rollout, frame_bytes: int, offer: Offer) -> bool:
    item = offer.item
    return (
        opened.id == item.rollout_id
        and opened.author == offer.author
        and rollout.task_digest == item.task_digest
        and rollout.seed == item.seed
        and frame_bytes == item.frame_bytes
    )


def _refuse_age(created: float, now: float, max_age_s: float) -> Reason | None:
    if created > now + MAX_AHEAD_S:
        return Reason.FROM_FUTURE
    if created < now - max_age_s:
        return Reason.TOO_OLD
    return None
