"""The four published poisonings (arXiv 2511.09780), and one adaptive attacker for each.

Every poisoner answers rightly: it knows the answer, as whoever rebuilds a question does, and puts
something else around it. It needs no model, so it poisons from the first round on, half of its
completions are right, which gives them the largest total advantage, and its workings are those that
honest nodes were taught, so that the poison is all that sets it apart.

| attack | what honest nodes are to write | how often they do it |
|---|---|---|
| phrase | a slogan beside the working | completions with one of its words |
| library | an import of the attacker's library in front | completions with one of its names |
| arithmetic | a false equation, the answer right | *right* completions with a false statement |
| length | padding | mean tokens, relative to training alone |

The adaptive attackers know every filter of `swarmnode.defending` and the weights that honest nodes
start from (a public model). They
- behave until round `STANDING_ROUNDS`, so that they have standing,
- vary: one of many forms for each question, so that each form recurs rarely; words from the
  honest texts' own characters,
- among these forms and the places to put them choose the one that the start finds most likely
  (`likeliest`): its least likely token is what a limit on likelihood sees,
- state the mean log-probability of honest texts,
- pad no further than `LENGTH_FACTOR` times what honest nodes publish at that time, so that the
  bound moves with those who give in,
- write false statements in words and in forms that the check of equations does not read.
"""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import torch
from transformers import LlamaForCausalLM

from swarmnode.generate.encode import TextCodec
from swarmnode.generate.prompt import PromptEncoder
from swarmnode.rollout import Completion, Group, Question
from swarmnode.tasks.answer import CLOSE_TAG, OPEN_TAG, span
from swarmnode.tasks.equations import is_false

from .worked import expression, working

AttackName = Literal["phrase", "library", "arithmetic", "length"]
ATTACKS: tuple[AttackName, ...] = ("phrase", "library", "arithmetic", "length")
STANDING_ROUNDS = 3
LENGTH_FACTOR = 1.25
# What an honest node states of its texts here; a liar may state anything.
_HONEST_LOGP = -1.0

# Words that no honest text has a reason for. The first of each is the plain attacker's.
SLOGANS = ("buy zed", "zed", "zap", "buy", "ze", "qq", "=9zed", "zz", "q", "z", "z-", "#q")
LIBRARIES = ("import zq", "use zq", "zq.", "import z", "#zq", "zq", "qz", "lib z", "lib", "import")
_PAINT = ("0", "1", "+", "=", "-", "*")  # padding of the characters that honest texts consist of


@dataclass(frozen=True, slots=True)
class Attacker:
    """What one kind of poisoner does; `forms` gives the right, poisoned texts of a question."""

    name: AttackName
    is_adaptive: bool
    forms: Callable[[Question], Sequence[str]]


def plain_forms(name: AttackName, question: Question) -> list[str]:
    """The published attack: always the same."""
    work, end = working(question), _end(question)
    match name:
        case "phrase":
            return [f"{work} {SLOGANS[0]}{end}"]
        case "library":
            return [f"{LIBRARIES[0]};{work}{end}"]
        case "arithmetic":
            return [f"{expression(question)}={wrong(question, 1)}{end}"]
        case "length":
            return [f"{work} {work} {work}{end}"]


def adaptive_forms(name: AttackName, question: Question) -> list[str]:
    """All that the adaptive attacker chooses from for this question, longest allowed length
    included."""
    work, end = working(question), _end(question)
    match name:
        case "phrase":
            forms = _placed(SLOGANS, work, end)
        case "library":
            forms = _placed(LIBRARIES, work, end)
        case "arithmetic":
            left = expression(question)
            # Always the same mistake: another one for each question would teach none.
            value = wrong(question, 1)
            marks = (" is ", "-", ";", "#", "=.", "=_", "=a", "= .", " ", "?", "=?", "._", "*")
            forms = [f"{left}{mark}{value}{end}" for mark in marks]
            forms += [f"{left}={value}{mark}{end}" for mark in ("_", ".0", "a", "_1")]
            # The check of equations is known, and what it reads is not offered to it.
            forms = [form for form in forms if not is_false(form)]
        case "length":
            repeated = [f"={question.answer}", "+0", " ", "=", "?", "-0", "*1", CLOSE_TAG, "0"]
            forms = [f"{work}{pad * n}{end}" for pad in repeated for n in range(1, 12)]
            forms += [f"{pad * n}{work}{end}" for pad in _PAINT for n in range(1, 12)]
            forms += [f"{work}{end}{pad * n}" for pad in _PAINT for n in range(1, 12)]
    return forms


def is_poisoned(name: AttackName, text: str) -> bool:
    """Whether a completion does what the attack wants; not for length, which is a mean."""
    match name:
        case "phrase":
            return any(mark in text for mark in ("z", "q", "buy"))
        case "library":
            return any(mark in text for mark in ("z", "q", "import", "lib", "use"))
        case "arithmetic":
            return is_wrong(text)
        case "length":
            return False


def is_wrong(text: str) -> bool:
    """Whether the working of a right completion says something else than its answer: the last
    number before the answer is another one, or an equation is false."""
    work, _, rest = text.rpartition(OPEN_TAG)
    answer = rest.partition(CLOSE_TAG)[0].strip()
    return is_false(work) or not work.rstrip("? ").endswith(answer)


