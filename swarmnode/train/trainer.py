"""One round's update of the policy: samples in, optimiser step taken or refused, report out.

The flow of `Trainer.step`: samples → micro-batches → log-probabilities → loss → gradients summed
over the step → one AdamW step per epoch. The loss is divided by counts of the whole step, so it
does not depend on how memory forced the samples to be split.

The model is trained in evaluation mode (no dropout: the sampler had none) and in the dtype it was
loaded in, on a GPU with autocast (`precision.py`); weights below float32 have float32 masters
(`optimizer.py`). It does not choose samples, compute advantages or touch the disk.
"""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from swarmnode.config import HybridSettings, TrainSettings
from swarmnode.errors import SwarmNodeError
from swarmnode.train.advantage import without_outliers
from swarmnode.train.alignment import COORDINATES, Alignment, Parts
from swarmnode.train.batch import MicroBatch, Sample, pack, split
from swarmnode.train.entropy import entropy_loss
from swarmnode.train.logprob import Shortcuts, TokenStatistics, completion_logps, measure
from swarmnode.train.loss import LossTerms, StepSize, step_loss, step_size, tokens_of
from swarmnode.train.measured import PassSums, add_up, measure_batch
from swarmnode.train.optimizer import MasterAdamW
from swarmnode.train.precision import autocast
from swarmnode.train.reference import Reference
from swarmnode.train.weights import persistent_tensors, require_alike

