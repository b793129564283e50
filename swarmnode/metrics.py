"""The Prometheus metrics of a node, all of them, on loopback unless told otherwise.

Base units, `_total` for counters, labels from closed sets only: never a peer, an address, a path.
Everything is set from the records that are also written to the run directory, so they agree.
"""

import logging
import math
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Info,
    disable_created_metrics,
)

from swarmnode.report import Evaluation, RoundReport, Totals
from swarmnode.scraped import Scraped

log = logging.getLogger(__name__)

_GAUGES = {
    "round": "Rounds done since the run began.",
    "policy_version": "Optimiser steps taken since the run began.",
    "own_reward": "Mean reward of this node's fresh completions in the last round.",
    "external_reward": "Mean reward, by our scorer, of the peers' completions last admitted.",
    "held_out_accuracy": "Greedy accuracy on held-out questions, mean over tasks, last evaluation.",
    "held_out_constant_baseline": "What the best constant answers score on the same questions.",
    "loss": "Loss of the last optimiser step.",
    "grad_norm": "Gradient norm of the last step, before clipping.",
    "kl": "Sampler's log-probability less the trainer's, mean over own tokens, nats.",
    "kl_external": "Peers' mean log-probability less ours, mean over peers' completions, nats.",
    "mismatch": "Size of the difference behind swarmnode_kl, mean over own tokens, nats.",
    "mismatch_kl": "KL of the generation engine to the trainer, k3 estimate, nats per token.",
    "own_lag": "Optimiser steps since the policy that the last own completions are of.",
    "engine_handover_seconds": "Time that the generation engine's last weights took.",
    "engine_given_up": "1 once vLLM failed too often and transformers generates in its place.",
    "entropy": "Entropy of the policy, mean over completion tokens, nats.",
    "clip_fraction": "Share of tokens whose gradient the clip stopped.",
    "staleness_seconds": "Mean age of the peers' groups trained on in the last round.",
    "staleness_rounds": "Optimiser steps that the authors of the groups trained on took since.",
    "effective_ratio": "Effective sample size of peers' completions, share of their number.",
    "foreign_share": "What the weight of peers' part of the loss is multiplied by.",
    "sharing_gain": "Share of this node's progress that peers' completions bring; NaN: not known.",
    "sharing_gain_error": "One standard error of swarmnode_sharing_gain.",
    "pool_groups": "Peers' groups waiting to be trained on.",
    "pool_age_seconds": "Mean age of the groups in the pool.",
    "peers": "Peers connected.",
    "own_groups_with_signal": "Own groups of the last round whose rewards were not all equal.",
    "paused": "1 while the node rests because it was paused, else 0.",
    "disk_free_bytes": "Free bytes of the disk that the run is on, now; NaN: it does not say.",
    "last_round_timestamp_seconds": "When the last round ended, Unix time.",
}
_COUNTERS = {
    "rounds": "Rounds done.",
    "round_seconds": "Time of the rounds, all phases and what is between them.",
    "rounds_without_step": "Rounds in which no group had a signal, so nothing was learned.",
    "scorer_failures": "Rollouts lost because the scorer process died or hung on them.",
    "generated_tokens": "Tokens generated.",
    "rollouts_published": "Own rollouts offered to peers.",
    "rollouts_announced": "Peers' rollouts heard of.",
    "rollouts_fetched": "Peers' rollouts received.",
    "rollouts_accepted": "Peers' rollouts admitted and scored.",
    "external_groups_trained": "Peers' groups trained on.",
    "own_groups_trained": "Own groups trained on.",
    "engine_restarts": "Times the generation engine's process was restarted.",
    "network_restarts": "Times the network process was restarted.",
    "network_foreign_peers": "Peers of another swarm or protocol version that greeted this node.",
    "network_bytes_in": "Payload bytes received.",
    "network_bytes_out": "Payload bytes sent.",
}
_LABELLED = {
    "trained_tokens": ("Tokens trained on.", "source"),
    "rollouts_refused": ("Refusals of what peers sent.", "reason"),
    "rollouts_missed": ("Rollouts asked for and not delivered.", "problem"),
    "completions_dropped": ("Peers' right completions not imitated.", "reason"),
    "rollbacks": ("Returns to the last good checkpoint, by what the probe saw.", "fault"),
    "rounds_failed": ("Rounds given up because the environment failed.", "cause"),
    "network_dropped": ("Items lost because a queue was full.", "queue"),
    "phase_seconds": ("Where the time of the rounds went.", "phase"),
}


@dataclass(slots=True)
class _Seen:
    """The cumulative counts at the last report, to turn totals into increments."""

    totals: Totals = field(default_factory=Totals)
    restarts: int = 0
    engine_restarts: int = 0
    foreign_peers: int = 0
    dropped: dict[str, int] = field(default_factory=dict)