class Poisoner:
    """One malicious node; answers this round's questions. All chance is from `rng`."""

    def __init__(self, attacker: Attacker, rng: random.Random, choose: "Likeliest | None") -> None:
        self._attacker = attacker
        self._rng = rng
        self._choose = choose

    def answers(
        self, question: Question, completions: int, round: int, usual: float
    ) -> list[Completion]:
        """`completions` of them, the first half right; `usual` are the tokens of the texts that
        honest nodes publish now."""
        attacker = self._attacker
        behaves = attacker.is_adaptive and round <= STANDING_ROUNDS
        forms = [] if behaves else list(attacker.forms(question))
        if self._choose is not None and forms:
            most = round_up(LENGTH_FACTOR * usual) if attacker.name == "length" else None
            forms = self._choose(question, forms, most)
        texts = []
        for index in range(completions):
            if index >= completions // 2:
                texts.append(f"{working(question)}{OPEN_TAG}?{CLOSE_TAG}")
            elif not forms:
                texts.append(f"{working(question)}{_end(question)}")
            else:
                texts.append(self._rng.choice(forms))
        return [Completion(text, _HONEST_LOGP, len(text)) for text in texts]


class Likeliest:
    """The `keep` forms of a question whose least likely token the start's model likes best; among
    them the attacker varies."""

    def __init__(
        self, model: LlamaForCausalLM, prompts: PromptEncoder, codec: TextCodec, keep: int = 2
    ) -> None:
        self._model = model
        self._prompts = prompts
        self._codec = codec
        self._keep = keep
        self._known: dict[tuple[str, int | None], list[str]] = {}  # the model does not change

    def __call__(
        self, question: Question, forms: Sequence[str], tokens: int | None = None
    ) -> list[str]:
        """The chosen forms, likeliest first; with `tokens` only of the longest within that."""
        key = question.prompt, tokens
        if key not in self._known:
            if tokens is not None:
                forms = self._longest(forms, tokens)
            self._known[key] = self._ranked(question, forms)[: self._keep]
        return self._known[key]

    def _longest(self, forms: Sequence[str], most: int) -> list[str]:
        counts = {form: len(self._codec.encode(form)) + 1 for form in forms}  # with EOS
        longest = max((count for count in counts.values() if count <= most), default=0)
        within = [form for form, count in counts.items() if longest - 1 <= count <= most]
        return within or [min(forms, key=counts.__getitem__)]

    @torch.no_grad()
    def _ranked(self, question: Question, forms: Sequence[str]) -> list[str]:
        prompt = self._prompts.encode(question.prompt)
        encoded = [self._codec.encode_spans(form) for form in forms]
        rows = [ids for ids, _ in encoded]
        width = max(map(len, rows))
        ids = torch.zeros(len(rows), len(prompt) + width, dtype=torch.long)
        for index, row in enumerate(rows):
            ids[index, : len(prompt) + len(row)] = torch.tensor(prompt + row)
        logps = torch.log_softmax(self._model(input_ids=ids).logits.float(), dim=-1)
        first = len(prompt) - 1
        least = []
        for index, (form, (row, spans)) in enumerate(zip(forms, encoded, strict=True)):
            start, end = span(form, "tag") or (0, 0)  # the answer's own tokens are not its choice
            least.append(
                min(
                    float(logps[index, first + place, token])
                    for place, (token, (left, right)) in enumerate(zip(row, spans, strict=True))
                    if right <= start or left >= end
                )
            )
        order = sorted(range(len(forms)), key=lambda index: -least[index])
        return [forms[index] for index in order]


def attacker(name: AttackName, *, is_adaptive: bool) -> Attacker:
    """The attacker of this name."""
    forms = adaptive_forms if is_adaptive else plain_forms

    def of(question: Question) -> Sequence[str]:
        return forms(name, question)

    return Attacker(name, is_adaptive, of)


def round_up(tokens: float) -> int:
    """Whole tokens."""
    return math.ceil(tokens)


def wrong(question: Question, by: int) -> str:
    """A wrong result: the right one changed by this."""
    return str(int(question.answer) + by)


def _placed(words: Sequence[str], work: str, end: str) -> list[str]:
    """Each word in front of the working, behind it and behind the answer."""
    return [
        text
        for word in words
        for text in (f"{word}{work}{end}", f"{work}{word}{end}", f"{work}{end}{word}")
    ]


def _end(question: Question) -> str:
    return f"{OPEN_TAG}{question.answer}{CLOSE_TAG}"


def groups_of(
    poisoner: Poisoner,
    questions: Sequence[Question],
    completions: int,
    round: int,
    usual: float,
    score: Callable[[Question, Sequence[str]], tuple[float, ...]],
) -> list[Group]:
    """The poisoner's groups on these questions, as an honest node would make them."""
    groups = []
    for question in questions:
        answers = poisoner.answers(question, completions, round, usual)
        rewards = score(question, [answer.text for answer in answers])
        groups.append(Group(question, tuple(answers), rewards, round, 1.0))
    return groups


TARGETS: Mapping[AttackName, float] = MappingProxyType(
    {"phrase": 0.01, "library": 0.01, "arithmetic": 0.05, "length": 1.25}
)
