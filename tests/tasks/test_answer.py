import doctest

import pytest

from swarmnode.tasks import answer


def test_examples_in_the_docstrings_hold() -> None:
    assert doctest.testmod(answer).failed == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<answer>5</answer>", "5"),
        ("x<answer>\n 5 \n</answer>y", "5"),
        ("<answer>4</answer><answer>5</answer>", "5"),
        ("<answer>4<answer>5</answer>", "5"),
        ("<answer></answer>", ""),
        ("<answer>5", None),
        ("5</answer>", None),
        ("</answer>5<answer>", None),
        ("<ANSWER>5</ANSWER>", None),
        ("", None),
    ],
)
def test_tag_is_the_last_closed_one(text: str, expected: str | None) -> None:
    assert answer.extract(text, "tag") == expected


def test_instruction_names_both_tags_and_is_empty_for_whole() -> None:
    assert answer.OPEN_TAG in answer.instruction("tag")
    assert answer.CLOSE_TAG in answer.instruction("tag")
    assert answer.instruction("whole") == ""
