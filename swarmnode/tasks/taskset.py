"""What a node asks questions from: the tasks of one swarm, opened.

A question is a pure function of (task, seed), the same on every node with the same digest. Which
prompts are held out is decided by their hash alone, so no seed of anyone can turn a held-out
prompt into a trained one.
"""

import hashlib
import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from swarmnode.errors import ConfigError
from swarmnode.rollout import Question
from swarmnode.tasks import rows
from swarmnode.tasks.answer import AnswerFormat
from swarmnode.tasks.source import Source

# Seeds looked at per held-out question asked for, times one over the held-out ratio: prompts of
# small configurations repeat, and a search for more than exist must end.
SEARCH_FACTOR: Final = 20
# Seeds that `open` looks at for a question that may be trained on.
_SAMPLED: Final = 256


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """One task of a manifest. `source` is `reasoning_gym:<data set>`, `jsonl:<path>` or
    `hf:<data set>@<commit>:<split>`; `weight` is its share of the questions."""

    name: str
    source: str
    options: Mapping[str, Any] = field(default_factory=dict)
    weight: float = 1.0


class TaskSet:
    """The tasks of one swarm. `digest` hashes a task's canonical bytes to its 4-byte digest
    (`protocol.names.task_digest`)."""

    def __init__(
        self,
        specs: Sequence[TaskSpec],
        held_out_ratio: float,
        answer_format: AnswerFormat,
        digest: Callable[[bytes], bytes],
    ) -> None:
        self.names = tuple(spec.name for spec in specs)
        self._specs = tuple(specs)
        self._held_out_thousandths = round(held_out_ratio * 1000)
        self._answer_format = answer_format
        self._hash = digest
        self._sources: dict[str, Source] = {}
        self._digests: dict[str, bytes] = {}
        self._held_out: dict[tuple[str, int], list[Question]] = {}

    def open(self) -> None:
        """Loads word lists and data files. Raises `ConfigError`, naming the task, for whatever is
        wrong with it."""
        if len(set(self.names)) != len(self.names):
            raise ConfigError("two tasks have the same name; every name must occur once")
        for spec in self._specs:
            source = _open_source(spec)
            self._sources[spec.name] = source
            self._digests[spec.name] = self._hash(self._canonical(spec, source))
            seeds = itertools.islice(source.evaluation_seeds(), _SAMPLED)
            if all(self._is_held_out(source, source.draft(seed).prompt) for seed in seeds):
                raise ConfigError(
                    f"task {spec.name}: all its questions fall into the held-out split"
                )

    def digest(self, name: str) -> bytes:
        """The 4 bytes that name this task with its options, data, generator and split."""
        return self._digests[name]

    def question(self, name: str, seed: int) -> Question:
        """The question of generator seed `seed`, 0 to 2**32 − 1. A `held_out` one is for
        evaluation: draw another to train on or to publish, refuse a peer's."""
        source = self._sources[name]
        draft = source.draft(seed)
        return Question(
            task=name,
            digest=self._digests[name],
            seed=seed,
            prompt=draft.prompt,
            answer=draft.answer,
            held_out=self._is_held_out(source, draft.prompt),
            metadata=draft.metadata,
        )

    def held_out(self, name: str, count: int) -> list[Question]:
        """The first `count` held-out questions with distinct prompts, the same at every call;
        fewer if a bounded search finds no more."""
        if (name, count) not in self._held_out:
            self._held_out[name, count] = self._found_held_out(name, count)
        return list(self._held_out[name, count])

    def _found_held_out(self, name: str, count: int) -> list[Question]:
        found: dict[str, Question] = {}
        limit = count * SEARCH_FACTOR * 1000 // max(self._held_out_thousandths, 1)
        for seed in itertools.islice(self._sources[name].evaluation_seeds(), limit):
            if len(found) == count:
                break
            question = self.question(name, seed)
            if question.held_out:
                found.setdefault(question.prompt, question)
        return list(found.values())

    def _is_held_out(self, source: Source, prompt: str) -> bool:
        # A lone surrogate is not in a prompt: both kinds of source read valid UTF-8.
        text = b"swarmnode/split\0" + source.collection.encode() + b"\0" + prompt.encode()
        number = int.from_bytes(hashlib.sha256(text).digest()[:8], "big")
        return number % 1000 < self._held_out_thousandths

    def _canonical(self, spec: TaskSpec, source: Source) -> bytes:
        """What two nodes must share to make and score this task alike, as JSON in one spelling."""
        shared = {
            "answer_format": self._answer_format,
            "held_out_thousandths": self._held_out_thousandths,
            "name": spec.name,
            "options": dict(spec.options),
            "source": dict(source.identity),
        }
        return json.dumps(shared, sort_keys=True, separators=(",", ":")).encode()


def best_constant(questions: Sequence[Question]) -> float:
    """The accuracy of always giving the one best answer, per task, averaged over the tasks: what
    a model that reads nothing can reach. Raises `ValueError` without questions."""
    if not questions:
        raise ValueError("no questions to take the best constant answer of")
    answers: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for question in questions:
        answers[question.task][question.answer] += 1
    return sum(max(c.values()) / c.total() for c in answers.values()) / len(answers)


def _open_source(spec: TaskSpec) -> Source:
    kind, _, rest = spec.source.partition(":")
    if kind == "reasoning_gym":
        from swarmnode.tasks import gym  # it imports sympy and matplotlib: 1.2 s

        return gym.open_gym(spec.name, rest, spec.options)
    if kind == "jsonl":
        return rows.open_jsonl(spec.name, Path(rest), spec.options)
    if kind == "hf":
        return rows.open_hub(spec.name, rest, spec.options)
    raise ConfigError(
        f"task {spec.name}: unknown source {spec.source!r}; it must be reasoning_gym:<data set>, "
        "jsonl:<path> or hf:<data set>@<commit>:<split>"
    )
