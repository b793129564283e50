"""One round's update of the policy: samples in, optimiser step taken or refused, report out.

The flow of `Trainer.step`: samples → micro-batches → log-probabilities → loss → gradients summed
over the step → one AdamW step per epoch. The loss is normalised by the completion tokens of the
whole step, so it does not depend on how memory forced the samples to be split.

The model is trained in evaluation mode (no dropout: the sampler had none) and in the dtype it was
loaded in, without autocast; weights below float32 have float32 masters (`optimizer.py`). It does
not choose samples, compute advantages or touch the disk.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from swarmnode.config import TrainSettings
from swarmnode.errors import SwarmNodeError
from swarmnode.train.batch import MicroBatch, Sample, pack, split
from swarmnode.train.logprob import Shortcuts, completion_logps, measure
from swarmnode.train.loss import clipped_surrogate
from swarmnode.train.optimizer import MasterAdamW


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one call of `Trainer.step` did. None: not measured, or not a finite number.

    `loss`, `entropy`, `kl_own` and `kl_external` are of the first epoch, that is of the policy
    before the step; `clip_ratio` is the share of tokens whose gradient the clip stopped, over all
    epochs; `grad_norm` is before clipping, the largest of the epochs. Logarithms are natural.
    """

    loss: float | None
    grad_norm: float | None
    entropy: float | None  # mean per completion token
    clip_ratio: float | None
    # Mean of sampler log p − our log p over own tokens that carry the sampler's: the k1 estimate
    # of KL(sampler ‖ policy), that is staleness plus the mismatch of the generation engine.
    kl_own: float | None
    # Mean over peers' completions of sampler's mean log p − our mean log p, each per token of its
    # own tokenizer: how far the peer's model is from ours, exact only for equal tokenizers.
    kl_external: float | None
    tokens_own: int  # completion tokens in the samples, each counted once
    tokens_external: int
    samples: int
    micro_batches: int  # forward and backward passes, over all epochs
    optimizer_steps: int  # taken: equals the epochs unless skipped
    skipped: Literal["no-samples", "non-finite"] | None


@dataclass(frozen=True, slots=True)
class TrainerState:
    """What a checkpoint needs to resume exactly. Tensors are live, not copies."""

    model: Mapping[str, Tensor]  # by parameter name; tied weights once
    optimizer: Mapping[str, Tensor]
    policy_version: int


