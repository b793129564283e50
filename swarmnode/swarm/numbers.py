"""Which question numbers an author used: none is answered twice, and none is far from its others.

An author counts its questions, and the number makes the question (SPEC.md section 4). One who
answered a question again, after going back to an earlier state or to try its luck, would have it
trained on twice; one who could jump anywhere could choose among all questions. What is left is
choosing among the numbers that a fast honest node would reach. Bounded; what is older than what
could be admitted is forgotten.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from protocol.errors import Reason
from protocol.messages import Item

# Numbers by which an author may be behind its highest (it resumed at an earlier checkpoint), or
# ahead: a node with a large GPU asks some hundred questions a round, of which it publishes a part.
_WINDOW = 4096
_PER_S = 64.0  # and ahead for each second in which it was not heard
MAX_ANSWERED = 65_536
_KEY_BYTES = 16


class Numbers:
    """The highest number of each author, and which (author, task, number) were announced."""

    def __init__(self, max_authors: int, lifetime_s: float) -> None:
        self._max_authors = max_authors
        self._lifetime_s = lifetime_s
        self._looked_at = float("-inf")
        self._highest: OrderedDict[bytes, tuple[int, float]] = OrderedDict()
        # → when it was announced first, by its author's clock: the parts of one group are
        # announced at once, under one number.
        self._answered: OrderedDict[bytes, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._highest) + len(self._answered)

    def refuse(self, author: bytes, item: Item, created: int, now: float) -> Reason | None:
        """Why an offer is refused for its number, or None; then the number is used."""
        if now != self._looked_at:  # a round's offers come at once
            self._looked_at = now
            self._expire(now)
        highest, at = self._highest.get(author, (item.seed, now))
        ahead = _WINDOW + _PER_S * max(0.0, now - at)
        if not highest - _WINDOW <= item.seed <= highest + ahead:
            return Reason.WRONG_NUMBER
        key = _key(author, item)
        if self._answered.setdefault(key, created) != created:
            return Reason.DUPLICATE
        self._highest[author] = max(highest, item.seed), now
        self._highest.move_to_end(author)
        while len(self._highest) > self._max_authors:
            self._highest.popitem(last=False)
        while len(self._answered) > MAX_ANSWERED:
            self._answered.popitem(last=False)
        return None

    def state(self) -> dict[str, Any]:
        """What `load_state` restores, JSON-able."""
        return {
            "highest": {author.hex(): list(value) for author, value in self._highest.items()},
            "answered": {key.hex(): created for key, created in self._answered.items()},
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes over what `state` returned."""
        for author, (number, at) in state["highest"].items():
            self._highest[bytes.fromhex(author)] = number, at
        for key, created in state["answered"].items():
            self._answered[bytes.fromhex(key)] = created

    def _expire(self, now: float) -> None:
        oldest = now - self._lifetime_s
        while self._highest and next(iter(self._highest.values()))[1] < oldest:
            self._highest.popitem(last=False)
        while self._answered and next(iter(self._answered.values())) < oldest:
            self._answered.popitem(last=False)


def _key(author: bytes, item: Item) -> bytes:
    data = author + item.task_digest + item.seed.to_bytes(4)
    return hashlib.blake2b(data, digest_size=_KEY_BYTES).digest()
