"""What peers offer now: of each author, the rollouts of its newest announcements. Bounded.

When there are too many authors it forgets the one that was silent longest, newcomers first: keys
cost nothing, and whoever makes many must not push out those who gave something.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

from swarmnode.swarm.admission import Offer

# Authors whose offers are kept. With two full announcements each, 131,072 offers, they take about
# 50 MB; a swarm has some hundred authors that announce eight offers a round. Fewer would let a
# smaller flood of keys push honest peers out.
MAX_AUTHORS = 1024


class Offers:
    """Offers by author. Nothing here is checked: the caller adds only what it would fetch, and
    says which authors are forgotten last (`is_known`)."""

    def __init__(
        self,
        keep_announcements: int,
        max_authors: int = MAX_AUTHORS,
        is_known: Callable[[bytes], bool] = lambda author: False,
    ) -> None:
        self._keep = keep_announcements
        self._max_authors = max_authors
        self._is_known = is_known
        # Announcements by author, oldest first: tuples, as a deque takes 700 bytes for each author.
        self._by_author: OrderedDict[bytes, tuple[tuple[Offer, ...], ...]] = OrderedDict()
        self._current: dict[bytes, Offer] = {}  # all of them by key, as last announced
        self._none_before = math.inf  # nothing kept was announced before

    def __len__(self) -> int:
        return len(self._current)

    @property
    def authors(self) -> int:
        """How many authors have offers."""
        return len(self._by_author)

    def add(self, author: bytes, offers: Sequence[Offer]) -> None:
        """Takes the offers of one announcement; they push out those of the author's oldest."""
        if not offers:
            return
        before = self._by_author.get(author, ())
        if len(before) == self._keep:
            self._forget(before[0])
            before = before[1:]
        self._by_author[author] = (*before, tuple(offers))
        self._by_author.move_to_end(author)
        self._none_before = min(self._none_before, offers[0].created)
        for offer in offers:
            self._current[offer.key] = offer
        while len(self._by_author) > self._max_authors:
            strangers = (a for a in self._by_author if not self._is_known(a))
            self.drop(next(strangers, next(iter(self._by_author))))

    def drop(self, author: bytes) -> None:
        """Forgets what this author offers."""
        for announced in self._by_author.pop(author, ()):
            self._forget(announced)

    def expire(self, oldest: float) -> None:
        """Drops what was announced before `oldest` (Unix seconds, the authors' clocks)."""
        if self._none_before >= oldest:
            return
        self._none_before = math.inf
        for author, announcements in list(self._by_author.items()):
            fresh = tuple(offers for offers in announcements if offers[0].created >= oldest)
            for offers in announcements:
                if offers[0].created < oldest:
                    self._forget(offers)
            if not fresh:
                del self._by_author[author]
                continue
            self._by_author[author] = fresh
            for offers in fresh:
                self._none_before = min(self._none_before, offers[0].created)
                for offer in offers:  # one may have been in what came later and went before
                    self._current.setdefault(offer.key, offer)

    def current(self) -> Mapping[bytes, Offer]:
        """All offers by their keys, as last announced: a view."""
        return self._current

    def _forget(self, offers: Sequence[Offer]) -> None:
        for offer in offers:
            if self._current.get(offer.key) is offer:  # else announced again
                del self._current[offer.key]
