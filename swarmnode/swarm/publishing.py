"""What this node offers: its own groups, sealed, held and announced, and others' rollouts that it
took and serves on."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from protocol import limits
from protocol.envelope import Sealed
from protocol.messages import Announcement, Item, Rollout
from protocol.names import WHOLE, shard_of
from swarmnode.rollout import Group, Origin
from swarmnode.swarm.conversion import rollouts_of
from swarmnode.swarm.sharding import Sharding
from swarmnode.swarm.transport import Transport

# Rollouts taken that this node may say it holds: those of the last rounds.
_KEPT = 4 * limits.MAX_HELD


@dataclass(frozen=True, slots=True)
class Published:
    """An own group and the question number its question was drawn by."""

    number: int
    group: Group


class Publisher:
    """Announces once a round, where `sharding` says; `seal` signs for this node."""

    def __init__(
        self,
        transport: Transport,
        sharding: Sharding,
        seal: Callable[[Announcement | Rollout], Sealed],
        model_label: str,
        max_age_s: float,
    ) -> None:
        self._transport = transport
        self._sharding = sharding
        self._seal = seal
        self._model_label = model_label
        self._max_age_s = max_age_s
        self._kept: deque[Origin] = deque(maxlen=_KEPT)  # of rollouts held for their authors

    def __len__(self) -> int:
        """Rollouts of others that may be announced as held."""
        return len(self._kept)

    def publish(self, groups: Sequence[Published], *, round: int, now: float) -> int:
        """Holds the groups for peers and announces them; returns how many rollouts that made.

        A group above the protocol's completions becomes several rollouts of one question; of all
        rollouts as many are offered as one announcement holds. Without any, nothing is said.
        Questions of the held-out split are a bug of the caller (`ValueError`).
        """
        if any(published.group.question.held_out for published in groups):
            raise ValueError("a held-out question must not be published")
        rollouts = [
            rollout
            for published in groups
            for rollout in rollouts_of(published.group, published.number, self._model_label, now)
        ]
        # By id: parts of one group can be equal to the letter, and are then one rollout.
        held = {item.rollout_id: item for item in map(self._hold, rollouts[: limits.MAX_ITEMS])}
        if not held:
            return 0
        version = groups[-1].group.policy_version
        if self._sharding.owes_beacon(now):
            self._transport.publish(self._announcement([], round, version, now), WHOLE)
        frame = self._announcement(list(held.values()), round, version, now)
        self._transport.publish(frame, self._sharding.own)  # last: the network repeats the newest
        return len(held)

    def serve_on(self, origin: Origin, frame: bytes) -> None:
        """Holds a rollout of another, as it came, and says so in the next announcements."""
        self._transport.hold(origin.rollout_id, frame)
        self._kept.append(origin)

    def _hold(self, rollout: Rollout) -> Item:
        sealed = self._seal(rollout)
        self._transport.hold(sealed.id, sealed.frame)
        return Item(sealed.id, rollout.task_digest, rollout.seed, len(sealed.frame))

    def _announcement(self, items: Sequence[Item], round: int, version: int, now: float) -> bytes:
        announcement = Announcement.build(
            round=round,
            created=now,
            policy_version=version,
            model_label=self._model_label,
            items=items,
            held=self._held_ids(now) if items else (),
        )
        return self._seal(announcement).frame

    def _held_ids(self, now: float) -> list[bytes]:
        """The newest rollouts of others that this node serves and that those who hear its
        announcement may want: of authors that announce on the same topic."""
        own, oldest = self._sharding.own, now - self._max_age_s
        ids = [
            origin.rollout_id
            for origin in reversed(self._kept)
            if origin.created >= oldest and shard_of(origin.author, own.of) == own
        ]
        return ids[: limits.MAX_HELD]
