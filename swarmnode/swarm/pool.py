"""Peers' groups that were admitted and scored and wait to be trained on, `max_uses` times at most.

Bounded: the oldest leaves when it is full, when it is older than `max_age_s` by its author's clock,
or when it has waited for more than `max_wait_rounds` of this node's rounds.
"""

from collections import Counter, deque
from collections.abc import Collection, Sequence

from swarmnode.rollout import Group


class Pool:
    """A queue of peers' groups, oldest first."""

    def __init__(
        self, capacity: int, max_age_s: float, max_wait_rounds: int, max_uses: int = 1
    ) -> None:
        self._groups: deque[Group] = deque(maxlen=capacity)
        self._max_age_s = max_age_s
        self._max_wait_rounds = max_wait_rounds
        self._max_uses = max_uses
        # By rollout: an object that was dropped may share its place in memory with another.
        self._uses: Counter[tuple[bytes, bytes]] = Counter()

    def __len__(self) -> int:
        return len(self._groups)

    def add(self, group: Group) -> None:
        """Keeps `group`, which must come from a peer (`ValueError` otherwise)."""
        if group.origin is None:
            raise ValueError("only peers' groups are pooled")
        self._groups.append(group)

    def expire(self, now: float, round: int) -> int:
        """Drops what is too old to train on; returns how many."""
        fresh = [group for group in self._groups if self._is_fresh(group, now, round)]
        dropped = len(self._groups) - len(fresh)
        self._replace(fresh)
        return dropped

    def groups(self) -> tuple[Group, ...]:
        """What is there now, oldest first."""
        return tuple(self._groups)

    def take(self, chosen: Sequence[Group]) -> None:
        """Counts a use of the chosen groups; those used up leave."""
        self._uses.update(map(_rollout, chosen))
        gone = {id(group) for group in chosen if self._uses[_rollout(group)] >= self._max_uses}
        self._replace([group for group in self._groups if id(group) not in gone])

    def drop(self, authors: Collection[bytes]) -> int:
        """Drops the groups of these authors; returns how many."""
        kept = [g for g in self._groups if g.origin is None or g.origin.author not in authors]
        dropped = len(self._groups) - len(kept)
        self._replace(kept)
        return dropped

    def mean_age_s(self, now: float) -> float:
        """Mean age by the authors' clocks, in seconds; 0 when empty."""
        ages = [now - group.origin.created for group in self._groups if group.origin]
        return sum(ages) / len(ages) if ages else 0.0

    def _is_fresh(self, group: Group, now: float, round: int) -> bool:
        origin = group.origin
        assert origin is not None
        waited = round - origin.received_round
        return origin.created >= now - self._max_age_s and waited <= self._max_wait_rounds

    def _replace(self, groups: Sequence[Group]) -> None:
        self._groups.clear()
        self._groups.extend(groups)
        kept = set(map(_rollout, groups))
        self._uses = Counter({key: n for key, n in self._uses.items() if key in kept})


def _rollout(group: Group) -> tuple[bytes, bytes]:
    assert group.origin is not None  # `add` saw to it
    return group.origin.author, group.origin.rollout_id
