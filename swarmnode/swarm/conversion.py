"""A node's group to the rollouts that travel, and a peer's rollout back to a group. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from protocol.limits import MAX_COMPLETIONS
from protocol.messages import Rollout
from swarmnode.rollout import Completion, Group, Origin, Question


def rollouts_of(group: Group, number: int, model_label: str, now: float) -> list[Rollout]:
    """The rollouts of `group`, whose question is its author's `number`: one for every
    MAX_COMPLETIONS completions, in order. Answers, rewards and token ids stay here."""
    parts = [
        group.completions[start : start + MAX_COMPLETIONS]
        for start in range(0, len(group.completions), MAX_COMPLETIONS)
    ]
    return [
        Rollout.build(
            task_digest=group.question.digest,
            seed=number,
            created=now,
            policy_version=group.policy_version,
            temperature=group.temperature,
            model_label=model_label,
            texts=[completion.text for completion in part],
            mean_logps=[completion.mean_logp for completion in part],
            token_counts=[completion.token_count for completion in part],
            ended=[completion.ended for completion in part],
        )
        for part in parts
    ]


@dataclass(frozen=True, slots=True)
class Arrival:
    """A peer's rollout that was admitted: its question as rebuilt here, and whose it is."""

    question: Question
    rollout: Rollout
    origin: Origin

    @property
    def completions(self) -> tuple[Completion, ...]:
        rollout = self.rollout
        columns = zip(
            rollout.texts, rollout.mean_logps, rollout.token_counts, rollout.ended, strict=True
        )
        return tuple(
            Completion(text, mean_logp, token_count, ended=ended)
            for text, mean_logp, token_count, ended in columns
        )

    def scored(self, rewards: Sequence[float]) -> Group:
        """The group that this becomes with our rewards, one per completion."""
        return Group(
            self.question,
            self.completions,
            tuple(rewards),
            self.rollout.policy_version,
            self.rollout.temperature,
            self.origin,
        )
