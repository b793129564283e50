"""What one round did, as a row of `rounds.jsonl`: the one record that logs, metrics, the demo's
summary and pictures are made of. Own, external and held-out reward are separate.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

# Peers that `Totals.trained_from` names: when there are twice as many, those with the fewest groups
# go. A week among a hundred authors that come and go would otherwise put thousands into each row.
MAX_NAMED = 64


@dataclass(slots=True)
class Totals:
    """Counts since the run began, restarts included; kept in checkpoints.

    A rollout is up to eight completions of one question, as it travels. `refused` is by reason,
    `missed` (asked for and not delivered) by problem. `trained_from` are the groups trained on by
    their author's peer id, of those peers that gave most; `trained_from_others` are the rest.
    """

    published: int = 0
    announced: int = 0
    fetched: int = 0
    accepted: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    missed: dict[str, int] = field(default_factory=dict)
    own_groups_trained: int = 0
    external_groups_trained: int = 0
    trained_from: dict[str, int] = field(default_factory=dict)
    trained_from_others: int = 0
    tokens_generated: int = 0
    tokens_trained_own: int = 0
    tokens_trained_external: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    rounds_without_step: int = 0
    rounds_failed: int = 0
    scorer_failures: int = 0
    # Peers' right completions not imitated, by reason, and returns to the last good checkpoint.
    dropped: dict[str, int] = field(default_factory=dict)
    rollbacks: dict[str, int] = field(default_factory=dict)
    wall_s: float = 0.0

    def note_trained_from(self, peer: str) -> None:
        """Counts a group trained on. A peer that was among the others begins anew with it."""
        self.trained_from[peer] = self.trained_from.get(peer, 0) + 1
        if len(self.trained_from) > 2 * MAX_NAMED:
            # Of equal ones the newest stay: they may give more yet.
            newest_first = reversed(self.trained_from.items())
            most = sorted(newest_first, key=lambda item: -item[1])[:MAX_NAMED]
            self.trained_from_others += sum(self.trained_from.values()) - sum(n for _, n in most)
            self.trained_from = dict(reversed(most))


@dataclass(frozen=True, slots=True)
class RoundReport:
    """One round. Rewards are means over completions, 0 to 1; None where nothing was measured.

    `own_reward`: this node's fresh completions, before any filtering. `external_reward`: peers'
    completions admitted this round, by our scorer. `external_by_model`: their groups by the model
    that the author says it runs.
    `staleness_s`: mean age of the peers' groups trained on, by their authors' clocks.
    `kl`: mean of the sampler's log-probability less the trainer's, own tokens; `kl_external`: the
    same per peer's completion. `engine` generated ("hf" or "vllm"), `engine_given_up`
    says that it is hf in vLLM's place; `engine_restarts` counts since
    the node was started, `handover_s` is how long its last weights took. `mismatch`: mean size of
    the differences that `kl` is the mean of, `mismatch_kl` the k3 estimate of the same divergence;
    `own_lag`: optimiser steps since the policy that the own completions are of, before this one.
    `staleness_rounds`: optimiser steps that the authors of the peers'
    groups trained on have announced since, mean. `effective_ratio`: effective sample size of peers'
    completions divided by their number. `foreign_share` multiplies their weight in the loss.
    `sharing_gain`: the share of this node's progress that peers' completions bring, with
    its standard error (`gain.py`). `foreign_peers`: of other swarms, that greeted this node since
    it was started. `waiting_for` says in words why the node is not learning, if so. `alone` is why
    no peer is connected, in one word of `swarm.alone.Alone`, `alone_because` in a sentence; both
    are empty with peers.
    """

    round: int
    time: float
    policy_version: int
    own_reward: float
    own_reward_by_task: Mapping[str, float]
    own_groups: int
    own_groups_with_signal: int
    external_reward: float | None
    external_groups: int
    external_groups_trained: int
    external_by_model: Mapping[str, int]
    loss: float | None
    grad_norm: float | None
    kl: float | None
    kl_external: float | None
    engine: str
    engine_given_up: bool
    engine_restarts: int
    handover_s: float | None
    mismatch: float | None
    mismatch_kl: float | None
    own_lag: int
    entropy: float | None
    clip_fraction: float | None
    staleness_s: float | None
    staleness_rounds: float | None
    effective_ratio: float | None
    foreign_share: float
    sharing_gain: float | None
    sharing_gain_error: float | None
    pool_groups: int
    pool_age_s: float
    peers: int
    network_restarts: int
    foreign_peers: int
    network_dropped: Mapping[str, int]
    waiting_for: str
    alone: str
    alone_because: str
    seconds: Mapping[str, float]
    totals: Totals

    def as_dict(self) -> dict[str, Any]:
        """A JSON-able copy."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Greedy accuracy on held-out questions after `round` rounds, by task: a row of
    `evaluations.jsonl`. `constant_baseline` is what the best constant answer to each task scores.
    """

    round: int
    time: float
    accuracy: Mapping[str, float]
    constant_baseline: Mapping[str, float]

    @property
    def mean_accuracy(self) -> float:
        """The mean over tasks."""
        return sum(self.accuracy.values()) / len(self.accuracy)

    @property
    def mean_constant_baseline(self) -> float:
        """The mean over tasks."""
        return sum(self.constant_baseline.values()) / len(self.constant_baseline)

    def as_dict(self) -> dict[str, Any]:
        """A JSON-able copy."""
        return asdict(self)
