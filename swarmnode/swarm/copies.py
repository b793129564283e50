"""Whether a rollout's texts were written by another: theft, and the same again under a new number.

A rollout cannot be re-signed for its own question: the question follows from the author's key. What
a thief can do is search its numbers for the same question, or for one with the same answer. So:

- a text is a copy if an equal one, after normalising, was taken before, for whatever question, or
  a near-equal one for the same question (estimated resemblance of word triples at least 0.8);
- a rollout is refused if at least half of its texts are long enough to tell, and at least half of
  those are copies.

Short texts tell nothing: two honest nodes that answer "42" did not copy, and whoever copies "42"
wrote what is right anyway. Near-equal texts for *different* questions are what honest models write
once they have found a form. Only texts that were right are remembered, by `note`: so nobody
forestalls another with what does not even answer the thief's own question. Bounded.

Source: Broder, "On the resemblance and containment of documents", 1997; the bottom-k sketch.
"""

import hashlib
import re
import unicodedata
import zlib
from collections import OrderedDict
from collections.abc import Sequence

# Characters, after normalising, from which on two equal texts are no accident.
_LONG = 80
# Of a text that are looked at: 4,096 characters are 700 words, and 0.2 ms.
_READ = 4096
_WORD = re.compile(r"[^\W_]+")  # letters and digits, as `str.isalnum` has them
_WORDS = 3
_SKETCH = 32  # hashes kept of a text: the estimate's standard error is 0.07 at 0.8
_NEAR = 0.8
MAX_TEXTS = 32_768  # hashes of 8 bytes: some 3 MB
MAX_QUESTIONS = 2048  # with sketches of at most so many texts each: some 40 MB if all are full
MAX_SKETCHES = 16

Sketch = tuple[int, ...]


class Copies:
    """Texts taken, by author and question."""

    def __init__(self) -> None:
        self._texts: OrderedDict[bytes, bytes] = OrderedDict()  # of a text → who wrote it
        self._sketches: OrderedDict[bytes, list[tuple[bytes, Sketch]]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._texts) + sum(map(len, self._sketches.values()))

    def is_copy(self, source: bytes, prompt: str, texts: Sequence[str]) -> bool:
        """Whether these answers to `prompt` were mostly written before by another source: another
        author, or the same one under another number."""
        told = [text for text in map(normalised, texts) if len(text) >= _LONG]
        if 2 * len(told) < len(texts):
            return False
        known = self._sketches.get(_digest(prompt), [])
        copied = sum(self._is_known(source, text, known) for text in told)
        return 2 * copied >= len(told) > 0

    def note(self, source: bytes, prompt: str, texts: Sequence[str]) -> None:
        """Remembers answers that were taken."""
        question = _digest(prompt)
        for text in map(normalised, texts):
            if len(text) < _LONG:
                continue
            self._texts.setdefault(_digest(text), source)
            sketches = self._sketches.setdefault(question, [])
            self._sketches.move_to_end(question)
            if len(sketches) < MAX_SKETCHES:
                sketches.append((source, sketch(text)))
        while len(self._texts) > MAX_TEXTS:
            self._texts.popitem(last=False)
        while len(self._sketches) > MAX_QUESTIONS:
            self._sketches.popitem(last=False)

    def _is_known(self, source: bytes, text: str, known: list[tuple[bytes, Sketch]]) -> bool:
        if self._texts.get(_digest(text), source) != source:
            return True
        others = [other for writer, other in known if writer != source]
        if not others:
            return False
        own = sketch(text)
        return any(resemblance(own, other) >= _NEAR for other in others)


def normalised(text: str) -> str:
    """What is left of a text when form is taken away: compatibility forms, case, spaces, and
    everything that is neither letter nor digit.

    >>> normalised("So:\\n  ＡＢ = 4.")
    'so ab 4'
    """
    folded = unicodedata.normalize("NFKC", text[:_READ]).casefold()
    return " ".join(_WORD.findall(folded))


def sketch(text: str) -> Sketch:
    """The smallest hashes of a normalised text's word triples, ascending."""
    words = text.split()
    triples = {" ".join(words[at : at + _WORDS]) for at in range(max(1, len(words) - _WORDS + 1))}
    return tuple(sorted(zlib.crc32(triple.encode()) for triple in triples)[:_SKETCH])


def resemblance(one: Sketch, other: Sketch) -> float:
    """The share of triples that two texts have in common, as their sketches tell.

    >>> resemblance(sketch("a b c d"), sketch("a b c d")), resemblance((1, 2), (3, 4))
    (1.0, 0.0)
    """
    smallest = sorted({*one, *other})[:_SKETCH]
    common = set(one) & set(other)
    return sum(hash in common for hash in smallest) / len(smallest)


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=8).digest()
