"""From groups to what is trained on: whose tokens, which advantages, what is left out."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from fakes import FakeTasks, completion, own_group, peer_group

from swarmnode.rollout import Group
from swarmnode.samples import ForeignAdvantages, samples_of
from swarmnode.train.batch import Sample

EOS = 99


OTHER, THIRD = (FakeTasks().question("add", seed) for seed in (2, 3))


def samples(
    *groups: Group,
    advantage: str = "mean",
    longest: int = 10,
    foreign_advantages: ForeignAdvantages | None = None,
) -> list[Sample]:
    """A text's ids are its characters' codes, a prompt's its length."""
    return samples_of(
        groups,
        advantage=advantage,
        encode_prompt=lambda prompt: [len(prompt)],
        encode_text=lambda text: [ord(character) for character in text],
        eos_id=EOS,
        max_completion_tokens=longest,
        foreign_advantages=foreign_advantages,
    )


def test_own_completions_keep_their_ids_and_log_probabilities() -> None:
    group = own_group([1.0, 0.0])
    first, second = samples(group)
    assert first.prompt_ids == (len(group.question.prompt),)
    assert (first.completion_ids, second.completion_ids) == ((7, 0), (7, 1))
    assert first.sampler_logps == (-0.5, -0.25)
    assert first.sampler_mean_logp is None
    assert not first.external


def test_a_peers_text_is_encoded_anew_and_ends() -> None:
    first, second = samples(peer_group([1.0, 0.0], ["a", ""]))
    assert (first.completion_ids, second.completion_ids) == ((97, EOS), (EOS,))
    assert first.sampler_logps is None
    assert first.sampler_mean_logp == -0.5
    assert first.external


@pytest.mark.parametrize(
    ("rule", "rewards", "expected"),
    [
        # mean 1/4
        ("mean", [1.0, 0.0, 0.0, 0.0], [0.75, -0.25, -0.25, -0.25]),
        # sample variance (0.5625 + 3 × 0.0625) / 3 = 0.25, so divided by 0.5
        ("mean_std", [1.0, 0.0, 0.0, 0.0], [1.5, -0.5, -0.5, -0.5]),
        # mean 1/2, sample variance 2 × 0.25 / 1 = 0.5
        ("mean_std", [0.0, 1.0], [-(0.5**0.5), 0.5**0.5]),
    ],
)
def test_advantages_are_those_of_the_group(
    rule: str, rewards: list[float], expected: list[float]
) -> None:
    for group in (own_group(rewards), peer_group(rewards)):
        found = [sample.advantage for sample in samples(group, advantage=rule, longest=20)]
        assert found == pytest.approx(expected)


def test_every_group_has_its_own_baseline() -> None:
    peers = peer_group([1.0, 0.0, 0.0, 0.0], list("abcd"), question=OTHER)
    found = samples(own_group([1.0, 0.0]), peers)
    assert [sample.advantage for sample in found] == [0.5, -0.5, 0.75, -0.25, -0.25, -0.25]
    assert [sample.external for sample in found] == [False, False, True, True, True, True]


def test_groups_on_one_question_share_their_baseline() -> None:
    """Neither has a signal alone; together the mean is 1/4."""
    found = samples(own_group([0.0, 0.0]), peer_group([1.0, 0.0]))
    assert [sample.advantage for sample in found] == [-0.25, -0.25, 0.75, -0.25]


def test_peers_advantages_may_follow_another_rule() -> None:
    asked = []

    def rule(task: str, rewards: Sequence[float]) -> list[float]:
        asked.append((task, list(rewards)))
        return [2.0 * reward for reward in rewards]

    peers = peer_group([1.0, 1.0, 0.0], list("abc"), question=OTHER)
    rescued = peer_group([1.0, 1.0], list("de"), question=THIRD)
    found = samples(own_group([1.0, 0.0]), peers, rescued, foreign_advantages=rule)
    assert asked == [("add", [1.0, 1.0, 0.0]), ("add", [1.0, 1.0])]
    # Own by the own rule; a peer's completion with 0 is left out, a group without signal is not.
    assert [sample.advantage for sample in found] == [0.5, -0.5, 2.0, 2.0, 2.0, 2.0]


def test_groups_without_a_signal_are_left_out() -> None:
    assert samples(own_group([1.0, 1.0]), peer_group([0.0, 0.0], question=OTHER)) == []
    assert samples() == []


def test_too_long_a_text_is_left_out_and_still_counts_in_the_baseline() -> None:
    group = peer_group([1.0, 0.0, 0.0, 0.0], ["abc", "a", "abcd", "b"])
    found = samples(group, longest=4)  # "abc" and EOS are four tokens, "abcd" and EOS five
    assert [sample.completion_ids for sample in found] == [
        (97, 98, 99, EOS),
        (97, EOS),
        (98, EOS),
    ]
    assert [sample.advantage for sample in found] == [0.75, -0.25, -0.25]  # mean of four, 1/4


def test_marks_the_answers_tokens_and_an_end_right_behind_it() -> None:
    def marked(text: str, ended: bool = True) -> tuple[bool, ...] | None:
        group = peer_group([1.0, 0.0], [text, "x"])
        whole = replace(group, completions=(completion(text, ended=ended), group.completions[1]))
        found = samples_of(
            [whole],
            advantage="mean",
            encode_prompt=lambda prompt: [len(prompt)],
            encode_text=lambda text: [ord(character) for character in text],
            eos_id=EOS,
            max_completion_tokens=10,
            verified=lambda group, completion: [c.isdigit() for c in completion.text],
        )
        return found[0].verified

    assert marked("a1") == (False, True, True)
    assert marked("1a") == (True, False, False)
    assert marked("a1", ended=False) == (False, True)
    assert samples(peer_group([1.0, 0.0]))[0].verified is None


def test_leaves_out_what_is_not_imitable_and_keeps_it_in_the_baseline() -> None:
    group = peer_group([1.0, 1.0, 0.0, 0.0], ["a", "b", "c", "d"])
    found = samples_of(
        [group],
        advantage="mean",
        encode_prompt=lambda prompt: [len(prompt)],
        encode_text=lambda text: [ord(character) for character in text],
        eos_id=EOS,
        max_completion_tokens=10,
        is_imitable=lambda group, completion: completion.text != "b",
    )
    assert [(s.completion_ids[0], s.advantage) for s in found] == [
        (97, 0.5), (99, -0.5), (100, -0.5)
    ]  # fmt: skip
