"""Whether a completion ended goes from its sampler, over the wire, to a peer's trainer."""

import pytest

from protocol.envelope import open_frame, seal
from protocol.messages import Rollout
from swarmnode.rollout import Completion, Group, Origin, Question
from swarmnode.samples import samples_of
from swarmnode.swarm.exchange import Arrival

EOS = 0
QUESTION = Question("sum", b"task", 1, "1 + 1?", "2", held_out=False)


def arrival(texts: list[str], ended: list[bool]) -> Arrival:
    """What a peer makes of a published group."""
    rollout = Rollout.build(
        task_digest=b"task",
        seed=1,
        created=1_780_000_000,
        policy_version=1,
        temperature=1.0,
        model_label="demo",
        texts=texts,
        mean_logps=[-0.5] * len(texts),
        token_counts=[1] * len(texts),
        ended=ended,
    )
    opened = open_frame(seal(rollout, bytes(32), bytes(32)).frame, bytes(32))
    assert type(opened.message) is Rollout
    origin = Origin(opened.author, opened.id, "demo", 1_780_000_000.0, 1)
    return Arrival(QUESTION, opened.message, origin)


def trained_ids(group: Group) -> list[tuple[int, ...]]:
    samples = samples_of(
        [group],
        advantage="mean",
        encode_prompt=lambda prompt: [9],
        encode_text=lambda text: [ord(character) for character in text],
        eos_id=EOS,
        max_completion_tokens=3,
    )
    return [tuple(sample.completion_ids) for sample in samples]


@pytest.mark.parametrize("ended", [[True, False], [False, True]])
def test_ended_survives_the_wire(ended: list[bool]) -> None:
    assert [completion.ended for completion in arrival(["2", "3"], ended).completions] == ended


def test_only_a_peers_completion_that_ended_is_trained_to_end() -> None:
    group = arrival(["2", "3"], [True, False]).scored([1.0, 0.0])
    assert trained_ids(group) == [(ord("2"), EOS), (ord("3"),)]


def test_eos_counts_towards_the_length_limit_only_where_it_is_appended() -> None:
    group = arrival(["222", "333"], [True, False]).scored([1.0, 0.0])
    assert trained_ids(group) == [(ord("3"),) * 3]


def test_a_cut_completion_without_text_has_nothing_to_train_on() -> None:
    group = arrival(["", ""], [True, False]).scored([1.0, 0.0])
    assert trained_ids(group) == [(EOS,)]


def test_own_completions_are_taken_as_sampled() -> None:
    own = Completion("2", -0.5, 1, token_ids=(50,), logps=(-0.5,), ended=False)
    other = Completion("3", -0.5, 2, token_ids=(51, EOS), logps=(-0.5, -0.5))
    assert trained_ids(Group(QUESTION, (own, other), (1.0, 0.0), 1, 1.0)) == [(50,), (51, EOS)]
