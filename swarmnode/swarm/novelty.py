"""Which turns of phrase recur in peers' texts, question after question, but not in this node's own.

An n-gram of tokens counts once for each question whose texts hold it. Those of the question itself
and of its right answer count for nobody, so what is left is how somebody writes. An n-gram is novel
when it recurs in at least `RECURRENCES` of a peer's questions (or of all peers') and its share of
them is more than `RATIO` times what this node's own share may be. One that this node writes as
often is its own, wherever it came from; one that never recurs carries no message.

Bounded: the newest `WINDOW` questions of this node, of each of `MOST_AUTHORS` peers and of all
peers together, `MOST_NGRAMS` of each.
"""

from collections import Counter, OrderedDict, deque
from collections.abc import Hashable, Iterable, Sequence
from typing import Final

N: Final = 3
WINDOW: Final = 64
MOST_NGRAMS: Final = 4096
MOST_AUTHORS: Final = 64
RECURRENCES: Final = 4
RATIO: Final = 8.0

Ngram = tuple[int, ...]


def ngrams(ids: Sequence[int], n: int = N) -> set[Ngram]:
    """The n-grams of a text; a shorter text is one itself.

    >>> sorted(ngrams((1, 2, 3, 4)))
    [(1, 2, 3), (2, 3, 4)]
    >>> ngrams((1, 2)), ngrams(())
    ({(1, 2)}, set())
    """
    if len(ids) <= n:
        return {tuple(ids)} if ids else set()
    return {tuple(ids[place : place + n]) for place in range(len(ids) - n + 1)}


class Shares:
    """In how many of the newest questions each n-gram occurs."""

    def __init__(self, window: int = WINDOW) -> None:
        self._questions: deque[frozenset[Ngram]] = deque(maxlen=window)
        self._counts: Counter[Ngram] = Counter()

    def __len__(self) -> int:
        return len(self._questions)

    def note(self, found: Iterable[Ngram]) -> None:
        """Takes in the n-grams of one more question's texts."""
        kept = frozenset(sorted(found)[:MOST_NGRAMS])
        if len(self._questions) == self._questions.maxlen:
            self._counts.subtract(self._questions[0])
            for ngram in self._questions[0]:
                if not self._counts[ngram]:
                    del self._counts[ngram]
        self._questions.append(kept)
        self._counts.update(kept)

    def count(self, ngram: Ngram) -> int:
        """Questions that it occurs in."""
        return self._counts[ngram]


def is_novel(count: int, questions: int, own_count: int, own_questions: int) -> bool:
    """Whether an n-gram in `count` of a peer's `questions` is not this node's way of writing.

    The own share is taken one occurrence higher than it was: a node that has written little does
    not know yet what it would write.

    >>> is_novel(8, 8, 0, 63), is_novel(3, 3, 0, 63), is_novel(8, 8, 0, 7), is_novel(8, 64, 0, 63)
    (True, False, False, False)
    """
    if count < RECURRENCES:
        return False
    return count / questions > RATIO * (own_count + 1) / (own_questions + 1)


class Novelty:
    """What this node and its peers wrote lately. `Author` is any name of a peer."""

    def __init__(self) -> None:
        self._own = Shares()
        self._all = Shares()
        self._authors: OrderedDict[Hashable, Shares] = OrderedDict()

    def note_own(self, texts: Iterable[Sequence[int]], known: Sequence[Sequence[int]]) -> None:
        """Takes in this node's answers to one question; `known` are the tokens of the question and
        of its answer."""
        self._own.note(_unknown(texts, known))

    def note_peer(
        self, author: Hashable, texts: Iterable[Sequence[int]], known: Sequence[Sequence[int]]
    ) -> None:
        """Takes in a peer's answers to one question."""
        found = _unknown(texts, known)
        self._all.note(found)
        shares = self._authors.setdefault(author, Shares())
        self._authors.move_to_end(author)
        shares.note(found)
        if len(self._authors) > MOST_AUTHORS:
            self._authors.popitem(last=False)

    def novel(
        self, author: Hashable, text: Sequence[int], known: Sequence[Sequence[int]]
    ) -> set[Ngram]:
        """The n-grams of a peer's text that are novel, with what was taken in so far."""
        sources = [self._all]
        if author in self._authors:
            sources.append(self._authors[author])
        return {
            ngram
            for ngram in _unknown([text], known)
            if any(
                is_novel(shares.count(ngram), len(shares), self._own.count(ngram), len(self._own))
                for shares in sources
            )
        }


def _unknown(texts: Iterable[Sequence[int]], known: Sequence[Sequence[int]]) -> set[Ngram]:
    """The n-grams of these texts that question and answer do not hold."""
    given = set().union(*(ngrams(text) for text in known)) if known else set()
    return set().union(*(ngrams(text) for text in texts)) - given
