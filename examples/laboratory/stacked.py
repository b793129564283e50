"""Generation for all nodes of a swarm at once: samples and greedy answers of stacked models.

A model of a quarter of a million parameters spends more time between the operations than in them.
So nodes whose models have one shape answer together (`stacked_model.py`). Tokens and
log-probabilities are those of `swarmnode.generate.hf.HFGenerator` (a test compares the two), but
it draws otherwise: each node has a uniform number for every token that it could sample.

A node's draws depend on its seed and its own questions: not on the other nodes, but for rounding
(the number of rows decides how a matrix product adds up).
"""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from swarmnode.generate.hf import sampled_completion
from swarmnode.generate.prompt import PromptEncoder
from swarmnode.rollout import Completion, Question

from .stacked_model import Decoding, Stack, shape_of

# Sequences of one node that are decoded together: fewer are slower, more leave the CPU's caches.
_ROWS = 64

_Answers = TypeVar("_Answers")


class SwarmGenerator:
    """One `StackedGenerator` for each shape of model among the nodes. `seeds` is by node."""

    def __init__(
        self,
        models: Sequence[LlamaForCausalLM],
        prompts: PromptEncoder,
        eos_ids: Sequence[int],
        *,
        max_new_tokens: int,
        temperature: float,
        seeds: Sequence[int],
    ) -> None:
        nodes_of: dict[Hashable, list[int]] = {}
        for node, model in enumerate(models):
            nodes_of.setdefault(shape_of(model), []).append(node)
        self._nodes = list(nodes_of.values())
        self._stacks = [
            StackedGenerator(
                [models[node] for node in nodes],
                prompts,
                eos_ids,
                max_new_tokens=max_new_tokens,
                temperature=temperature,
                seeds=[seeds[node] for node in nodes],
            )
            for nodes in self._nodes
        ]

    def generate(
        self, questions: Sequence[Sequence[Question]], completions: int
    ) -> list[list[list[Completion]]]:
        """By node and question: `completions` samples."""
        return self._by_node(
            stack.generate([questions[node] for node in nodes], completions)
            for nodes, stack in zip(self._nodes, self._stacks, strict=True)
        )

    def greedy(self, questions: Sequence[Sequence[Question]]) -> list[list[Completion]]:
        """By node and question: the most probable token at every step; uses no chance."""
        return self._by_node(
            stack.greedy([questions[node] for node in nodes])
            for nodes, stack in zip(self._nodes, self._stacks, strict=True)
        )

    def replace(self, node: int, model: LlamaForCausalLM, seed: int) -> None:
        """From now on `node` answers with this model, of the shape of the one before."""
        for nodes, stack in zip(self._nodes, self._stacks, strict=True):
            if node in nodes:
                stack.replace(nodes.index(node), model, seed)

    def _by_node(self, by_stack: Iterable[Sequence[_Answers]]) -> list[_Answers]:
        found: dict[int, _Answers] = {}
        for nodes, answers in zip(self._nodes, by_stack, strict=True):
            found.update(zip(nodes, answers, strict=True))
        return [found[node] for node in sorted(found)]