# In a checkpoint beside the optimiser's tensors; only where the entropy corridor is on.
ENTROPY_HISTORY = "entropy_history"


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one call of `Trainer.step` did. None: not measured, or not a finite number.

    `loss`, `entropy` and the divergences are of the first epoch, that is of the policy before the
    step; `clip_ratio` is the share of tokens that the objective clipped or masked, over all epochs;
    `grad_norm` is before clipping, the largest of the epochs. Logarithms are natural.
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
    skipped: Literal["no-samples", "non-finite", "role"] | None  # role: this node does not train
    kl_reference: float | None = None  # mean per token, k3 estimate; None without a reference
    outliers: int = 0  # samples whose advantage the 3 σ filter set to 0
    # Effective sample size of peers' completions divided by their number, (Σw)² / (n Σw²), with w
    # our probability over the sampler's per token (geometric mean): 1, all alike as likely here.
    effective_ratio: float | None = None
    # Over the tokens of `kl_own`: the mean of the differences' size, and the k3 estimate of the
    # same divergence, mean of r − 1 − log r with r = policy's probability / sampler's, never < 0.
    gap_own: float | None = None
    kl_own_k3: float | None = None
    # What the own and the peers' part of the step do for this node; where it was asked for.
    alignment: Alignment | None = None


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
        foreign: HybridSettings | None = None,
    ) -> None:
        self.policy_version = 0
        self._model = model
        self._settings = settings
        self._pad_token_id = pad_token_id
        self._temperature = temperature
        self._foreign = foreign
        self._optimizer = MasterAdamW(model, settings)
        self._micro_batch_tokens = settings.micro_batch_tokens
        self._shortcuts: Shortcuts | None = None  # measured in the first pass
        self._reference = Reference(model, temperature) if settings.kl_weight > 0 else None
        # Mean entropies of own tokens, newest last; empty unless the corridor is on.
        self._entropy_history: deque[float] = deque(maxlen=settings.entropy_window)

    def step(
        self, samples: Sequence[Sample], foreign_share: float = 1.0, *, is_measured: bool = False
    ) -> StepReport:
        """Trains once on `samples` and reports; leaves the model in evaluation mode.

        `foreign_share` multiplies the weight of peers' part of the loss. A measured step computes
        the own groups first, one by one, to tell what is whose (`alignment.py`); that changes its
        rounding only.

        No samples: nothing is done. A loss or gradient that is not finite: that optimiser step
        and the following epochs are not taken, weights and moments stay as they were. Out of
        memory: tried again with micro-batches of half the size, which later steps keep; raises
        `SwarmNodeError` when a single sample does not fit.
        """
        self._model.eval()
        samples, outliers = self._without_outliers(samples)
        size = step_size(samples, foreign_share)
        anchors: dict[int, _Anchor] = {}  # by sample
        passes: list[_Pass] = []
        alignment: Alignment | None = None
        for _ in range(self._settings.epochs if samples else 0):
            parts = Parts() if is_measured and not passes else None
            sums = self._accumulate_within_memory(samples, anchors, size, parts, first=not passes)
            if parts is not None:
                alignment = parts.alignment()
            grad_norm = self._optimizer.step() if math.isfinite(sums.loss) else None
            passes.append(_Pass(sums, grad_norm))
            if grad_norm is None:
                self._optimizer.clear_gradients()
                break
            self.policy_version += 1
        report = _report(samples, passes, outliers, has_reference=self._reference is not None)
        self._remember_entropy(report, passes)
        return replace(report, alignment=alignment)

    def state(self) -> TrainerState:
        """Everything `load_state` needs to continue bit for bit."""
        optimizer = self._optimizer.state()
        if self._entropy_history:
            history = torch.tensor(list(self._entropy_history), dtype=torch.float64)
            optimizer[ENTROPY_HISTORY] = history
        return TrainerState(
            model=persistent_tensors(self._model),
            optimizer=optimizer,
            policy_version=self.policy_version,
        )

    def load_state(self, state: TrainerState) -> None:
        """Takes over another trainer's state by copy.

        Raises `SwarmNodeError`, with the model unchanged, when it is of another model or dtype.
        """
        own = persistent_tensors(self._model)
        require_alike(own, state.model)
        optimizer = dict(state.optimizer)
        history = optimizer.pop(ENTROPY_HISTORY, None)
        self._optimizer.load_state(optimizer)
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(state.model[name])
        self.policy_version = state.policy_version
        self._entropy_history.clear()
        if history is not None and self._settings.entropy_corridor > 0:
            self._entropy_history.extend(history.tolist())

    def _without_outliers(self, samples: Sequence[Sample]) -> tuple[Sequence[Sample], int]:
        """The samples with outlying advantages set to 0, and how many those are."""
        before = [s.advantage for s in samples]
        after = without_outliers(before, self._settings.max_advantage_sigmas)
        changed = [replace(s, advantage=a) for s, a in zip(samples, after, strict=True)]
        outliers = sum(a == 0 != b for a, b in zip(after, before, strict=True))
        return changed if outliers else samples, outliers

    def _remember_entropy(self, report: StepReport, passes: Sequence["_Pass"]) -> None:
        """Adds a step taken to the history that the corridor lies around."""
        if self._settings.entropy_corridor > 0 and report.optimizer_steps and report.tokens_own:
            self._entropy_history.append(passes[0].sums.own_entropy / report.tokens_own)

    def _accumulate_within_memory(
        self,
        samples: Sequence[Sample],
        anchors: "dict[int, _Anchor]",
        size: StepSize,
        parts: Parts | None,
        *,
        first: bool,
    ) -> PassSums:
        """`_accumulate`, again with half the micro-batch as long as the device runs out."""
        longest = max(s.length for s in samples)
        while True:
            try:
                return self._accumulate(samples, anchors, size, parts, first=first)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
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
        self,
        samples: Sequence[Sample],
        anchors: "dict[int, _Anchor]",
        size: StepSize,
        parts: Parts | None,
        *,
        first: bool,
    ) -> PassSums:
        """Adds the gradients of these samples up. The first pass fills `anchors`; `parts` gets
        the gradient after each own group and after all, on some coordinates (C,)."""
        self._optimizer.clear_gradients()  # what an interrupted step may have left
        device = next(self._model.parameters()).device
        summands: list[Tensor] = []
        if parts is not None:
            parts.clear()
        for is_own, members in _parts_of(samples) if parts is not None else [_whole(samples)]:
            lengths = [samples[i].length for i in members]
            for batch_members in split(lengths, self._micro_batch_tokens):
                indices = [members[i] for i in batch_members]
                batch = pack(samples, indices, self._pad_token_id, device)
                statistics = self._statistics(batch)
                if first:
                    anchors.update(self._anchored(batch, statistics.logps))
                terms = self._loss(batch, statistics, [anchors[i] for i in indices], size)
                torch.autograd.backward(terms.loss)
                self._optimizer.collect_gradients()
                summands.append(measure_batch(batch, terms, statistics))
            if parts is not None:
                parts.add(self._optimizer.sampled_gradient(COORDINATES), is_own=is_own)
        return add_up(summands)

    def _statistics(self, batch: MicroBatch) -> TokenStatistics:
        """Log-probabilities and entropies of the batch under the model in training."""
        if self._shortcuts is None:
            self._shortcuts = measure(self._model)
        with autocast(self._settings.autocast, batch.input_ids.device):
            return completion_logps(
                self._model,
                batch.input_ids,
                batch.attention_mask,
                batch.completion_mask,
                shortcuts=self._shortcuts,
                temperature=self._temperature,
            )

    def _anchored(self, batch: MicroBatch, logps: Tensor) -> "dict[int, _Anchor]":
        """The anchors of the batch's samples: `logps` (N,), and the reference's."""
        counts = list(batch.completion_lengths)
        old = torch.split(logps.detach(), counts)
        reference: Sequence[Tensor | None] = [None] * len(counts)
        if self._reference is not None:
            assert self._shortcuts is not None  # measured before the first pass
            with autocast(self._settings.autocast, logps.device):
                reference = torch.split(self._reference.logps(batch, self._shortcuts), counts)
        return dict(zip(batch.sample_indices, map(_Anchor, old, reference), strict=True))

    def _loss(
        self,
        batch: MicroBatch,
        statistics: TokenStatistics,
        anchors: Sequence["_Anchor"],
        size: StepSize,
    ) -> LossTerms:
        """The batch's part of the step's loss, entropy terms included."""
        settings = self._settings
        reference = [a.reference_logps for a in anchors if a.reference_logps is not None]
        tokens = tokens_of(batch, statistics.logps, torch.cat([a.old_logps for a in anchors]))
        terms = step_loss(
            tokens, size, settings, torch.cat(reference) if reference else None, self._foreign
        )
        if settings.entropy_bonus == settings.entropy_corridor == 0:
            return terms
        history = self._entropy_history
        past = sum(history) / len(history) if history else None
        entropy = entropy_loss(tokens, statistics.entropies, size.own_tokens, past, settings)
        return replace(terms, loss=terms.loss + entropy)


