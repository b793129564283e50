"""How much of a round one author and one question may be, and who lost what of it.

Pure rules over groups, and one small memory: an author whose texts tripped the probe
(`swarmnode/probing.py`) keeps a part of its share, which comes back slowly. Local, and told to
nobody.
"""

import math
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from swarmnode.rollout import Group

# What an author keeps of its share when it is blamed, and what comes back of the rest in a round.
BLAMED: Final = 0.1
RETURN: Final = 0.01
# Blamed authors remembered; whoever was blamed least is forgotten first.
MOST_BLAMED: Final = 4096


def limited(
    groups: Sequence[Group], author_share: float, per_question: int, wanted: int
) -> list[Group]:
    """The groups, in order, without those beyond an author's or a question's part of a round.

    An author has at most `author_share` of the `wanted` groups, or an equal part of them where
    there are too few authors for that, rounded up; a question has `per_question` of them. A share
    of 1 and a `per_question` of 0 are no limits.
    """
    many = len({group.origin.author for group in groups if group.origin is not None})
    share = max(author_share, 1 / max(1, many))
    most = max(1, math.ceil(share * wanted)) if author_share < 1 else len(groups)
    authors: Counter[bytes] = Counter()
    questions: Counter[tuple[bytes, int]] = Counter()
    kept = []
    for group in groups:
        assert group.origin is not None  # only peers' groups are limited
        question = (group.question.digest, group.question.seed)
        if authors[group.origin.author] >= most:
            continue
        if per_question and questions[question] >= per_question:
            continue
        authors[group.origin.author] += 1
        questions[question] += 1
        kept.append(group)
    return kept


class Blame:
    """The share that each blamed author has left: 1 for everyone else."""

    def __init__(self) -> None:
        self._shares: dict[bytes, float] = {}

    def share(self, author: bytes) -> float:
        """Between 0 and 1."""
        return self._shares.get(author, 1.0)

    def blame(self, authors: Iterable[bytes]) -> None:
        """Takes most of their share from these authors."""
        for author in authors:
            self._shares[author] = BLAMED * self.share(author)
        if len(self._shares) > MOST_BLAMED:
            kept = sorted(self._shares.items(), key=lambda item: item[1])[:MOST_BLAMED]
            self._shares = dict(kept)

    def forgive(self, rounds: int) -> None:
        """So many rounds more: a part of what was lost comes back."""
        left = (1 - RETURN) ** rounds
        returned = {author: 1 - left * (1 - s) for author, s in self._shares.items()}
        self._shares = {author: s for author, s in returned.items() if s < 1 - RETURN}

    def passed(self, groups: Sequence[Group], rng: random.Random) -> list[Group]:
        """The groups that a draw by their authors' shares leaves. Draws only for blamed authors."""
        kept = []
        for group in groups:
            assert group.origin is not None
            share = self.share(group.origin.author)
            if share == 1.0 or rng.random() < share:
                kept.append(group)
        return kept

    def state(self) -> dict[str, float]:
        """What `load_state` restores, JSON-able."""
        return {author.hex(): share for author, share in self._shares.items()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes over what `state` returned."""
        self._shares = {bytes.fromhex(author): float(share) for author, share in state.items()}