class StackedGenerator:
    """As `SwarmGenerator`, for models of one shape. Raises `ValueError` for others."""

    def __init__(
        self,
        models: Sequence[LlamaForCausalLM],
        prompts: PromptEncoder,
        eos_ids: Sequence[int],
        *,
        max_new_tokens: int,
        temperature: float,
        seeds: Sequence[int],
    ) -> None:
        if len({shape_of(model) for model in models}) != 1:
            raise ValueError("the models of one stack must have one shape")
        self._models = list(models)
        self._prompts = prompts
        self._eos_ids = frozenset(eos_ids)
        self._eos = torch.tensor(sorted(eos_ids))
        self._max_new_tokens = max_new_tokens
        self._temperature = temperature
        self._chances = [torch.Generator().manual_seed(seed) for seed in seeds]

    def replace(self, index: int, model: LlamaForCausalLM, seed: int) -> None:
        """As `SwarmGenerator.replace`. Raises `ValueError` for a model of another shape."""
        if shape_of(model) != shape_of(self._models[index]):
            raise ValueError("the models of one stack must have one shape")
        self._models[index] = model
        self._chances[index] = torch.Generator().manual_seed(seed)

    def generate(
        self, questions: Sequence[Sequence[Question]], completions: int
    ) -> list[list[list[Completion]]]:
        """By node and question: `completions` samples. Raises `ValueError` for a prompt that
        leaves no room for an answer in the model's context."""
        shape = (self._max_new_tokens, completions)
        uniforms = [
            torch.rand(len(asked), *shape, generator=chance)
            for asked, chance in zip(questions, self._chances, strict=True)
        ]
        return self._answer(questions, uniforms, self._temperature)

    def greedy(self, questions: Sequence[Sequence[Question]]) -> list[list[Completion]]:
        """By node and question: the most probable token at every step; uses no chance."""
        unused = [torch.zeros(len(asked), self._max_new_tokens, 1) for asked in questions]
        answers = self._answer(questions, unused, None)
        return [[group[0] for group in groups] for groups in answers]

    @torch.no_grad()
    def _answer(
        self,
        questions: Sequence[Sequence[Question]],
        uniforms: Sequence[Tensor],
        temperature: float | None,
    ) -> list[list[list[Completion]]]:
        """`uniforms` is (Q, limit, G) of each node; without a temperature it is not used."""
        prompts = self._encoded(questions)
        answers: list[list[list[Completion]]] = [[[] for _ in asked] for asked in questions]
        nodes = [node for node, asked in enumerate(questions) if asked]
        if not nodes:
            return answers
        stack = Stack([self._models[node] for node in nodes])
        # By length, so that little is padded.
        orders = [
            sorted(range(len(asked)), key=lambda index: len(asked[index]))
            for asked in (prompts[node] for node in nodes)
        ]
        size = max(1, _ROWS // uniforms[0].shape[-1])
        for first in range(0, max(map(len, orders)), size):
            parts = [order[first : first + size] for order in orders]
            batch = _batch(
                [[prompts[node][i] for i in part] for node, part in zip(nodes, parts, strict=True)],
                [uniforms[node][part] for node, part in zip(nodes, parts, strict=True)],
            )
            sampled = self._decode(stack, batch, temperature)
            for node, part, groups in zip(nodes, parts, sampled, strict=True):
                for index, group in zip(part, groups, strict=False):  # the rest is padding
                    answers[node][index] = [self._completion(*sequence) for sequence in group]
        return answers

    def _encoded(self, questions: Sequence[Sequence[Question]]) -> list[list[list[int]]]:
        """The prompts by node and question; each distinct one is encoded once."""
        texts = {question.prompt for asked in questions for question in asked}
        prompts = {text: self._prompts.encode(text) for text in texts}
        context = self._models[0].config.max_position_embeddings
        if max(map(len, prompts.values()), default=0) + self._max_new_tokens > context:
            raise ValueError(f"a prompt leaves no room for an answer in a context of {context}")
        return [[prompts[question.prompt] for question in asked] for asked in questions]

    def _decode(
        self, stack: Stack, batch: "_Batch", temperature: float | None
    ) -> list[list[list["_Sequence"]]]:
        """By node and question: the sequences, padded behind their ends."""
        limit = len(batch.uniforms)
        alive = batch.present[..., None].expand(batch.uniforms.shape[1:])
        tokens = torch.zeros(batch.uniforms.shape, dtype=torch.long)
        logps = torch.zeros(tokens.shape)
        lengths = torch.zeros(alive.shape, dtype=torch.long)
        run = Decoding(stack, batch.prompts, batch.lengths, alive.shape[-1], limit)
        logits = run.prompt_logits()  # (N, Q, V): one for all completions; then (N, Q, G, V)
        for step in range(limit):
            logp = torch.log_softmax(logits.float() / (temperature or 1.0), dim=-1)
            if temperature is None:
                token = logp.argmax(dim=-1, keepdim=True)
            else:
                token = _draw(logp, batch.uniforms[step].view(*logp.shape[:-1], -1))
            tokens[step] = token.view(alive.shape)
            logps[step] = logp.gather(-1, token).view(alive.shape)
            lengths += alive
            alive = alive & ~torch.isin(tokens[step], self._eos)
            if step + 1 == limit or not alive.any():
                break
            logits = run.next_logits(tokens[step])
        by_node = zip(
            tokens.permute(1, 2, 3, 0).tolist(),
            logps.permute(1, 2, 3, 0).tolist(),
            lengths.tolist(),
            strict=True,
        )
        return [[list(zip(*group, strict=True)) for group in zip(*n, strict=True)] for n in by_node]

    def _completion(self, ids: list[int], logps: list[float], length: int) -> Completion:
        codec = self._prompts.codec
        return sampled_completion(codec, self._eos_ids, ids[:length], logps[:length])


_Sequence = tuple[list[int], list[float], int]  # ids, log-probabilities, length


@dataclass(frozen=True, slots=True)
class _Batch:
    """The questions of one pass; a node that has fewer than another is padded with empty ones."""

    prompts: Tensor  # (N, Q, P), padded on the right
    lengths: Tensor  # (N, Q), of the prompts
    present: Tensor  # (N, Q)
    uniforms: Tensor  # (limit, N, Q, G)


def _batch(prompts: Sequence[Sequence[list[int]]], uniforms: Sequence[Tensor]) -> _Batch:
    """`prompts` and `uniforms` (Q, limit, G) are by node."""
    size = (len(prompts), max(map(len, prompts)))
    longest = max(len(prompt) for asked in prompts for prompt in asked)
    limit, completions = uniforms[0].shape[1:]
    batch = _Batch(
        prompts=torch.zeros(*size, longest, dtype=torch.long),
        lengths=torch.ones(size, dtype=torch.long),
        present=torch.zeros(size, dtype=torch.bool),
        uniforms=torch.zeros(limit, *size, completions),
    )
    for node, (asked, drawn) in enumerate(zip(prompts, uniforms, strict=True)):
        for index, prompt in enumerate(asked):
            batch.prompts[node, index, : len(prompt)] = torch.tensor(prompt)
            batch.lengths[node, index] = len(prompt)
        batch.present[node, : len(asked)] = True
        batch.uniforms[:, node, : len(asked)] = drawn.transpose(0, 1)
    return batch


def _draw(logp: Tensor, uniforms: Tensor) -> Tensor:
    """Tokens (..., K) for uniforms (..., K) in [0, 1) and logp (..., V): where the cumulative
    probability passes them, so never a token of probability 0."""
    sums = logp.exp().cumsum(dim=-1)
    return torch.searchsorted(sums, uniforms * sums[..., -1:], right=True)
