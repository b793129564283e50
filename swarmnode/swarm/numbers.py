"""Which question numbers an author used: none is answered twice, and none is far from its others.

An author counts its questions, and the number makes the question (SPEC.md section 4). One who
answered a question again, after going back to an earlier state or to try its luck, would have it
trained on twice; one who could jump anywhere could choose among all questions. What is left is
choosing among the numbers that a fast honest node would reach. Bounded; what is older than what
could be admitted is forgotten. Keys cost nothing, so newcomers push out newcomers only: a flood of
new keys makes nothing of a known author forgotten.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from protocol.errors import Reason
from protocol.messages import Item

# Numbers by which an author may be behind its highest (it resumed at an earlier checkpoint), or
# ahead: a node with a large GPU asks some hundred questions a round, of which it publishes a part.
_WINDOW = 4096
_PER_S = 64.0  # and ahead for each second in which it was not heard
MAX_ANSWERED = 65_536
_KEY_BYTES = 16


@dataclass(slots=True)
class _Used:
    """By some of the authors: the highest number of each, and which (author, task, number)."""

    highest: OrderedDict[bytes, tuple[int, float]] = field(default_factory=OrderedDict)
    # → when it was announced first, by its author's clock: the parts of one group are announced at
    # once, under one number.
    answered: OrderedDict[bytes, int] = field(default_factory=OrderedDict)

    def __len__(self) -> int:
        return len(self.highest) + len(self.answered)

    def expire(self, oldest: float) -> None:
        while self.highest and next(iter(self.highest.values()))[1] < oldest:
            self.highest.popitem(last=False)
        while self.answered and next(iter(self.answered.values())) < oldest:
            self.answered.popitem(last=False)

    def trim(self, max_authors: int, max_answered: int) -> None:
        while len(self.highest) > max_authors:
            self.highest.popitem(last=False)
        while len(self.answered) > max_answered:
            self.answered.popitem(last=False)


class Numbers:
    """What authors used, of those that `is_known` names and of all others: each bounded alone."""

    def __init__(
        self,
        max_authors: int,
        lifetime_s: float,
        is_known: Callable[[bytes], bool] = lambda author: False,
        max_answered: int = MAX_ANSWERED,
    ) -> None:
        self._max_authors = max_authors
        self._max_answered = max_answered
        self._lifetime_s = lifetime_s
        self._is_known = is_known
        self._looked_at = float("-inf")
        self._known = _Used()
        self._others = _Used()

    def __len__(self) -> int:
        return len(self._known) + len(self._others)

    def refuse(self, author: bytes, item: Item, created: int, now: float) -> Reason | None:
        """Why an offer is refused for its number, or None; then the number is used."""
        if now != self._looked_at:  # a round's offers come at once
            self._looked_at = now
            for used in (self._known, self._others):
                used.expire(now - self._lifetime_s)
        # It may have become known, or have been forgotten, since it was heard last.
        mine, before = self._of(author)
        unheard = item.seed, now
        highest, at = mine.highest.get(author) or before.highest.get(author, unheard)
        ahead = _WINDOW + _PER_S * max(0.0, now - at)
        if not highest - _WINDOW <= item.seed <= highest + ahead:
            return Reason.WRONG_NUMBER
        key = _key(author, item)
        first = before.answered.get(key, created)
        if first != created or mine.answered.setdefault(key, created) != created:
            return Reason.DUPLICATE
        before.highest.pop(author, None)
        mine.highest[author] = max(highest, item.seed), now
        mine.highest.move_to_end(author)
        mine.trim(self._max_authors, self._max_answered)
        return None

    def state(self) -> dict[str, Any]:
        """What `load_state` restores, JSON-able."""
        both = self._others, self._known
        return {
            "highest": {a.hex(): list(value) for used in both for a, value in used.highest.items()},
            "answered": _named(self._others.answered),
            "answered_by_known": _named(self._known.answered),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes over what `state` returned; who is known must be restored before."""
        for name, (number, at) in state["highest"].items():
            author = bytes.fromhex(name)
            self._of(author)[0].highest[author] = number, at
        known = state.get("answered_by_known", {})  # a checkpoint of before lacks it
        for used, answered in ((self._others, state["answered"]), (self._known, known)):
            used.answered.update((bytes.fromhex(key), at) for key, at in answered.items())

    def _of(self, author: bytes) -> tuple[_Used, _Used]:
        """What it used: as what it is now, and as what it was."""
        both = self._known, self._others
        return both if self._is_known(author) else (both[1], both[0])


def _named(answered: Mapping[bytes, int]) -> dict[str, int]:
    return {key.hex(): created for key, created in answered.items()}


def _key(author: bytes, item: Item) -> bytes:
    data = author + item.task_digest + item.seed.to_bytes(4)
    return hashlib.blake2b(data, digest_size=_KEY_BYTES).digest()