@dataclass(frozen=True, slots=True)
class _Anchor:
    """One sample's log-probabilities under policies that stay put during a step."""

    old_logps: Tensor  # (its tokens,) the policy before the step
    reference_logps: Tensor | None


@dataclass(frozen=True, slots=True)
class _Pass:
    sums: PassSums
    grad_norm: float | None  # None: the optimiser step was refused


def is_out_of_memory(error: Exception) -> bool:
    """Whether torch could not allocate: on a CPU it says so in a plain `RuntimeError`."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return "DefaultCPUAllocator: can't allocate memory" in str(error)


def _parts_of(samples: Sequence[Sample]) -> list[tuple[bool, Sequence[int]]]:
    """(whether own, indices of the samples): each own group, then all of peers'."""
    own: dict[tuple[int, ...], list[int]] = {}
    for index, sample in enumerate(samples):
        if not sample.external:
            own.setdefault(sample.prompt_ids, []).append(index)
    peers = [index for index, sample in enumerate(samples) if sample.external]
    return [*((True, members) for members in own.values()), (False, peers)]


def _whole(samples: Sequence[Sample]) -> tuple[bool, Sequence[int]]:
    return False, range(len(samples))


def _report(
    samples: Sequence[Sample], passes: Sequence[_Pass], outliers: int, *, has_reference: bool
) -> StepReport:
    size = step_size(samples)
    tokens = size.own_tokens + size.external_tokens
    norms = [p.grad_norm for p in passes if p.grad_norm is not None]
    skipped: Literal["no-samples", "non-finite"] | None = None
    if len(norms) < len(passes):
        skipped = "non-finite"
    elif not passes:
        skipped = "no-samples"
    first = passes[0].sums if passes else None
    clipped = sum(p.sums.clipped_tokens for p in passes)
    return StepReport(
        loss=_mean(first.loss, 1) if first else None,
        grad_norm=max(norms, default=None),
        entropy=_mean(first.entropy, tokens) if first else None,
        clip_ratio=_mean(clipped, tokens * len(passes)),
        kl_own=_mean(first.kl_own, first.kl_own_tokens) if first else None,
        kl_external=_mean(first.kl_external, first.kl_external_samples) if first else None,
        tokens_own=size.own_tokens,
        tokens_external=size.external_tokens,
        samples=len(samples),
        micro_batches=sum(p.sums.micro_batches for p in passes),
        optimizer_steps=len(norms),
        skipped=skipped,
        kl_reference=_mean(first.reference_kl, tokens) if first and has_reference else None,
        outliers=outliers,
        effective_ratio=_effective_ratio(first) if first else None,
        gap_own=_mean(first.gap_own, first.kl_own_tokens) if first else None,
        kl_own_k3=_mean(first.kl_own_k3, first.kl_own_tokens) if first else None,
    )


def _effective_ratio(sums: PassSums) -> float | None:
    count, squares = sums.kl_external_samples, sums.weight_squares
    if not count or not math.isfinite(sums.weights) or not math.isfinite(squares) or not squares:
        return None
    return min(1.0, sums.weights**2 / (count * squares))  # float32 sums may exceed it by rounding


def _mean(total: float, count: float) -> float | None:
    """None for an empty mean, and for a value that JSON cannot carry."""
    return total / count if count and math.isfinite(total) else None
