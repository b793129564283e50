"""Groups → what the trainer trains on, in this node's own tokens.

Own completions are taken as sampled, token by token. A peer's text is encoded anew and gets this
model's EOS if its sampler ended it, so that ending is learnt, and cutting is not. Groups without
signal have zero advantage and are left out. A peer's completion longer than `max_completion_tokens`
is left out, and one of no token (an empty text that was cut); the reward still counts in the
group's baseline.
"""

from collections.abc import Callable, Sequence

from swarmnode.rollout import Completion, Group
from swarmnode.train.advantage import group_advantages
from swarmnode.train.batch import Sample


def samples_of(
    groups: Sequence[Group],
    *,
    advantage: str,
    encode_prompt: Callable[[str], Sequence[int]],
    encode_text: Callable[[str], Sequence[int]],
    eos_id: int,
    max_completion_tokens: int,
) -> list[Sample]:
    """The samples of these groups, own and peers'; `advantage` names the rule."""
    samples = []
    for group in groups:
        if not group.has_signal:
            continue
        prompt = tuple(encode_prompt(group.question.prompt))
        advantages = group_advantages(group.rewards, advantage)
        for completion, value in zip(group.completions, advantages, strict=True):
            if completion.token_ids is None:
                end = (eos_id,) if completion.ended else ()
                ids = (*encode_text(completion.text), *end)
                if 0 < len(ids) <= max_completion_tokens:
                    samples.append(_external(prompt, ids, value, completion))
            else:
                samples.append(Sample(prompt, completion.token_ids, value, False, completion.logps))
    return samples


def _external(
    prompt: tuple[int, ...], ids: tuple[int, ...], advantage: float, completion: Completion
) -> Sample:
    return Sample(prompt, ids, advantage, True, sampler_mean_logp=completion.mean_logp)
