"""What this node allows peers, in one place: when the rules of `quota.py`, `standing.py`,
`numbers.py`, `copies.py` and `visible.py` are asked, each with its switch in
`config.TrustSettings`. The exchange asks in the order of the methods below and counts refusals.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from protocol.errors import Reason
from protocol.messages import Item, Rollout
from swarmnode.config import TrustSettings
from swarmnode.rollout import Group, Question
from swarmnode.swarm.copies import Copies
from swarmnode.swarm.numbers import Numbers
from swarmnode.swarm.quota import Quota
from swarmnode.swarm.standing import Offence, Standing
from swarmnode.swarm.visible import visible

T = TypeVar("T")


class Trust:
    """Rules with what they remember. Authors are public keys; `lifetime_s` is for how long what
    they announce could be admitted."""

    def __init__(self, settings: TrustSettings, lifetime_s: float) -> None:
        self._settings = settings
        self.standing = Standing(settings)
        self._quota = Quota(settings, self.standing)
        self._numbers = Numbers(settings.max_authors, lifetime_s, self.standing.is_established)
        self._copies = Copies()

    def refuse_unread(self, author: bytes, now: float) -> Reason | None:
        """Why an announcement that `author` published is not even read, or None."""
        if self.standing.is_avoided(author, now):
            return Reason.AVOIDED
        return None if self._quota.allows_announcement(author, now) else Reason.OVER_QUOTA

    def refuse_offers(self, author: bytes, count: int, now: float) -> Reason | None:
        """Why so many offers more of `author` are refused, or None."""
        return None if self._quota.allows_offers(author, count, now) else Reason.OVER_QUOTA

    def refuse_number(self, author: bytes, item: Item, created: int, now: float) -> Reason | None:
        """Why an offer is refused for its question's number, or None; then that is used."""
        if not self._settings.numbers:
            return None
        return self._numbers.refuse(author, item, created, now)

    def draw(
        self,
        offers: Sequence[T],
        author_of: Callable[[T], bytes],
        count: int,
        now: float,
        rng: random.Random,
    ) -> list[T]:
        """At most `count` of the offers, shared out fairly, none of an author that is avoided."""
        allowed = [o for o in offers if not self.standing.is_avoided(author_of(o), now)]
        return self._quota.draw(allowed, author_of, count, rng)

    def cleaned(self, rollout: Rollout) -> Rollout:
        """The rollout with texts as a reader sees them."""
        if not self._settings.visible:
            return rollout
        texts = tuple(map(visible, rollout.texts))
        return rollout if texts == rollout.texts else msgspec.structs.replace(rollout, texts=texts)

    def refuse_texts(
        self, author: bytes, question: Question, texts: Sequence[str]
    ) -> Reason | None:
        """Why answers are refused for what they say, or None."""
        source = _source(author, question)
        if self._settings.copies and self._copies.is_copy(source, question.prompt, texts):
            return Reason.COPIED
        return None

    def note_scored(self, group: Group, round: int, now: float) -> None:
        """Takes note of a peer's group with our rewards: one that got something right gives its
        author credit, and its right texts will be known again."""
        assert group.origin is not None
        right = [
            completion.text
            for completion, reward in zip(group.completions, group.rewards, strict=True)
            if reward > 0
        ]
        if right:
            author = group.origin.author
            self.standing.credit(author, round, now)
            if self._settings.copies:
                self._copies.note(_source(author, group.question), group.question.prompt, right)

    def blame(self, author: bytes, offence: Offence, now: float) -> bool:
        """Holds an offence against the author; whether that is to be cut off now."""
        return self.standing.blame(author, offence, now)

    def sizes(self) -> dict[str, int]:
        """How many entries each thing that is remembered has, by name."""
        return {
            "standing": len(self.standing),
            "budgets": len(self._quota),
            "numbers": len(self._numbers),
            "texts": len(self._copies),
        }

    def state(self) -> dict[str, Any]:
        """What `load_state` restores, JSON-able. Texts and budgets start anew."""
        return {"standing": self.standing.state(), "numbers": self._numbers.state()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes over what `state` returned."""
        self.standing.load_state(state["standing"])
        self._numbers.load_state(state["numbers"])


def _source(author: bytes, question: Question) -> bytes:
    return author + question.digest + question.seed.to_bytes(8)
