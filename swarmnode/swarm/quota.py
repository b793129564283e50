"""What one link, author, network and all newcomers together may use of this node, and how what is
taken is shared out among them.

Budgets count announcements before their signature is checked, and what they offer after. GossipSub
tells who published a message, not who passed it on; a publisher is the author or refused, so the
link's budget is the publisher's. Established authors have budgets of their own; all others share
one more, for keys cost nothing: a flood of new keys takes the newcomers' place and nobody else's.

Shares: a draw first chooses a network, then an author in it, then one of the author's rollouts. A
network counts as `authors_per_network` authors at most, and newcomers get `newcomer_share` of each
draw as soon as this node knows some peers for a while; a newcomer in the network of an established
author shares that network's part. So neither many rollouts, nor many keys, nor many keys on few
networks make a larger share. What is left to a flood of new keys is half of the newcomers' share,
where the networks are not known yet; at the very start it is more, until each author was fetched
from once.

Pure: `now` (seconds) and `rng` are the caller's.
"""

import random
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

from swarmnode.config import TrustSettings
from swarmnode.swarm.standing import Standing

T = TypeVar("T")
Networks = dict[str, dict[bytes, list[T]]]  # network → author → items

# Announcements a second and at once. An honest node makes one a round; the fastest rounds are those
# of the demonstration model, three a second. 1,000 nodes of a swarm announce 33 times a second.
_LINK_RATE, _LINK_BURST = 3.0, 60.0
_NETWORK_RATE, _NETWORK_BURST = 12.0, 240.0
_NEWCOMERS_RATE, _NEWCOMERS_BURST = 60.0, 1200.0
# Rollouts offered, of one author: 16 a round and more are not published.
_OFFERS_RATE, _OFFERS_BURST = 64.0, 1024.0
# Seconds of a round for which what came may come at once.
_LONGEST_S = 600.0


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
        passed_s = min(max(0.0, now - at), _LONGEST_S)
        if passed_s > 0:
            level = min(level, self._burst) + self._rate * passed_s
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
        known, met, new = self._lanes(items, author_of)
        most = self._settings.authors_per_network
        if not known or not self._standing.is_settled:
            return _Urn({**known, **met, **new}, most).draw(count, rng)
        # Rounded up as often as makes the mean right. Half for those whose network is known: there
        # the place of one is not taken by a flood of new keys.
        some = int(count * self._settings.newcomer_share + rng.random())
        half = int(some / 2 + rng.random())
        drawn = _Urn(met, most).draw(half, rng)
        drawn += _Urn(new, most).draw(some - len(drawn), rng)
        return drawn + _Urn(known, most).draw(count - len(drawn), rng)

    def _lanes(
        self, items: Sequence[T], author_of: Callable[[T], bytes]
    ) -> tuple[Networks[T], Networks[T], Networks[T]]:
        """The items by network and author: of networks with an established author, of others, and
        of authors whose network is not known, each as a network of its own."""
        by_author: dict[bytes, list[T]] = {}
        for item in items:
            by_author.setdefault(author_of(item), []).append(item)
        is_established, network_of = self._standing.is_established, self._standing.network
        taken = {network_of(author) for author in by_author if is_established(author)}
        known: Networks[T] = {}
        met: Networks[T] = {}
        new: Networks[T] = {}
        for author, theirs in by_author.items():
            network = network_of(author)
            if is_established(author) or (network and network in taken):
                known.setdefault(network, {})[author] = theirs
            elif network:
                met.setdefault(network, {})[author] = theirs
            else:
                new[f"new {author.hex()}"] = {author: theirs}
        return known, met, new


class _Urn(Generic[T]):
    """Items by network and author, from which is drawn: network, author, item."""

    def __init__(self, networks: Networks[T], authors_per_network: int) -> None:
        self._networks = networks
        self._most = authors_per_network

    def draw(self, count: int, rng: random.Random) -> list[T]:
        """At most `count` items, which leave the urn."""
        drawn: list[T] = []
        networks = self._networks
        while networks and len(drawn) < count:
            weights = [min(len(authors), self._most) for authors in networks.values()]
            name = rng.choices(list(networks), weights)[0]
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