class Metrics:
    """The exporter. `open` listens, `record` takes a round's report, `close` stops listening.

    `known` are label values by counter, told as 0 from the start: a counter that first appears at 1
    has not risen in Prometheus' eyes, so the first refusal would go unseen. Under "alone" they are
    the reasons that a report's `alone` may give.
    """

    def __init__(
        self, host: str, port: int, known: Mapping[str, Iterable[str]] = MappingProxyType({})
    ) -> None:
        self._registry = CollectorRegistry()
        self._scraped = Scraped(self._registry, host, port)
        # Otherwise each counter has a second series with the time at which it was made, and sums
        # over names by pattern take it in. The library has this switch for the whole process only.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no annotations
        self._gauges = {
            name: Gauge(f"swarmnode_{name}", text, registry=self._registry)
            for name, text in _GAUGES.items()
        }
        for name in ("sharing_gain", "sharing_gain_error"):
            self._gauges[name].set(math.nan)  # 0 would say that peers give nothing
        self._counters = {
            name: Counter(f"swarmnode_{name}", text, registry=self._registry)
            for name, text in _COUNTERS.items()
        }
        self._labelled = {
            name: Counter(f"swarmnode_{name}", text, [label], registry=self._registry)
            for name, (text, label) in _LABELLED.items()
        }
        for name, values in known.items():
            for value in values if name in self._labelled else ():
                self._labelled[name].labels(value)
        self._alone_reasons = tuple(known.get("alone", ()))
        self._held_out = Gauge(
            "swarmnode_held_out_task_accuracy",
            "Greedy accuracy on held-out questions, last evaluation.",
            ["task"],
            registry=self._registry,
        )
        self._alone = Gauge(
            "swarmnode_alone",
            "1 for the reason why no peer is connected, else 0.",
            ["because"],
            registry=self._registry,
        )
        self._info = Info("swarmnode_node", "What this node runs.", registry=self._registry)
        self._seen = _Seen()

    def open(self, **info: str) -> str:
        """Listens; returns the address. `info` becomes the labels of `swarmnode_node_info`.

        Raises `ConfigError` when the port is taken.
        """
        self._info.info(info)
        return self._scraped.open()

    def resume(self, totals: Totals) -> None:
        """Counts from these totals on: what happened before a restart is not counted again."""
        self._seen.totals = totals

    def record(self, report: RoundReport) -> None:
        """Takes over one round."""
        for name in self._gauges.keys() & set(RoundReport.__slots__):
            if (value := getattr(report, name)) is not None:
                self._gauges[name].set(value)
        self._gauges["staleness_seconds"].set(report.staleness_s or 0.0)
        self._gauges["pool_age_seconds"].set(report.pool_age_s)
        self._gauges["engine_handover_seconds"].set(report.handover_s or 0.0)
        self._gauges["engine_given_up"].set(report.engine_given_up)
        self._gauges["last_round_timestamp_seconds"].set(report.time)
        for reason in self._alone_reasons:
            self._alone.labels(reason).set(report.alone == reason)
        for phase, seconds in report.seconds.items():
            if phase != "total":  # sums over phases would count everything twice
                self._labelled["phase_seconds"].labels(phase).inc(seconds)
        self._count(report)

    def record_failure(self, cause: str) -> None:
        """Takes over that a round was given up, at once: no report may come for long."""
        self._labelled["rounds_failed"].labels(cause).inc()

    def watch_disk(self, path: Path) -> None:
        """Tells from now on how much is free where `path` is, at every look."""

        def free() -> float:
            try:
                return float(shutil.disk_usage(path).free)
            except OSError:
                return math.nan

        self._gauges["disk_free_bytes"].set_function(free)

    def record_pause(self, is_on: bool) -> None:
        """Takes over that the node was paused or goes on."""
        self._gauges["paused"].set(is_on)

    def record_evaluation(self, evaluation: Evaluation) -> None:
        """Takes over one held-out evaluation."""
        self._gauges["held_out_accuracy"].set(evaluation.mean_accuracy)
        self._gauges["held_out_constant_baseline"].set(evaluation.mean_constant_baseline)
        for task, accuracy in evaluation.accuracy.items():
            self._held_out.labels(task).set(accuracy)

    def close(self) -> None:
        """Stops listening. May be called twice."""
        self._scraped.close()

    def _count(self, report: RoundReport) -> None:
        new, old = report.totals, self._seen.totals
        increments = {
            "rounds": 1,
            "round_seconds": report.seconds["total"],
            "rounds_without_step": new.rounds_without_step - old.rounds_without_step,
            "scorer_failures": new.scorer_failures - old.scorer_failures,
            "generated_tokens": new.tokens_generated - old.tokens_generated,
            "rollouts_published": new.published - old.published,
            "rollouts_announced": new.announced - old.announced,
            "rollouts_fetched": new.fetched - old.fetched,
            "rollouts_accepted": new.accepted - old.accepted,
            "external_groups_trained": new.external_groups_trained - old.external_groups_trained,
            "own_groups_trained": new.own_groups_trained - old.own_groups_trained,
            "engine_restarts": report.engine_restarts - self._seen.engine_restarts,
            "network_restarts": report.network_restarts - self._seen.restarts,
            "network_foreign_peers": report.foreign_peers - self._seen.foreign_peers,
            "network_bytes_in": new.bytes_in - old.bytes_in,
            "network_bytes_out": new.bytes_out - old.bytes_out,
        }
        for name, amount in increments.items():
            self._counters[name].inc(amount)
        trained = self._labelled["trained_tokens"]
        trained.labels("own").inc(new.tokens_trained_own - old.tokens_trained_own)
        trained.labels("external").inc(new.tokens_trained_external - old.tokens_trained_external)
        self._count_labelled("rollouts_refused", new.refused, old.refused)
        self._count_labelled("rollouts_missed", new.missed, old.missed)
        self._count_labelled("completions_dropped", new.dropped, old.dropped)
        self._count_labelled("rollbacks", new.rollbacks, old.rollbacks)
        self._count_labelled("network_dropped", report.network_dropped, self._seen.dropped)
        self._seen = _Seen(
            new,
            report.network_restarts,
            report.engine_restarts,
            report.foreign_peers,
            dict(report.network_dropped),
        )

    def _count_labelled(self, name: str, new: Any, old: Any) -> None:
        for label, count in new.items():
            self._labelled[name].labels(label).inc(count - old.get(label, 0))
