"""Groups → what the trainer trains on, in this node's own tokens.

Own completions are taken as sampled, token by token. A peer's text is encoded anew and gets this
model's EOS if its sampler ended it, so that ending is learnt, and cutting is not. Groups without
signal have zero advantage and are left out. A peer's completion longer than `max_completion_tokens`
is left out, and one of no token (an empty text that was cut); the reward still counts in the
group's baseline.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from swarmnode.rollout import Completion, Group
from swarmnode.train.advantage import group_advantages
from swarmnode.train.batch import Sample

ForeignAdvantages = Callable[[str, Sequence[float]], Sequence[float]]
"""(task, rewards of one question) → the advantages of peers' completions, in the same order."""

IsImitable = Callable[[Group, Completion], bool]
"""Whether a peer's completion may be trained on (`defending.py`)."""

Verified = Callable[[Group, Completion], Sequence[bool]]
"""Which tokens of a peer's text, as `encode_text` gives them, are of its verified answer."""


def samples_of(
    groups: Sequence[Group],
    *,
    advantage: str,
    encode_prompt: Callable[[str], Sequence[int]],
    encode_text: Callable[[str], Sequence[int]],
    eos_id: int,
    max_completion_tokens: int,
    foreign_advantages: ForeignAdvantages | None = None,
    is_imitable: IsImitable = lambda group, completion: True,
    verified: Verified | None = None,
) -> list[Sample]:
    """The samples of these groups, own and peers'; `advantage` names the rule.

    Groups on one question share their baseline: their rewards count as those of one group. With
    `foreign_advantages` peers' completions get those, and one with 0 is left out. What a peer wrote
    is left out too where it is not `is_imitable`; `verified` marks the tokens of its answer.
    """
    samples = []
    joined = _joined_rewards(groups)
    for group in groups:
        rewards = joined[_key(group)]
        if group.origin is not None and foreign_advantages is not None:
            values = foreign_advantages(group.question.task, rewards)
        elif len(set(rewards)) > 1:
            values = group_advantages(rewards, advantage)
        else:
            continue
        prompt = tuple(encode_prompt(group.question.prompt))
        # By what it is given, so that the groups of one question may come in any order.
        by_reward = dict(zip(rewards, values, strict=True))
        for completion, reward in zip(group.completions, group.rewards, strict=True):
            value = by_reward[reward]
            if value == 0 and group.origin is not None:
                continue
            if completion.token_ids is None:
                end = (eos_id,) if completion.ended else ()
                ids = (*encode_text(completion.text), *end)
                if not 0 < len(ids) <= max_completion_tokens or not is_imitable(group, completion):
                    continue
                sample = _external(prompt, ids, value, completion)
                if verified is not None:
                    sample = replace(sample, verified=_marks(verified(group, completion), ids))
                samples.append(sample)
            else:
                samples.append(Sample(prompt, completion.token_ids, value, False, completion.logps))
    return samples


def _marks(marks: Sequence[bool], ids: Sequence[int]) -> tuple[bool, ...]:
    """The marks of a text's tokens, and that of EOS, if there is one: to end where the answer ends
    is a part of it."""
    ends = bool(marks) and marks[-1]
    return (*marks, *(ends for _ in ids[len(marks) :]))


def _joined_rewards(groups: Sequence[Group]) -> dict[tuple[bytes, int], list[float]]:
    """All rewards given to answers to each question, by question."""
    rewards: dict[tuple[bytes, int], list[float]] = {}
    for group in groups:
        rewards.setdefault(_key(group), []).extend(group.rewards)
    return rewards


def _key(group: Group) -> tuple[bytes, int]:
    return group.question.digest, group.question.seed


def _external(
    prompt: tuple[int, ...], ids: tuple[int, ...], advantage: float, completion: Completion
) -> Sample:
    return Sample(prompt, ids, advantage, True, sampler_mean_logp=completion.mean_logp)
