"""What one link, author, network and all newcomers together may use of this node, and how what is
taken is shared out among them.

Budgets count announcements before their signature is checked, and what they offer after. GossipSub
tells who published a message, not who passed it on; a publisher is the author or refused, so the
link's budget is the publisher's. Established authors have budgets of their own; all others share
one more, for keys cost nothing: a flood of new keys takes the newcomers' place and nobody else's.

Shares: a draw first chooses a network, then an author in it, then one of the author's rollouts. A
network counts as `authors_per_network` authors at most, and newcomers get `newcomer_share` of each
draw as soon as anybody is established. So neither many rollouts, nor many keys, nor many keys on
few networks make a larger share. Pure: `now` (seconds) and `rng` are the caller's.
"""

import random
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

from swarmnode.config import TrustSettings
from swarmnode.swarm.standing import Standing

T = TypeVar("T")

# Announcements a second and at once. An honest node makes one a round; the fastest rounds are those
# of the demonstration model, three a second. 1,000 nodes of a swarm announce 33 times a second.
_LINK_RATE, _LINK_BURST = 3.0, 60.0
_NETWORK_RATE, _NETWORK_BURST = 12.0, 240.0
_NEWCOMERS_RATE, _NEWCOMERS_BURST = 60.0, 1200.0
# Rollouts offered, of one author: 16 a round and more are not published.
_OFFERS_RATE, _OFFERS_BURST = 64.0, 1024.0


class Buckets:
    """Token buckets by key, the longest unused forgotten. What came in the time since the last look
    may come at once: a node looks once a round, however long that is."""

    def __init__(self, rate: float, burst: float, max_keys: int) -> None:
        self._rate = rate
        self._burst = burst
        self._max_keys = max_keys
        self._levels: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._levels)

    def allows(self, key: Hashable, now: float, count: float = 1.0) -> bool:
        """Whether `key` may have `count` now; takes them if so."""
        level, at = self._levels.pop(key, (self._burst, now))
        level = min(level, self._burst) + self._rate * max(0.0, now - at)
        is_allowed = level >= count
        self._levels[key] = (level - count if is_allowed else level, max(now, at))
        while len(self._levels) > self._max_keys:
            self._levels.popitem(last=False)
        return is_allowed


class Quota:
    """Budgets and shares of authors, by their `standing`."""

    def __init__(self, settings: TrustSettings, standing: Standing) -> None:
        self._settings = settings
        self._standing = standing
        most = settings.max_authors
        self._links = Buckets(_LINK_RATE, _LINK_BURST, most)
        self._networks = Buckets(_NETWORK_RATE, _NETWORK_BURST, most)
        self._newcomers = Buckets(_NEWCOMERS_RATE, _NEWCOMERS_BURST, 1)
        self._offers = Buckets(_OFFERS_RATE, _OFFERS_BURST, most)

    def __len__(self) -> int:
        """Budgets that are kept."""
        return sum(map(len, (self._links, self._networks, self._newcomers, self._offers)))

    def allows_announcement(self, author: bytes, now: float) -> bool:
        """Whether one more announcement that `author` published is looked at."""
        if not self._settings.quotas:
            return True
        if not self._links.allows(author, now):
            return False
        if not self._standing.is_established(author) and not self._newcomers.allows("all", now):
            return False
        network = self._standing.network(author)
        return not network or self._networks.allows(network, now)

    def allows_offers(self, author: bytes, count: int, now: float) -> bool:
        """Whether `author` may offer `count` rollouts more."""
        return not self._settings.quotas or self._offers.allows(author, now, count)

    def draw(
        self, items: Sequence[T], author_of: Callable[[T], bytes], count: int, rng: random.Random
    ) -> list[T]:
        """At most `count` of the items without replacement, shared out as the head says."""
        if not self._settings.fair_shares:
            return rng.sample(items, min(count, len(items)))
        lanes: tuple[list[T], list[T]] = ([], [])
        for item in items:
            lanes[self._standing.is_established(author_of(item))].append(item)
        newcomers, established = lanes
        some = count
        if established:  # rounded up as often as makes the mean right
            some = int(count * self._settings.newcomer_share + rng.random())
        drawn = self._draw(newcomers, author_of, min(some, count), rng)
        return drawn + self._draw(established, author_of, count - len(drawn), rng)

    def _draw(
        self, items: Sequence[T], author_of: Callable[[T], bytes], count: int, rng: random.Random
    ) -> list[T]:
        networks: dict[str, dict[bytes, list[T]]] = {}
        for item in items:
            author = author_of(item)
            network = networks.setdefault(self._standing.network(author), {})
            network.setdefault(author, []).append(item)
        drawn: list[T] = []
        while networks and len(drawn) < count:
            names = list(networks)
            weights = [min(len(networks[n]), self._settings.authors_per_network) for n in names]
            name = rng.choices(names, weights)[0]
            authors = networks[name]
            author = rng.choice(list(authors))
            theirs = authors[author]
            drawn.append(theirs.pop(rng.randrange(len(theirs))))
            if not theirs:
                del authors[author]
                if not authors:
                    del networks[name]
        return drawn


def fair_weights(owners: Sequence[tuple[bytes, str]], authors_per_network: int) -> list[float]:
    """By how much each item's weight is multiplied so that items are drawn as `Quota.draw` does;
    `owners` are the author and the network ("": unknown) of each item.

    >>> a, b = (b"a", "1.2.3.0/24"), (b"b", "5.6.7.0/24")
    >>> fair_weights([a, a, b], 2)
    [0.5, 0.5, 1.0]
    """
    items: dict[tuple[bytes, str], int] = {}
    for owner in owners:
        items[owner] = items.get(owner, 0) + 1
    authors: dict[str, int] = {}
    for _, network in items:
        authors[network] = authors.get(network, 0) + 1
    return [
        min(authors[owner[1]], authors_per_network) / authors[owner[1]] / items[owner]
        for owner in owners
    ]
