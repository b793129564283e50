"""From what a round did to its `RoundReport`. Pure: it reads the parts and changes nothing."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from swarmnode.assembly import Parts
from swarmnode.report import RoundReport, Totals
from swarmnode.rollout import Group
from swarmnode.swarm.transport import TransportStatus
from swarmnode.train.trainer import StepReport


@dataclass(frozen=True, slots=True)
class Groups:
    """A round's groups: this node's, those of peers that came, those of peers trained on."""

    own: Sequence[Group]
    arrived: Sequence[Group]
    chosen: Sequence[Group]


def round_report(
    round: int,
    now: float,
    groups: Groups,
    step: StepReport,
    parts: Parts,
    network: TransportStatus,
    seconds: Mapping[str, float],
    totals: Totals,
    *,
    takes: bool,
) -> RoundReport:
    """The row of this round; `takes` is false for a node that asks no peer, by choice."""
    own, chosen, gain = groups.own, groups.chosen, parts.gain.now()
    engine = parts.generator.report()
    return RoundReport(
        round=round,
        time=now,
        policy_version=parts.trainer.policy_version,
        own_reward=_mean([r for group in own for r in group.rewards]) or 0.0,
        own_reward_by_task=_by_task(own),
        own_groups=len(own),
        own_groups_with_signal=sum(group.has_signal for group in own),
        external_reward=_mean([r for group in groups.arrived for r in group.rewards]),
        external_groups=len(groups.arrived),
        external_groups_trained=len(chosen),
        external_by_model=_by_model(groups.arrived),
        loss=step.loss,
        grad_norm=step.grad_norm,
        kl=step.kl_own,
        kl_external=step.kl_external,
        engine=engine.name,
        engine_given_up=engine.is_given_up,
        engine_restarts=engine.restarts,
        handover_s=engine.handover_s,
        mismatch=step.gap_own,
        mismatch_kl=step.kl_own_k3,
        own_lag=parts.trainer.policy_version - step.optimizer_steps - parts.generator.version,
        entropy=step.entropy,
        clip_fraction=step.clip_ratio,
        staleness_rounds=_mean([float(parts.exchange.lag(group)) for group in chosen]),
        effective_ratio=step.effective_ratio,
        foreign_share=parts.mixing.foreign_share,
        sharing_gain=gain.share if gain else None,
        sharing_gain_error=gain.error if gain else None,
        staleness_s=_mean([now - group.origin.created for group in chosen if group.origin]),
        pool_groups=len(parts.pool),
        pool_age_s=parts.pool.mean_age_s(now),
        peers=len(network.peers),
        network_restarts=network.restarts,
        foreign_peers=network.foreign_peers,
        network_dropped=dict(network.dropped),
        waiting_for=_waiting_for(step, network, len(chosen), parts, takes=takes),
        alone=network.alone,
        alone_because=network.state if network.alone else "",
        seconds=seconds,
        totals=totals,
    )


def _waiting_for(
    step: StepReport, network: TransportStatus, chosen: int, parts: Parts, *, takes: bool
) -> str:
    """Why this round taught less than it could, in words; empty when all is well."""
    reasons = []
    if step.skipped == "no-samples":
        reasons.append("no signal: all completions of every group were rewarded alike")
    elif step.skipped == "non-finite":
        reasons.append(f"step skipped: {step.skipped} loss or gradient")
    if step.skipped == "role" and network.alone:
        reasons.append(network.state)
    if clock := parts.exchange.clocks.problem():
        reasons.append(clock)
    if takes and chosen == 0:
        if not network.peers:
            reasons.append(network.state)
        elif parts.exchange.peers_heard == 0:
            reasons.append("no peer has announced a rollout yet")
        else:
            reasons.append("no peer's rollout with a signal at hand yet")
    return "; ".join(reasons)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _by_task(groups: Sequence[Group]) -> dict[str, float]:
    rewards: dict[str, list[float]] = {}
    for group in groups:
        rewards.setdefault(group.question.task, []).extend(group.rewards)
    return {task: sum(values) / len(values) for task, values in sorted(rewards.items())}


def _by_model(groups: Sequence[Group]) -> dict[str, int]:
    return dict(Counter(group.origin.model_label for group in groups if group.origin))
