"""Samples completions with a transformers model, in the process that trains it.

Each distinct prompt is computed once; its key-value cache is then copied to its completions,
which are decoded together. Finished sequences leave the batch when half of it is finished.

Log-probabilities are those of the distribution the tokens were drawn from, softmax(logits /
temperature), in float32: what the trainer recomputes, so that sampler and trainer differ by
rounding only. Greedy completions report temperature 1.

Prompts of different lengths are padded on the left, with a mask and explicit positions; a model
that takes no positions gets prompts of equal length only. Not supported: models that carry a
recurrent state, whose cache cannot be copied. Not done here: scoring, evaluation metrics.
"""

import inspect
import logging
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from swarmnode.errors import ConfigError, SwarmNodeError
from swarmnode.generate.cache import make_room
from swarmnode.generate.encode import TextCodec
from swarmnode.generate.generator import EngineReport
from swarmnode.generate.light import LightRun, decodes_lightly
from swarmnode.generate.prompt import PromptEncoder
from swarmnode.generate.sampling import choose
from swarmnode.rollout import Completion, Question

log = logging.getLogger(__name__)

# Padded tokens of one batch, cache included (sequences × longest). A 0.5 B-parameter model keeps
# about 12 KiB per token in bfloat16: 0.8 GiB. More runs out of memory sooner, less is slower.
MAX_BATCH_TOKENS = 65_536


@dataclass(frozen=True, slots=True)
class _Sampled:
    """One sequence as sampled, EOS included, with the log-probability of each token."""

    ids: list[int]
    logps: list[float]


