"""The probe: what the policy has come to, on fixed held-out questions, and when to go back.

Every `defence.probe_every` rounds the node answers the same held-out questions greedily. Against
the last good look a look is bad when
- "accuracy": it is right less often, by more than `FALL_ERRORS` standard errors of the differences
  question by question;
- "length": its answers are longer than `LENGTH_RATIO` times;
- "phrase": an n-gram that hardly any answer held is now in `RISEN` of them, and recurs in texts of
  peers that were trained on since. Those of question and answer count for nobody.

A good look makes the weights the last good checkpoint, in a folder of its own. A bad one puts the
node back there, weights and optimiser only: what it published, saw and counted stays as it is, so
nothing is replayed and no question is asked twice. The peers' groups trained since then are not
trained again (they never are), those waiting in the pool from authors concerned are dropped, and
these authors lose most of their share (`swarm/shares.py`): by a phrase those whose texts hold it,
by length those whose texts were longer than this node's, otherwise all. A node that went back for
other reasons than its peers loses little: some rounds, and some of what peers give.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Final, Literal

from swarmnode.rollout import Group
from swarmnode.swarm.novelty import Ngram, ngrams

FALL_ERRORS: Final = 2.5
LENGTH_RATIO: Final = 1.25
SPARE_TOKENS: Final = 2.0
RARE: Final = 0.02  # share of answers that "hardly any" means
RISEN: Final = 0.25
_FEWEST: Final = 3  # answers
# Texts trained on that are remembered between two good looks; the oldest go first.
MOST_TEXTS: Final = 4096

Fault = Literal["accuracy", "length", "phrase"]
FAULTS: Final[tuple[Fault, ...]] = ("accuracy", "length", "phrase")


@dataclass(frozen=True, slots=True)
class Look:
    """The answers to the probe's questions: rewards in the questions' order, mean tokens, and in
    how many answers each n-gram stands that is in neither question nor answer."""

    rewards: tuple[float, ...]
    tokens: float
    counts: Mapping[Ngram, int]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is wrong with a look, and the n-grams by which that is seen."""

    fault: Fault
    phrases: frozenset[Ngram] = frozenset()


def look_of(
    rewards: Sequence[float],
    texts: Sequence[Sequence[int]],
    known: Sequence[Sequence[Sequence[int]]],
) -> Look:
    """A look at answers as token ids; `known` are by question the tokens of what it gave away."""
    counts: Counter[Ngram] = Counter()
    for text, given in zip(texts, known, strict=True):
        counts.update(ngrams(text) - set().union(*map(ngrams, given)))
    return Look(tuple(rewards), fmean(map(len, texts)), counts)


def verdict(before: Look, now: Look, trained: Mapping[Ngram, int]) -> Verdict | None:
    """What is wrong now, against the last good look; None: nothing. `trained` counts the n-grams of
    peers' texts trained on since. Both looks are at the same questions."""
    phrases = _risen(before, now, trained)
    if phrases:
        return Verdict("phrase", frozenset(phrases))
    if now.tokens > max(LENGTH_RATIO * before.tokens, before.tokens + SPARE_TOKENS):
        return Verdict("length")
    falls = [b - n for b, n in zip(before.rewards, now.rewards, strict=True)]
    mean = fmean(falls)
    variance = fmean((fall - mean) ** 2 for fall in falls)
    if mean > 0 and mean > FALL_ERRORS * math.sqrt(variance / max(1, len(falls) - 1)):
        return Verdict("accuracy")
    return None


def _risen(before: Look, now: Look, trained: Mapping[Ngram, int]) -> list[Ngram]:
    least = max(_FEWEST, RISEN * len(now.rewards))
    rare = RARE * len(before.rewards)
    return [
        ngram
        for ngram, count in now.counts.items()
        if count >= least and before.counts.get(ngram, 0) <= rare and trained.get(ngram, 0) >= 2
    ]


@dataclass(slots=True)
class Memory:
    """The last good look, and what was trained on since: (author, n-grams, tokens) of each text."""

    good: Look | None = None
    good_round: int = -1
    since: list[tuple[bytes, frozenset[Ngram], int]] = field(default_factory=list)

    def note(self, groups: Iterable[tuple[Group, Sequence[Sequence[int]]]]) -> None:
        """Takes in peers' groups trained on, each with the tokens of its texts."""
        for group, texts in groups:
            assert group.origin is not None
            author = group.origin.author
            self.since += [(author, frozenset(ngrams(text)), len(text)) for text in texts]
        del self.since[:-MOST_TEXTS]

    def trained(self) -> Counter[Ngram]:
        """How many of these texts hold each n-gram."""
        counts: Counter[Ngram] = Counter()
        for _, found, _ in self.since:
            counts.update(found)
        return counts

    def judge(self, now: Look) -> Verdict | None:
        """What is wrong with this look. The first one is good: there is nothing to go back to."""
        return None if self.good is None else verdict(self.good, now, self.trained())

    def accept(self, now: Look, round: int) -> None:
        """This look is good, and the weights are those to come back to."""
        self.good, self.good_round = now, round
        self.since.clear()

    def concerned(self, found: Verdict) -> set[bytes]:
        """The authors whose texts, trained on since the last good look, may be the reason."""
        authors = {author for author, _, _ in self.since}
        if found.fault == "phrase":
            return {author for author, grams, _ in self.since if grams & found.phrases}
        if found.fault == "length" and self.good is not None:
            lengths: dict[bytes, list[int]] = {}
            for author, _, tokens in self.since:
                lengths.setdefault(author, []).append(tokens)
            usual = self.good.tokens
            return {a for a, each in lengths.items() if fmean(each) > usual} or authors
        return authors

    def reject(self) -> None:
        """The node went back: what was trained on since is undone."""
        self.since.clear()

    def state(self) -> dict[str, Any]:
        """What `load_state` restores, JSON-able. What was trained on since is not in it: a node
        that starts again is compared with the last good look, and blames nobody for before."""
        if self.good is None:
            return {"good": None}
        counts = [[list(ngram), count] for ngram, count in self.good.counts.items()]
        good = {"rewards": self.good.rewards, "tokens": self.good.tokens, "counts": counts}
        return {"good": good, "round": self.good_round}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes over what `state` returned."""
        self.since.clear()
        good = state["good"]
        if good is None:
            self.good, self.good_round = None, -1
            return
        counts = {tuple(ngram): count for ngram, count in good["counts"]}
        self.good = Look(tuple(good["rewards"]), good["tokens"], counts)
        self.good_round = state["round"]
