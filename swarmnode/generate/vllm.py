"""Samples completions with an engine in a process of its own, which may die without harm.

The engine's weights are a copy: they are handed over before the first request after an optimiser
step, and again whenever the engine was restarted or has slept. So the trainer may change its own
while the engine answers (`begin` … `finish`), and every answer carries the version it came from.

An engine that fails is killed, started again after a pause that doubles, given the weights and
asked the same again, with the same seeds. After `max_failures` in a row (no answer between them)
it is given up: a warning says so, and transformers answers in its place from then on.

Chance is a number per completion, derived from `seed` and counted up: a checkpoint keeps the count.

Where this differs from `hf.py`: near the end of the model's context a completion is cut by its own
prompt's length, not by the longest of its batch. Temperatures below 0.01 are raised to it (vLLM).
"""

import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

from swarmnode.errors import ConfigError
from swarmnode.generate.engine import Batch, Engine, EngineFailed, Request, Sampled
from swarmnode.generate.generator import EngineReport, Generator
from swarmnode.generate.hf import sampled_completion
from swarmnode.generate.prompt import PromptEncoder
from swarmnode.rollout import Completion, Question

log = logging.getLogger(__name__)

# Doubled with each further failure: 1 + 2 + 4 s before the fourth attempt.
_FIRST_PAUSE_S = 1.0
# Room for prompts that an engine starts with; a longer one restarts it with twice as much. More
# costs key-value cache, which must hold one sequence of full length.
_PROMPT_TOKENS = 1024
_STATE = b"vllm"


@dataclass(slots=True)
class _Begun:
    """Questions that were asked and not collected yet."""

    questions: Sequence[Question]
    completions: int
    batch: Batch
    is_sent: bool
    answers: Sequence[Sampled] | None = None
    version: int = 0


