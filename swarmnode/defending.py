"""What this node takes from peers' texts, beyond the answer that its scorer verified.

The four poisonings of arXiv 2511.09780 leave the answers right and change the text around them: a
phrase, wrong arithmetic, a foreign library, length. Each rule below has its switch in
`config.DefenceSettings` (or `HybridSettings.unverified`); none asks a model to judge:

1. Of the text around the answer only what this node might have written itself is imitated
   (`train/unverified.py`; `verified_marks` says where the answer is).
2. A completion with a false equation is not imitated (`tasks/equations.py`).
3. Nor is one with a phrase that recurs in peers' texts and not in this node's (`swarm/novelty.py`).
4. Nor is one whose text around the answer is longer than this node's own answers allow.
5. A completion's advantage is bounded, and so is an author's and a question's part of a round
   (`swarm/shares.py`).
6. A probe watches what the policy came to, and the node goes back where it tripped (`probing.py`).

A rollout's authors are not trusted, so all of this is decided from texts and own statistics.
"""

from collections import Counter, deque
from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache
from typing import Final

from swarmnode.config import DefenceSettings
from swarmnode.rollout import Completion, Group
from swarmnode.swarm.novelty import Novelty
from swarmnode.tasks import answer, equations
from swarmnode.tasks.answer import AnswerFormat

EncodeSpans = Callable[[str], tuple[Sequence[int], Sequence[tuple[int, int]]]]
"""Text → token ids and the characters of each."""

# Own answers of a task that its usual length is taken from, and how few of them say nothing yet.
_LENGTHS: Final = 128
_FEWEST: Final = 16
_ENCODED: Final = 512  # texts whose tokens are kept for a while
_QUANTILE: Final = 0.95
# A bound on length is never closer to the usual one: short texts vary by a token or two.
_SPARE_TOKENS: Final = 2


REASONS: Final = ("equation", "length", "novelty")


class Defence:
    """Decides by what it saw of this node's and of peers' texts. `dropped` counts completions by
    reason, `kept` those that passed."""

    def __init__(
        self, settings: DefenceSettings, answer_format: AnswerFormat, encode: EncodeSpans
    ) -> None:
        self._settings = settings
        self._format = answer_format
        # A text is looked at several times in its round.
        self._encode = lru_cache(_ENCODED)(encode)
        self._novelty = Novelty()
        self._lengths: dict[str, deque[int]] = {}  # by task, of own answers
        self._right_lengths: dict[str, deque[int]] = {}
        self.dropped: Counter[str] = Counter(dict.fromkeys(REASONS, 0))
        self.kept = 0

    def note_own(self, groups: Sequence[Group]) -> None:
        """Takes in own groups, before any filtering."""
        for group in groups:
            task = group.question.task
            for completion, reward in zip(group.completions, group.rewards, strict=True):
                tokens = self._tokens_around(group, completion)
                _note(self._lengths, task, tokens)
                if reward > 0:
                    _note(self._right_lengths, task, tokens)
            if self._settings.novelty:
                self._novelty.note_own(self._texts(group), self._known(group))

    def note_peers(self, groups: Sequence[Group]) -> None:
        """Takes in peers' groups as they arrive, each once."""
        for group in groups if self._settings.novelty else ():
            assert group.origin is not None
            self._novelty.note_peer(group.origin.author, self._texts(group), self._known(group))

    def is_imitable(self, group: Group, completion: Completion) -> bool:
        """Whether a peer's completion is trained on; counted."""
        reason = self._reason(group, completion)
        if reason is None:
            self.kept += 1
        else:
            self.dropped[reason] += 1
        return reason is None

    def bounded(self, advantages: Sequence[float]) -> list[float]:
        """The advantages of peers' completions, none beyond the bound."""
        most = self._settings.max_advantage
        return [max(-most, min(most, a)) for a in advantages] if most else list(advantages)

    def verified_marks(self, group: Group, completion: Completion) -> list[bool]:
        """Which tokens of a peer's text are of its answer, where that is right to the letter.

        An answer that is right in another spelling (`007`) is not: its spelling is the peer's.
        """
        _, spans = self._encode(completion.text)
        place = self._verified_place(group, completion)
        if place is None:
            return [False] * len(spans)
        return [place[0] <= start and end <= place[1] for start, end in spans]

    def _reason(self, group: Group, completion: Completion) -> str | None:
        settings = self._settings
        if settings.equations and self._is_false(group, completion):
            return "equation"
        if settings.max_length and self._is_long(group, completion):
            return "length"
        if settings.novelty and self._is_novel(group, completion):
            return "novelty"
        return None

    def _is_false(self, group: Group, completion: Completion) -> bool:
        """Whether an equation beside the verified answer is false. One that runs up to the answer,
        `3+4=<answer>7</answer>`, is read without it."""
        text, place = completion.text, self._verified_place(group, completion)
        parts = (text,) if place is None else (text[: place[0]], text[place[1] :])
        return any(map(equations.is_false, parts))

    def _is_long(self, group: Group, completion: Completion) -> bool:
        """Beyond the bound by own right answers, or by all own answers while few are right."""
        for lengths in (self._right_lengths, self._lengths):
            known = sorted(lengths.get(group.question.task, ()))
            if len(known) >= _FEWEST:
                usual = known[int(_QUANTILE * (len(known) - 1))]
                most = max(self._settings.max_length * usual, usual + _SPARE_TOKENS)
                return self._tokens_around(group, completion) > most
        return False

    def _is_novel(self, group: Group, completion: Completion) -> bool:
        assert group.origin is not None
        author: Hashable = group.origin.author
        text = self._encode(completion.text)[0]
        return bool(self._novelty.novel(author, text, self._known(group)))

    def _tokens_around(self, group: Group, completion: Completion) -> int:
        """Tokens of a text but for its answer's: a long answer that is right is no padding."""
        return self.verified_marks(group, completion).count(False)

    def _verified_place(self, group: Group, completion: Completion) -> tuple[int, int] | None:
        place = answer.span(completion.text, self._format)
        if place is None or completion.text[slice(*place)] != group.question.answer:
            return None
        return place

    def _texts(self, group: Group) -> list[Sequence[int]]:
        return [self._encode(completion.text)[0] for completion in group.completions]

    def _known(self, group: Group) -> list[Sequence[int]]:
        return [self._encode(text)[0] for text in (group.question.prompt, group.question.answer)]


def _note(lengths: dict[str, deque[int]], task: str, tokens: int) -> None:
    lengths.setdefault(task, deque(maxlen=_LENGTHS)).append(tokens)