class Trainer:
    """Owns the optimiser of `model`, whose parameters it changes in place.

    `temperature` is the one own completions are sampled at. `policy_version` counts the optimiser
    steps taken.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: TrainSettings,
        pad_token_id: int,
        temperature: float = 1.0,
    ) -> None:
        self.policy_version = 0
        self._model = model
        self._settings = settings
        self._pad_token_id = pad_token_id
        self._temperature = temperature
        self._optimizer = MasterAdamW(model, settings)
        self._micro_batch_tokens = settings.micro_batch_tokens
        self._shortcuts: Shortcuts | None = None  # measured in the first pass

    def step(self, samples: Sequence[Sample]) -> StepReport:
        """Trains once on `samples` and reports; leaves the model in evaluation mode.

        No samples: nothing is done. A loss or gradient that is not finite: that optimiser step
        and the following epochs are not taken, weights and moments stay as they were. Out of
        memory: tried again with micro-batches of half the size, which later steps keep; raises
        `SwarmNodeError` when a single sample does not fit.
        """
        self._model.eval()
        old_logps: dict[int, Tensor] = {}  # sample → (its tokens,), the policy before the step
        passes: list[_Pass] = []
        for _ in range(self._settings.epochs if samples else 0):
            totals = self._accumulate_within_memory(samples, old_logps, first=not passes)
            grad_norm = self._optimizer.step() if math.isfinite(totals.loss) else None
            passes.append(_Pass(totals, grad_norm))
            if grad_norm is None:
                self._optimizer.clear_gradients()
                break
            self.policy_version += 1
        return _report(samples, passes)

    def state(self) -> TrainerState:
        """Everything `load_state` needs to continue bit for bit."""
        return TrainerState(
            model=_persistent_tensors(self._model),
            optimizer=self._optimizer.state(),
            policy_version=self.policy_version,
        )

    def load_state(self, state: TrainerState) -> None:
        """Takes over another trainer's state by copy.

        Raises `SwarmNodeError`, with the model unchanged, when it is of another model or dtype.
        """
        own = _persistent_tensors(self._model)
        for name in sorted(own.keys() | state.model.keys()):
            if _kind(own.get(name)) != _kind(state.model.get(name)):
                raise SwarmNodeError(
                    f"the checkpoint is of another model: {name} is {_kind(state.model.get(name))} "
                    f"there and {_kind(own.get(name))} here"
                )
        self._optimizer.load_state(state.optimizer)
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(state.model[name])
        self.policy_version = state.policy_version

    def _accumulate_within_memory(
        self, samples: Sequence[Sample], old_logps: dict[int, Tensor], *, first: bool
    ) -> "_Totals":
        """`_accumulate`, again with half the micro-batch as long as the device runs out."""
        longest = max(s.length for s in samples)
        while True:
            try:
                return self._accumulate(samples, old_logps, first=first)
            except torch.OutOfMemoryError as error:
                self._optimizer.clear_gradients()
                if self._micro_batch_tokens <= longest:
                    raise SwarmNodeError(
                        f"out of memory on one sample of {longest} tokens: lower "
                        "generate.max_new_tokens or use a smaller model"
                    ) from error
                largest = min(self._micro_batch_tokens, longest * len(samples))
                self._micro_batch_tokens = max(longest, largest // 2)
            # Only here: inside the handler the traceback still holds the failed pass's tensors.
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _accumulate(
        self, samples: Sequence[Sample], old_logps: dict[int, Tensor], *, first: bool
    ) -> "_Totals":
        """Adds the gradients of the whole step up. The first pass fills `old_logps`."""
        settings = self._settings
        self._optimizer.clear_gradients()  # what an interrupted step may have left
        device = next(self._model.parameters()).device
        if self._shortcuts is None:
            self._shortcuts = measure(self._model)
        step_tokens = sum(len(s.completion_ids) for s in samples)
        sums: list[Tensor] = []
        for indices in split([s.length for s in samples], self._micro_batch_tokens):
            batch = pack(samples, indices, self._pad_token_id, device)
            tokens = completion_logps(
                self._model,
                batch.input_ids,
                batch.attention_mask,
                batch.completion_mask,
                shortcuts=self._shortcuts,
                temperature=self._temperature,
            )
            logps = tokens.logps.detach()
            if first:
                counts = [len(samples[i].completion_ids) for i in indices]
                old_logps.update(zip(indices, torch.split(logps, counts), strict=True))
            terms = clipped_surrogate(
                tokens.logps,
                torch.cat([old_logps[i] for i in indices]),
                batch.advantages[batch.token_rows],
                step_tokens=step_tokens,
                clip_low=settings.clip_low,
                clip_high=settings.clip_high,
            )
            torch.autograd.backward(terms.loss)
            self._optimizer.collect_gradients()
            measured = (terms.loss.detach(), terms.clipped_tokens, tokens.entropies.sum())
            sums.append(torch.stack([x.float() for x in (*measured, *_divergences(batch, logps))]))
        # One read per pass: each would wait for the GPU.
        return _Totals(len(sums), *torch.stack(sums).sum(dim=0).tolist())


@dataclass(frozen=True, slots=True)
class _Totals:
    """Sums over one epoch."""

    micro_batches: int
    loss: float
    clipped_tokens: float
    entropy: float
    kl_own: float
    kl_own_tokens: float
    kl_external: float
    kl_external_samples: float


@dataclass(frozen=True, slots=True)
class _Pass:
    totals: _Totals
    grad_norm: float | None  # None: the optimiser step was refused


def _divergences(batch: MicroBatch, logps: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sum and count of `StepReport.kl_own` (tokens) and of `kl_external` (completions)."""
    own = ~batch.external[batch.token_rows] & ~batch.sampler_logps.isnan()  # (N,)
    token_gaps = (batch.sampler_logps - logps)[own]
    ones = torch.ones_like(logps)
    row_logps = torch.zeros_like(batch.advantages).to(logps).index_add(0, batch.token_rows, logps)
    row_tokens = torch.zeros_like(row_logps).index_add(0, batch.token_rows, ones)
    external = batch.external & ~batch.sampler_mean_logps.isnan()  # (B,)
    row_gaps = (batch.sampler_mean_logps - row_logps / row_tokens)[external]
    return token_gaps.sum(), own.sum(), row_gaps.sum(), external.sum()


def _report(samples: Sequence[Sample], passes: Sequence[_Pass]) -> StepReport:
    own = sum(len(s.completion_ids) for s in samples if not s.external)
    external = sum(len(s.completion_ids) for s in samples if s.external)
    norms = [p.grad_norm for p in passes if p.grad_norm is not None]
    skipped: Literal["no-samples", "non-finite"] | None = None
    if len(norms) < len(passes):
        skipped = "non-finite"
    elif not passes:
        skipped = "no-samples"
    first = passes[0].totals if passes else None
    clipped = sum(p.totals.clipped_tokens for p in passes)
    return StepReport(
        loss=_mean(first.loss, 1) if first else None,
        grad_norm=max(norms, default=None),
        entropy=_mean(first.entropy, own + external) if first else None,
        clip_ratio=_mean(clipped, (own + external) * len(passes)),
        kl_own=_mean(first.kl_own, first.kl_own_tokens) if first else None,
        kl_external=_mean(first.kl_external, first.kl_external_samples) if first else None,
        tokens_own=own,
        tokens_external=external,
        samples=len(samples),
        micro_batches=sum(p.totals.micro_batches for p in passes),
        optimizer_steps=len(norms),
        skipped=skipped,
    )


def _mean(total: float, count: float) -> float | None:
    """None for an empty mean, and for a value that JSON cannot carry."""
    return total / count if count and math.isfinite(total) else None


def _persistent_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The model's parameters and persistent buffers; of tied ones the first name only."""
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()
    # keep_vars gives the parameters themselves, so tied ones are the same object.
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            tensors[name] = tensor.detach()
    return tensors


def _kind(tensor: Tensor | None) -> str:
    return "absent" if tensor is None else f"{tensor.dtype} {tuple(tensor.shape)}"
