"""Samples packed into right-padded micro-batches under a budget of padded tokens.

The split is only about memory: losses are summed and divided by the token count of the whole
step, so the gradient does not depend on it. Right padding with default positions gives a token
the same log-probability alone and in a batch. It does not tokenise and it truncates nothing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Sample:
    """One completion to train on, in this node's own token ids.

    `completion_ids` carries the EOS when the completion ended by it; every token in it is trained.
    `sampler_logps` are the sampler's log-probabilities of exactly these tokens in nats (own
    completions only). `sampler_mean_logp` is a peer's mean per token *of the peer's tokenizer*, as
    it says. Both serve the report; `dppo_tv`, `topr` and `decoupled` use them in the loss too.
    """

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    advantage: float
    external: bool
    sampler_logps: tuple[float, ...] | None = None
    sampler_mean_logp: float | None = None
    # Of a peer's completion: which tokens are of its verified answer. None: all are as good.
    verified: tuple[bool, ...] | None = None

    def __post_init__(self) -> None:
        if not self.prompt_ids or not self.completion_ids:
            raise ValueError("a sample has at least one prompt and one completion token")
        if self.verified is not None and len(self.verified) != len(self.completion_ids):
            raise ValueError(
                f"{len(self.verified)} marks for {len(self.completion_ids)} completion tokens"
            )
        if self.sampler_logps is not None and len(self.sampler_logps) != len(self.completion_ids):
            raise ValueError(
                f"{len(self.sampler_logps)} sampler log-probabilities "
                f"for {len(self.completion_ids)} completion tokens"
            )

    @property
    def length(self) -> int:
        """Prompt and completion tokens together."""
        return len(self.prompt_ids) + len(self.completion_ids)


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Tensors of one forward and backward pass; every one is on the same device."""

    sample_indices: tuple[int, ...]  # row → place in the step's list of samples
    completion_lengths: tuple[int, ...]  # trained tokens of each row
    input_ids: Tensor  # (B, T) int64, right-padded
    attention_mask: Tensor  # (B, T) int64, 1 on prompt and completion
    completion_mask: Tensor  # (B, T) bool, true on completion tokens, the ones that are trained
    token_rows: Tensor  # (N,) int64, row of each completion token
    advantages: Tensor  # (B,) float32
    external: Tensor  # (B,) bool
    sampler_logps: Tensor  # (N,) float32, NaN where unknown
    sampler_mean_logps: Tensor  # (B,) float32, NaN where unknown
    verified: Tensor  # (N,) bool, true where nothing is said against imitating the token


def split(lengths: Sequence[int], budget_tokens: int) -> list[tuple[int, ...]]:
    """Indices of `lengths` in groups whose padded size (rows × longest) is within the budget.

    Longest first, so rows of like length share a group and running out of memory shows in the
    first pass. A sequence longer than the budget is a group of its own. Ties keep their order.
    """
    groups: list[tuple[int, ...]] = []
    rows: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if rows and lengths[rows[0]] * (len(rows) + 1) > budget_tokens:
            groups.append(tuple(rows))
            rows = []
        rows.append(index)
    if rows:
        groups.append(tuple(rows))
    return groups


def pack(
    samples: Sequence[Sample],
    indices: Sequence[int],
    pad_token_id: int,
    device: torch.device,
) -> MicroBatch:
    """The micro-batch of `samples[i]` for i in `indices`, in that order."""
    chosen = [samples[i] for i in indices]
    shape = (len(chosen), max(s.length for s in chosen))
    # Filled on the CPU and copied once: row-wise writes to a GPU would each be a launch.
    input_ids = torch.full(shape, pad_token_id, dtype=torch.int64)
    attention_mask = torch.zeros(shape, dtype=torch.int64)
    completion_mask = torch.zeros(shape, dtype=torch.bool)
    sampler_logps: list[float] = []
    for row, s in enumerate(chosen):
        input_ids[row, : s.length] = torch.tensor(s.prompt_ids + s.completion_ids)
        attention_mask[row, : s.length] = 1
        completion_mask[row, len(s.prompt_ids) : s.length] = True
        sampler_logps.extend(s.sampler_logps or (math.nan,) * len(s.completion_ids))
    verified: list[bool] = []
    for s in chosen:
        verified.extend(s.verified or (True,) * len(s.completion_ids))
    means = [math.nan if s.sampler_mean_logp is None else s.sampler_mean_logp for s in chosen]
    counts = tuple(len(s.completion_ids) for s in chosen)
    rows = torch.repeat_interleave(torch.arange(len(chosen)), torch.tensor(counts))
    return MicroBatch(
        sample_indices=tuple(indices),
        completion_lengths=counts,
        input_ids=input_ids.to(device),
        attention_mask=attention_mask.to(device),
        completion_mask=completion_mask.to(device),
        token_rows=rows.to(device),
        advantages=torch.tensor([s.advantage for s in chosen], dtype=torch.float32).to(device),
        external=torch.tensor([s.external for s in chosen]).to(device),
        sampler_logps=torch.tensor(sampler_logps, dtype=torch.float32).to(device),
        sampler_mean_logps=torch.tensor(means, dtype=torch.float32).to(device),
        verified=torch.tensor(verified, dtype=torch.bool).to(device),
    )