class HFGenerator:
    """A `Generator` that shares its model with the trainer, so it needs no weight transfer.

    `eos_ids` end a completion. Chance comes from one `torch.Generator` of its own, on the model's
    device, seeded with `seed`. A batch that does not fit into memory is split and the limit kept.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        prompts: PromptEncoder,
        eos_ids: Sequence[int],
        *,
        max_new_tokens: int,
        temperature: float,
        seed: int,
        max_batch_tokens: int = MAX_BATCH_TOKENS,
    ) -> None:
        self._model = model
        self._prompts = prompts
        self._eos_ids = frozenset(eos_ids)
        self._eos = torch.tensor(sorted(eos_ids), device=model.device)
        self._max_new_tokens = max_new_tokens
        self._temperature = temperature
        self._max_batch_tokens = max_batch_tokens
        self._chance = torch.Generator(device=model.device).manual_seed(seed)
        self._policy_version = 0
        self._answered_version = 0
        self._begun: list[list[Completion]] | None = None
        self._is_light: bool | None = None  # measured before the first batch
        self._optional = {"position_ids", "logits_to_keep"} & set(
            inspect.signature(model.forward).parameters
        )

    @property
    def version(self) -> int:
        """The policy version that the last answers come from."""
        return self._answered_version

    def generate(self, questions: Sequence[Question], completions: int) -> list[list[Completion]]:
        """`completions` samples per question. Raises `SwarmNodeError` if one alone does not fit
        into memory, `ConfigError` if a prompt does not fit into the model's context."""
        self._answered_version = self._policy_version
        return self._answer(questions, completions, self._temperature)

    def begin(self, questions: Sequence[Question], completions: int) -> None:
        """Generates at once: the weights may change as soon as this returns."""
        self._begun = self.generate(questions, completions)

    def finish(self) -> list[list[Completion]]:
        """What `begin` generated."""
        answers, self._begun = self._begun, None
        if answers is None:
            raise ValueError("nothing was begun")
        return answers

    def greedy(self, questions: Sequence[Question]) -> list[Completion]:
        """One completion per question, the most probable token at every step; uses no chance."""
        return [group[0] for group in self._answer(questions, 1, None)]

    def update(self, policy_version: int) -> None:
        """Notes the version: the trainer changes the weights in place."""
        self._policy_version = policy_version

    def rest(self) -> None:
        """Nothing to do: it keeps no memory."""

    def report(self) -> EngineReport:
        """See `Generator`."""
        return EngineReport("hf")

    def close(self) -> None:
        """Nothing to do: it started nothing."""

    def state(self) -> bytes:
        """The state of the random generator (about 5 kB on a CPU, 16 bytes on a GPU)."""
        return bytes(self._chance.get_state().tolist())

    def restore(self, state: bytes) -> None:
        """Continues where `state` was taken, on the same kind of device. After a run with another
        engine chance begins at its seed."""
        if len(state) == len(self._chance.get_state()):
            self._chance.set_state(torch.tensor(list(state), dtype=torch.uint8))
        else:
            log.info("the run's chance was another engine's: this one's begins anew")

    def _answer(
        self, questions: Sequence[Question], completions: int, temperature: float | None
    ) -> list[list[Completion]]:
        prompts = [self._prompts.encode(question.prompt) for question in questions]
        answers: list[list[Completion]] = [[] for _ in questions]
        # One entry per sequence. Neighbours have similar lengths, so little is padded.
        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
        pending = [index for index in order for _ in range(completions)]
        with _evaluating(self._model):
            while pending:
                size = self._fitting(prompts, pending)
                batch = pending[:size]
                before = self._chance.get_state()
                try:
                    sampled = self._decode([prompts[index] for index in batch], temperature)
                except torch.OutOfMemoryError as error:
                    if size == 1:
                        raise SwarmNodeError(
                            "one completion alone does not fit into the device's memory; "
                            "lower generate.max_new_tokens or use a smaller model"
                        ) from error
                    self._chance.set_state(before)
                    self._max_batch_tokens = size * self._room(prompts[batch[-1]]) // 2
                    continue
                for index, one in zip(batch, sampled, strict=True):
                    answers[index].append(
                        sampled_completion(self._prompts.codec, self._eos_ids, one.ids, one.logps)
                    )
                pending = pending[size:]
        return answers

    def _fitting(self, prompts: Sequence[list[int]], pending: Sequence[int]) -> int:
        """How many of the pending sequences go into the next batch: at least one."""
        for size, index in enumerate(pending):
            fits = (size + 1) * self._room(prompts[index]) <= self._max_batch_tokens
            equal = len(prompts[index]) == len(prompts[pending[0]])
            if size and not (fits and (equal or "position_ids" in self._optional)):
                return size
        return len(pending)

    def _room(self, prompt: list[int]) -> int:
        return len(prompt) + self._max_new_tokens

    def _limit(self, longest: int) -> int:
        """How many tokens a batch may sample, so that the longest stays within the context."""
        context = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        if context is None:
            return self._max_new_tokens
        limit = min(self._max_new_tokens, int(context) - longest)
        if limit < 1:
            raise ConfigError(
                f"a prompt of {longest} tokens does not fit into the model's context of {context}; "
                "use a model with a longer context or tasks with shorter questions"
            )
        return limit

    def _decode(self, prompts: Sequence[list[int]], temperature: float | None) -> list[_Sampled]:
        """Samples one completion for each entry; equal neighbours share their prompt's pass."""
        limit = self._limit(max(len(prompt) for prompt in prompts))
        run = self._start(prompts, limit)
        tokens = torch.zeros(len(prompts), limit, dtype=torch.long, device=self._model.device)
        logps = torch.zeros(len(prompts), limit, device=self._model.device)
        lengths = torch.full((len(prompts),), limit, device=self._model.device)
        for step in range(limit):
            token, logp = choose(run.logits, temperature, self._chance)
            # Finished rows write behind their end, where nothing is read.
            tokens[run.rows, step] = token
            logps[run.rows, step] = logp.to(logps.dtype)
            if step + 1 == limit:
                break
            if len(self._eos):
                ended = run.alive & torch.isin(token, self._eos)
                lengths[run.rows[ended]] = step + 1
                run.alive = run.alive & ~ended
                going = int(run.alive.sum())
                if going == 0:
                    break
                if 2 * going <= len(token):  # copying the cache pays once half of it is dead
                    token = token[run.shrink()]
            run.forward(token)
        return [
            _Sampled(ids[:length], row[:length])
            for ids, row, length in zip(
                tokens.tolist(), logps.tolist(), lengths.tolist(), strict=True
            )
        ]

    def _start(self, prompts: Sequence[list[int]], limit: int) -> "LightRun | _Run":
        """Computes each distinct prompt once, and makes its sequences ready to be decoded."""
        if self._is_light is None:
            self._is_light = decodes_lightly(self._model)
        distinct = {prompt: row for row, prompt in enumerate(dict.fromkeys(map(tuple, prompts)))}
        owners = [distinct[tuple(prompt)] for prompt in prompts]
        start = _Prompts.compute(self._model, self._optional, list(distinct), limit)
        if self._is_light:
            lengths = torch.tensor([len(prompt) for prompt in distinct])
            return LightRun(self._model, start.cache, start.logits, lengths, owners, limit)
        return _Run.start(self._model, self._optional, start, owners, limit)


