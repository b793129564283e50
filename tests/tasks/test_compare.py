import doctest

import pytest

from swarmnode.tasks import compare

LONG = "1" * 3000


@pytest.mark.parametrize(
    ("rule", "expected", "right", "wrong"),
    [
        ("text", "1f", ["1f"], ["1F", "01f", "1f ", "0x1f", ""]),
        ("word", "Yes", ["Yes", "yes", "YES"], ["y", "yes.", "Yes Yes"]),
        (
            "integer",
            "1234",
            ["1234", "+1234", "01234", "1,234"],
            ["-1234", "1234.0", "12,34", "1_234", "1 234", "١٢٣٤", "1234\n", "0x4d2", "1e3", "--1"],
        ),
        ("integer", "0", ["0", "-0", "+00"], ["", "-", "+", "00,0"]),
        ("integer", LONG, [LONG, "+" + LONG], [LONG + "1", LONG[:-1]]),
        (
            "fraction",
            r"$\frac{3}{7}$",
            ["3/7", "$3/7$", r"\frac{3}{7}", r"\dfrac{3}{7}", r"$\frac {3} {7}$", "3 / 7"],
            ["6/14", "3", "7/3", "-3/7", r"\frac{3}{7} or so", "3/7/1", "$3/7", "3./7", r"\frac37"],
        ),
        (
            "grid",
            "1 2\n3 4",
            ["1 2\n3 4", "1  2 \n 3 4"],
            ["1 2 3 4", "[[1,2],[3,4]]", "1 2\n\n3 4"],
        ),
    ],
)
def test_rule(rule: str, expected: str, right: list[str], wrong: list[str]) -> None:
    metadata = {"compare": rule}
    assert [given for given in right if not compare.is_right(given, expected, metadata)] == []
    assert [given for given in wrong if compare.is_right(given, expected, metadata)] == []


@pytest.mark.parametrize(
    ("given", "right"),
    [
        ("2.5", True),
        ("+2.500", True),
        ("25e-1", True),
        ("2.501", True),  # |2.501 − 2.5| = 0.001, the tolerance itself
        ("2.499", True),
        ("2.5011", False),
        ("NaN", False),
        ("Infinity", False),
        ("2,5", False),
        ("2_5e-1", False),
        ("25e-0000001", False),
        ("1e999999999", False),
        ("5/2", False),
    ],
)
def test_decimal_rule_allows_the_tolerance_and_no_more(given: str, right: bool) -> None:
    assert compare.is_right(given, "2.5", {"compare": "decimal", "tolerance": "0.001"}) is right


def test_decimal_rule_is_exact_without_a_tolerance() -> None:
    # 40 digits before the point and 40 after it: a context of 28 digits would call them equal.
    long = "1" * 40 + "." + "0" * 39 + "1"
    assert compare.is_right(long, long, {"compare": "decimal"})
    assert not compare.is_right(long[:-1] + "2", long, {"compare": "decimal"})
    assert not compare.is_right("1" * 40, long, {"compare": "decimal"})


def test_an_answer_longer_than_the_limit_is_wrong_unread() -> None:
    long = "x" * (compare.MAX_ANSWER_CHARACTERS + 1)
    assert not compare.is_right(long, long, {"compare": "text"})
    assert compare.is_right(long[1:], long[1:], {"compare": "text"})


def test_an_unknown_rule_is_our_bug() -> None:
    with pytest.raises(ValueError, match="no comparison"):
        compare.is_right("1", "1", {})


def test_examples_in_the_docstrings_hold() -> None:
    assert doctest.testmod(compare).failed == 0
