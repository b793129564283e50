"""Rollouts and announcements as tests of the exchange and attacks on it offer them: made up, valid,
and alike but for what a test is about."""

from collections.abc import Sequence

from protocol.envelope import Sealed
from protocol.messages import Announcement, Item, Rollout


def rollout(number: int, texts: Sequence[str], created: float, task: bytes = b"add1") -> Rollout:
    """Answers to its author's question `number`."""
    return Rollout.build(
        task_digest=task,
        seed=number,
        created=created,
        policy_version=0,
        temperature=1.0,
        model_label="tiny",
        texts=texts,
        mean_logps=[-0.5] * len(texts),
        token_counts=[9] * len(texts),
        ended=[True] * len(texts),
    )


def announcement(items: Sequence[Item], created: float, round: int = 1) -> Announcement:
    return Announcement.build(
        round=round, created=created, policy_version=0, model_label="tiny", items=items
    )


def item_of(sealed: Sealed, made: Rollout) -> Item:
    """What an announcement says of a rollout."""
    return Item(sealed.id, made.task_digest, made.seed, len(sealed.frame))