def sampled_completion(
    codec: TextCodec, eos_ids: Set[int], ids: Sequence[int], logps: Sequence[float]
) -> Completion:
    """What was sampled, EOS included if it came, as a completion."""
    ended = ids[-1] in eos_ids
    return Completion(
        text=codec.decode(ids[:-1] if ended else ids),
        mean_logp=sum(logps) / len(logps),
        token_count=len(ids),
        token_ids=tuple(ids),
        logps=tuple(logps),
        ended=ended,
    )


@dataclass(frozen=True)
class _Prompts:
    """The distinct prompts of a batch after their pass, padded on the left."""

    cache: Any
    logits: Tensor  # (P, V), of the first token to sample
    mask: Tensor  # (P, longest + limit), 0 on the padding, else 1
    positions: Tensor  # (P, longest)

    @staticmethod
    def compute(
        model: PreTrainedModel, optional: Set[str], prompts: Sequence[tuple[int, ...]], limit: int
    ) -> "_Prompts":
        width = max(len(prompt) for prompt in prompts)
        ids = torch.zeros(len(prompts), width, dtype=torch.long)
        mask = torch.ones(len(prompts), width + limit, dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, : width - len(prompt)] = 0
        ids, mask = ids.to(model.device), mask.to(model.device)
        positions = (mask[:, :width].cumsum(dim=1) - 1).clamp(min=0)
        output = _forward(model, optional, ids, mask[:, :width], positions, None)
        return _Prompts(output.past_key_values, output.logits[:, -1], mask, positions)


@dataclass
class _Run:
    """The sequences of one batch that are still decoded. `rows` maps them to the batch's entries;
    a row that is not `alive` is computed along until `shrink`."""

    model: PreTrainedModel
    optional: Set[str]  # which of the arguments that not every model takes this one does
    cache: Any
    logits: Tensor  # (rows, V), of the next token
    mask: Tensor  # (rows, longest prompt + limit), 0 on the padding, else 1
    position: Tensor  # (rows,), of the last token computed
    rows: Tensor
    alive: Tensor
    width: int  # columns of the mask that are computed

    @staticmethod
    def start(
        model: PreTrainedModel,
        optional: Set[str],
        prompts: "_Prompts",
        owners: Sequence[int],
        limit: int,
    ) -> "_Run":
        """Copies the prompts' cache to the sequences: number b continues prompt `owners[b]`."""
        copies = torch.tensor(owners, device=model.device)
        make_room(prompts.cache, copies, limit)
        return _Run(
            model=model,
            optional=optional,
            cache=prompts.cache,
            logits=prompts.logits[copies],
            mask=prompts.mask[copies],
            position=prompts.positions[copies, -1],
            rows=torch.arange(len(owners), device=model.device),
            alive=torch.ones(len(owners), dtype=torch.bool, device=model.device),
            width=prompts.positions.shape[1],
        )

    def shrink(self) -> Tensor:
        """Drops the finished sequences; returns which rows remain."""
        keep = self.alive.nonzero()[:, 0]
        self.cache.batch_select_indices(keep)
        self.mask, self.position, self.rows = self.mask[keep], self.position[keep], self.rows[keep]
        self.alive = self.alive[keep]
        return keep

    def forward(self, token: Tensor) -> None:
        """Appends one token to every row."""
        self.width += 1
        self.position = self.position + 1
        mask, positions = self.mask[:, : self.width], self.position[:, None]
        output = _forward(self.model, self.optional, token[:, None], mask, positions, self.cache)
        self.cache, self.logits = output.past_key_values, output.logits[:, -1]


def _forward(
    model: PreTrainedModel,
    optional: Set[str],
    ids: Tensor,
    mask: Tensor,
    positions: Tensor,
    cache: Any,
) -> Any:
    arguments = {"position_ids": positions, "logits_to_keep": 1}
    return model(
        input_ids=ids,
        attention_mask=mask,
        past_key_values=cache,
        use_cache=True,
        **{name: value for name, value in arguments.items() if name in optional},
    )


@contextmanager
def _evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Dropout off and no gradients, then the model's mode as it was.

    Not `inference_mode`: buffers that a model creates in there could not be trained with later.
    """
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)
