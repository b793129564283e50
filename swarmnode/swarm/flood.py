"""Which gossip is heard at all, before it costs anything: budgets of publishers, by the clock.

A publisher has a budget of its own as soon as it was heard once. Publishers never heard before
share one more, small enough that a flood of new keys fills neither the queue of events between two
rounds nor the place of those known. Who exceeds its own budget many times over is a flooder: no
mistake looks like that, and GossipSub vouches for the publisher. Bounded.
"""

from collections import Counter, OrderedDict

# Announcements of one publisher in a window of seconds. An honest node makes one a round.
_PER_PUBLISHER, _WINDOW_S = 30, 10.0
# Of all new publishers together: 256 nodes, a swarm without shards, are known after half a minute,
# and in a round of five minutes it is 3,000, where the queue of events holds 4,096.
_NEWCOMERS = 100
# In one window from one publisher; above it the flooder is cut off.
_FLOOD = 300
_MAX_KNOWN = 4096


class FloodGate:
    """Counts announcements by publisher. `now` is in seconds of any clock."""

    def __init__(self, newcomers: int = _NEWCOMERS) -> None:
        self._newcomers_allowed = newcomers
        self._known: OrderedDict[str, None] = OrderedDict()  # heard before, longest silent first
        self._counts: Counter[str] = Counter()  # of those known, in this window
        self._newcomers = 0
        self._began = float("-inf")

    def __len__(self) -> int:
        return len(self._known) + len(self._counts)

    def allows(self, publisher: str, now: float) -> bool:
        """Whether one more announcement of `publisher` is heard; counts it."""
        if now - self._began >= _WINDOW_S:
            self._began, self._newcomers = now, 0
            self._counts.clear()
        if publisher not in self._known:
            if self._newcomers >= self._newcomers_allowed:
                return False
            self._newcomers += 1
        self._known[publisher] = None
        self._known.move_to_end(publisher)
        while len(self._known) > _MAX_KNOWN:
            forgotten, _ = self._known.popitem(last=False)
            del self._counts[forgotten]
        self._counts[publisher] += 1
        return self._counts[publisher] <= _PER_PUBLISHER

    def is_flooder(self, publisher: str) -> bool:
        """Whether `publisher` sent so much in this window that it is to be cut off."""
        return self._counts[publisher] > _FLOOD
