"""False equations are found as far as they are plain, and nothing else is called false."""

import pytest

from swarmnode.tasks import equations
from swarmnode.tasks.equations import false_equations


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3+4=8", ["3+4=8"]),
        ("First 12 + 30 =\n45. Then", ["12+30=45"]),
        ("8 = 3 + 4", ["8=3+4"]),
        ("3+4==8?", ["3+4=8"]),
        ("2*3+1=6+1=8", ["6+1=8"]),
        ("-2*-3=5", ["-2*-3=5"]),
        ("12÷4=2", ["12/4=2"]),
        ("2 − 3 = 1", ["2-3=1"]),
        ("3+4=8<answer>7</answer>", ["3+4=8"]),
    ],
)
def test_finds_what_is_false(text: str, expected: list[str]) -> None:
    assert false_equations(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "3+4=7", "2--3=5", "1/2=2/4", "2*3+1=6+1=7",
        # not plain, so not judged
        "x+4=8", "3x+4=8", "a3+4=9", "f(2)=3", "(3+4)*2=15", "2^3=9", "5!=121", "17 mod 5+2=5",
        "13/4=3 remainder 1", "1/2=0.6", "1,000+1=1,002", "3+4=7.5", "1010=10", "7/0=3", "=3+4",
        "3+4=", "3 apples + 4 = 9", "", "=", "3 4=5+1 1",
    ],
)  # fmt: skip
def test_calls_nothing_else_false(text: str) -> None:
    assert false_equations(text) == []


def test_work_is_bounded() -> None:
    huge = "9" * 13
    assert false_equations(f"{huge}+1={huge}") == []
    long = "+".join(["1"] * equations.MAX_SIDE_TOKENS)
    assert false_equations(f"{long}=1") == []
    behind = " " * equations.MAX_CHARACTERS + "3+4=8"
    assert false_equations(behind) == []
