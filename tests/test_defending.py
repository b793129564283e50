"""Each defence drops what it is for, lets honest text through, and lets it all through when off."""

from typing import Any

import pytest
from fakes import FakeTasks, own_group, peer_group

from swarmnode.config import DefenceSettings
from swarmnode.defending import Defence
from swarmnode.rollout import Group
from swarmnode.tasks.answer import AnswerFormat

OFF: dict[str, Any] = {
    "equations": False, "novelty": False, "max_length": 0.0, "max_advantage": 0.0
}  # fmt: skip
TASKS = FakeTasks()  # question n: "n + 1?", answer n + 1


def spans(text: str) -> tuple[list[int], list[tuple[int, int]]]:
    return [ord(character) for character in text], [(n, n + 1) for n in range(len(text))]


def right(seed: int, before: str = "", after: str = "") -> str:
    return f"{before}{seed}+1={seed + 1}<answer>{seed + 1}</answer>{after}"


def defence(answer_format: AnswerFormat = "tag", **switches: Any) -> Defence:
    """Of a node that answered 32 questions in the honest way."""
    made = Defence(DefenceSettings(**(OFF | switches)), answer_format, spans)
    for seed in range(200, 232):
        text = right(seed)
        group = own_group([1.0, 0.0], [text, text], TASKS.question("add", seed))
        made.note_own([group])
    return made


def peer(seed: int, text: str, author: int = 1) -> Group:
    return peer_group([1.0], [text], author=author, question=TASKS.question("add", seed))


def passes(made: Defence, group: Group) -> bool:
    return made.is_imitable(group, group.completions[0])


@pytest.mark.parametrize("seed", [201, 205])
@pytest.mark.parametrize(
    ("switch", "text", "reason"),
    [
        ({"equations": True}, "{n}+2={a}<answer>{a}</answer>", "equation"),
        ({"equations": True}, "<answer>{a}</answer> 3+4=8", "equation"),
        ({"max_length": 1.25}, "so so so so so {n}+1={a}<answer>{a}</answer>", "length"),
        ({"max_length": 1.25}, "<answer>{a}</answer>" + 30 * "!", "length"),
    ],
)
def test_drops_a_text_and_keeps_it_when_off(
    switch: dict[str, Any], text: str, reason: str, seed: int
) -> None:
    group = peer(seed, text.format(n=seed, a=seed + 1))
    on, off = defence(**switch), defence()
    assert not passes(on, group)
    assert on.dropped[reason] == 1
    assert passes(off, group)
    assert passes(on, peer(seed, right(seed)))
    assert (on.kept, off.kept) == (1, 1)


def test_drops_a_phrase_that_recurs_and_keeps_it_when_off() -> None:
    on, off = defence(novelty=True), defence()
    texts = {seed: right(seed, "buy it! ") for seed in range(201, 207)}
    for made in (on, off):
        made.note_peers([peer(seed, text) for seed, text in texts.items()])
    assert not any(passes(on, peer(seed, text)) for seed, text in texts.items())
    assert all(passes(off, peer(seed, text)) for seed, text in texts.items())
    assert passes(on, peer(201, right(201)))


def test_bounds_the_advantage_unless_off() -> None:
    assert defence(max_advantage=2.0).bounded([2.4, -3.0, 1.0]) == [2.0, -2.0, 1.0]
    assert defence().bounded([2.4, -3.0]) == [2.4, -3.0]


def marked(made: Defence, text: str) -> str:
    group = peer(201, text)
    marks = made.verified_marks(group, group.completions[0])
    return "".join(c for c, mark in zip(text, marks, strict=True) if mark)


def test_marks_the_answer_where_it_is_right_to_the_letter() -> None:
    made = defence()
    assert marked(made, right(201, "202 ")) == "202"
    assert made.verified_marks(peer(201, right(201)), peer(201, right(201)).completions[0]) == [
        False] * 17 + [True] * 3 + [False] * 9  # fmt: skip
    assert marked(made, "<answer>0202</answer>") == ""
    assert marked(made, "202") == ""


def test_where_the_whole_text_is_the_answer_nothing_is_left_to_doubt() -> None:
    made = defence("whole", max_length=1.25, novelty=True, equations=True)
    for seed in (9_999_999, 99_999_999):
        group = peer(seed, str(seed + 1))
        made.note_peers([group])
        assert passes(made, group)
        assert made.verified_marks(group, group.completions[0]) == [True] * len(str(seed + 1))


def test_says_nothing_of_lengths_that_it_has_not_seen() -> None:
    fresh = Defence(DefenceSettings(**(OFF | {"max_length": 1.25})), "tag", spans)
    assert passes(fresh, peer(201, right(201, 100 * "so ")))
