"""What peers offer now: of each author, the rollouts of its newest announcements. Bounded.

When there are too many authors it forgets the one that was silent longest, newcomers first: keys
cost nothing, and whoever makes many must not push out those who gave something.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Sequence

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
        self._by_author: OrderedDict[bytes, deque[tuple[Offer, ...]]] = OrderedDict()

    def __len__(self) -> int:
        return sum(len(offers) for kept in self._by_author.values() for offers in kept)

    @property
    def authors(self) -> int:
        """How many authors have offers."""
        return len(self._by_author)

    def add(self, author: bytes, offers: Sequence[Offer]) -> None:
        """Takes the offers of one announcement; they push out those of the author's oldest."""
        if not offers:
            return
        self._by_author.setdefault(author, deque(maxlen=self._keep)).append(tuple(offers))
        self._by_author.move_to_end(author)
        while len(self._by_author) > self._max_authors:
            strangers = (a for a in self._by_author if not self._is_known(a))
            self.drop(next(strangers, next(iter(self._by_author))))

    def drop(self, author: bytes) -> None:
        """Forgets what this author offers."""
        self._by_author.pop(author, None)

    def expire(self, oldest: float) -> None:
        """Drops what was announced before `oldest` (Unix seconds, the authors' clocks)."""
        for author, announcements in list(self._by_author.items()):
            if all(offers[0].created >= oldest for offers in announcements):
                continue
            fresh = [offers for offers in announcements if offers[0].created >= oldest]
            if fresh:
                self._by_author[author] = deque(fresh, maxlen=self._keep)
            else:
                del self._by_author[author]

    def current(self) -> dict[bytes, Offer]:
        """All offers by their keys, as last announced."""
        return {
            offer.key: offer
            for announcements in self._by_author.values()
            for offers in announcements
            for offer in offers
        }