class VLLMGenerator:
    """A `Generator`. `weights` yields the policy's tensors by the names of its checkpoint;
    `context` is the most tokens the model takes, None: no limit.

    `shares_device`: the engine sleeps while the trainer works. `fallback` answers once the engine
    is given up.
    """

    def __init__(
        self,
        engine: Engine,
        weights: Callable[[], Iterable[tuple[str, Tensor]]],
        prompts: PromptEncoder,
        eos_ids: Sequence[int],
        fallback: Generator,
        *,
        context: int | None,
        max_new_tokens: int,
        temperature: float,
        seed: int,
        shares_device: bool = False,
        max_failures: int = 3,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._engine = engine
        self._weights = weights
        self._prompts = prompts
        self._eos_ids = frozenset(eos_ids)
        self._fallback = fallback
        self._context = context
        self._max_new_tokens = max_new_tokens
        self._temperature = temperature
        self._seed = seed
        self._shares_device = shares_device
        self._max_failures = max_failures
        self._pause = pause
        self._asked = 0  # completions so far, the number of the next one's seed
        self._policy_version = 0
        self._answered_version = 0
        self._loaded_version: int | None = None  # None: the engine's weights are not the policy's
        self._room = 0  # tokens of one sequence that the engine was started for
        self._sleeps = False
        self._failures = 0  # in a row
        self._starts = 0
        self._is_given_up = False
        self._handover_s: float | None = None
        self._begun: _Begun | None = None

    @property
    def version(self) -> int:
        """See `Generator`."""
        return self._answered_version

    @property
    def engine_pid(self) -> int | None:
        """The engine's process, where it has one and that runs: for tests and benchmarks."""
        return self._engine.pid

    def generate(self, questions: Sequence[Question], completions: int) -> list[list[Completion]]:
        """See `Generator`. Raises `ConfigError` if a prompt does not fit into the context."""
        self.begin(questions, completions)
        return self.finish()

    def begin(self, questions: Sequence[Question], completions: int) -> None:
        """See `Generator`; weights are handed over before this returns."""
        batch = self._batch(questions, completions, self._temperature)
        begun = _Begun(questions, completions, batch, is_sent=False)
        if not self._is_given_up:
            try:
                self._send(batch)
                begun.is_sent = True
            except EngineFailed as error:
                self._note_failure(error)  # `finish` tries again
        begun.version = self._loaded_version or 0
        self._begun = begun

    def finish(self) -> list[list[Completion]]:
        """See `Generator`. Of weights newer than at `begin` only where the engine failed."""
        begun, self._begun = self._begun, None
        if begun is None:
            raise ValueError("nothing was begun")
        self._collect(begun)
        if begun.answers is None:
            return self._fall_back(begun)
        self._answered_version = begun.version
        groups: list[list[Completion]] = [[] for _ in begun.questions]
        for place, one in enumerate(begun.answers):
            groups[place // begun.completions].append(self._completion(one))
        return groups

    def greedy(self, questions: Sequence[Question]) -> list[Completion]:
        """See `Generator`. Uses no chance. Waits for what was begun."""
        if self._begun is not None:
            self._collect(self._begun)
        batch = self._batch(questions, 1, None)
        asked = _Begun(questions, 1, batch, is_sent=False)
        self._collect(asked)
        if asked.answers is None:
            return self._fallback.greedy(questions)
        return [self._completion(one) for one in asked.answers]

    def update(self, policy_version: int) -> None:
        """Notes that the weights have changed; they are handed over when they are needed."""
        self._policy_version = policy_version
        self._fallback.update(policy_version)

    def rest(self) -> None:
        """See `Generator`."""
        if not self._shares_device or not self._engine.runs or self._begun is not None:
            return
        if self._sleeps:
            return
        try:
            self._engine.sleep()
        except EngineFailed as error:
            self._note_failure(error)
            return
        self._sleeps, self._loaded_version = True, None

    def report(self) -> EngineReport:
        """See `Generator`."""
        return EngineReport(
            "hf" if self._is_given_up else "vllm",
            self._is_given_up,
            max(0, self._starts - 1),
            self._handover_s,
        )

    def state(self) -> bytes:
        """Twelve bytes: how many completions were asked for."""
        return _STATE + self._asked.to_bytes(8, "big")

    def restore(self, state: bytes) -> None:
        """See `Generator`. After a run with another engine the count begins at 0."""
        if state.startswith(_STATE) and len(state) == len(_STATE) + 8:
            self._asked = int.from_bytes(state[len(_STATE) :], "big")
        else:
            log.info("the run's chance was another engine's: this one's begins anew")

    def close(self) -> None:
        """See `Generator`."""
        self._begun = None
        self._engine.close()
        self._fallback.close()

    # --- asking ---

    def _batch(
        self, questions: Sequence[Question], completions: int, temperature: float | None
    ) -> Batch:
        requests = []
        for question in questions:
            prompt = tuple(self._prompts.encode(question.prompt))
            limit = self._limit(len(prompt))
            for _ in range(completions):
                requests.append(Request(prompt, self._next_seed(temperature), limit))
        return Batch(tuple(requests), temperature)

    def _next_seed(self, temperature: float | None) -> int:
        if temperature is None:
            return 0
        number = self._asked.to_bytes(8, "big") + self._seed.to_bytes(32, "big")
        self._asked += 1
        return int.from_bytes(hashlib.sha256(number).digest()[:6], "big")

    def _limit(self, prompt_tokens: int) -> int:
        if self._context is None:
            return self._max_new_tokens
        limit = min(self._max_new_tokens, self._context - prompt_tokens)
        if limit < 1:
            raise ConfigError(
                f"a prompt of {prompt_tokens} tokens does not fit into the model's context of "
                f"{self._context}; use a model with a longer context or tasks with shorter "
                "questions"
            )
        return limit

    def _send(self, batch: Batch) -> None:
        """Brings the engine to the policy's weights and asks. Raises `EngineFailed`."""
        longest = max((len(one.prompt) + one.max_new_tokens for one in batch.requests), default=0)
        if not self._engine.runs or longest > self._room:
            self._start(longest)
        if self._sleeps:
            self._engine.wake()
            self._sleeps = False
        if self._loaded_version != self._policy_version:
            self._hand_over()
        self._engine.send(batch)

    def _start(self, longest: int) -> None:
        room = max(self._room, _PROMPT_TOKENS + self._max_new_tokens)
        while room < longest:
            room *= 2
        if self._context is not None:
            room = min(room, self._context)
        self._room, self._sleeps, self._loaded_version = room, False, None
        self._starts += 1
        started = time.perf_counter()
        self._engine.start(room)
        log.info("engine started context=%d seconds=%.1f", room, time.perf_counter() - started)

    def _hand_over(self) -> None:
        started = time.perf_counter()
        self._loaded_version = None
        self._engine.load(self._weights(), self._policy_version)
        self._loaded_version = self._policy_version
        self._handover_s = time.perf_counter() - started

    def _collect(self, begun: _Begun) -> None:
        """Waits for the answers, asking again as often as the engine may fail; none are there
        when it is given up."""
        while begun.answers is None and not self._is_given_up:
            try:
                if not begun.is_sent:
                    self._send(begun.batch)
                    begun.is_sent, begun.version = True, self._policy_version
                begun.answers = self._engine.receive()
                self._failures = 0
            except EngineFailed as error:
                begun.is_sent = False
                self._note_failure(error)

    def _note_failure(self, error: EngineFailed) -> None:
        """Counts, and pauses before the next attempt or gives the engine up."""
        self._engine.kill()
        self._loaded_version = None
        self._failures += 1
        if self._failures > self._max_failures:
            self._is_given_up = True
            log.warning(
                "engine given up after %d failures in a row, transformers generates from now on: "
                "slower; restart the node to try again. error=%s",
                self._failures, error,
            )  # fmt: skip
            return
        pause_s = _FIRST_PAUSE_S * 2 ** (self._failures - 1)
        log.warning("engine failed, next start in %g s error=%s", pause_s, error)
        self._pause(pause_s)

    def _fall_back(self, begun: _Begun) -> list[list[Completion]]:
        self._answered_version = self._policy_version
        return self._fallback.generate(begun.questions, begun.completions)

    def _completion(self, one: Sampled) -> Completion:
        return sampled_completion(self._prompts.codec, self._eos_ids, one.ids, one.logps)
