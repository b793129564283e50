"""When an answer is right: one strict comparison per kind of answer, 0 or 1 and nothing between.

Departures from reasoning-gym's scorers, which decide what `RULES` must agree with on honest
answers (its score ≥ 0.99 is "right"):
1. No partial credit: its floors of 0.01 to 0.1 and near misses are 0 here. They would give every
   group a spread of rewards and so an advantage.
2. The whole answer counts. Its fraction scorer reads a prefix, its default scorer any substring.
3. Numbers are plain ASCII in bounded length. `Decimal` and `int` read "1_000", "١", "NaN".
4. Integers may have a sign, leading zeros and thousands commas in all tasks, not in some.

Runs in the scorer process on strangers' text: standard library only, no evaluation, no parsing
but the anchored patterns below, each linear in the answer's length.
"""

import re
from collections.abc import Callable, Mapping
from decimal import Context, Decimal
from typing import Any, Final

# Characters of an answer that are looked at. The longest honest answer (a 12 × 12 grid, a
# data-set row of `rows.MAX_ANSWER_CHARACTERS`) is shorter; a longer text is wrong unread.
MAX_ANSWER_CHARACTERS: Final = 4096

_INTEGER = re.compile(r"([+-]?)((?:[0-9]{1,3}(?:,[0-9]{3})+)|[0-9]+)", re.ASCII)
_DECIMAL = re.compile(r"[+-]?[0-9]{1,40}(?:\.[0-9]{1,40})?(?:[eE][+-]?[0-9]{1,2})?", re.ASCII)
_FRACTION = re.compile(
    r"(?:([0-9]+) ?/ ?([0-9]+))|(?:\\d?frac ?\{ ?([0-9]+) ?\} ?\{ ?([0-9]+) ?\})", re.ASCII
)
# Significant digits that hold the sum of two `_DECIMAL`s exactly: 40 + 99 before the point,
# 40 + 99 after it, one carry.
_CONTEXT = Context(prec=280)


def is_right(given: str, expected: str, metadata: Mapping[str, Any]) -> bool:
    """Whether `given` is the answer `expected`, by the rule that `metadata["compare"]` names.

    Raises `ValueError` for a rule that does not exist or an `expected` it cannot read: our bug.
    """
    rule = RULES.get(metadata.get("compare", ""))
    if rule is None:
        raise ValueError(f"no comparison {metadata.get('compare')!r}")
    if not given or len(given) > MAX_ANSWER_CHARACTERS:
        return False
    return rule(given, expected, metadata)


def readable(expected: str, metadata: Mapping[str, Any]) -> bool:
    """Whether the rule can read `expected` as an answer, so that an equal text is right.

    >>> readable("12", {"compare": "integer"}), readable("a dozen", {"compare": "integer"})
    (True, False)
    """
    try:
        return is_right(expected, expected, metadata)
    except ValueError:
        return False


def _text(given: str, expected: str, metadata: Mapping[str, Any]) -> bool:
    return given == expected


def _word(given: str, expected: str, metadata: Mapping[str, Any]) -> bool:
    return given.lower() == expected.lower()


def _grid(given: str, expected: str, metadata: Mapping[str, Any]) -> bool:
    """The same cells in the same lines, however far apart."""
    return [line.split() for line in given.split("\n")] == [
        line.split() for line in expected.split("\n")
    ]


def _integer(given: str, expected: str, metadata: Mapping[str, Any]) -> bool:
    return _plain_integer(given) == _plain_integer(expected) != ""


def _fraction(given: str, expected: str, metadata: Mapping[str, Any]) -> bool:
    """The same numerator and denominator, plain or in LaTeX; an unreduced fraction is wrong."""
    return _terms(given) == _terms(expected) != ("", "")


def _decimal(given: str, expected: str, metadata: Mapping[str, Any]) -> bool:
    """Within `metadata["tolerance"]`, a decimal number as text, of the expected number."""
    if not _DECIMAL.fullmatch(expected):
        raise ValueError(f"the answer {expected!r} is not a decimal number")
    if not _DECIMAL.fullmatch(given):
        return False
    difference = _CONTEXT.subtract(Decimal(given), Decimal(expected))
    return abs(difference) <= Decimal(metadata.get("tolerance", "0"))


def _plain_integer(text: str) -> str:
    """An integer without "+", commas and leading zeros; "" if it is none. Never an `int`, whose
    reading is quadratic in the number of digits."""
    match = _INTEGER.fullmatch(text)
    if match is None:
        return ""
    digits = match[2].replace(",", "").lstrip("0") or "0"
    return f"-{digits}" if match[1] == "-" and digits != "0" else digits


def _terms(text: str) -> tuple[str, str]:
    inner = text[1:-1] if len(text) > 1 and text[0] == text[-1] == "$" else text
    match = _FRACTION.fullmatch(" ".join(inner.split()))
    if match is None:
        return "", ""
    numerator, denominator = match[1] or match[3], match[2] or match[4]
    return _plain_integer(numerator), _plain_integer(denominator)


RULES: Final[Mapping[str, Callable[[str, str, Mapping[str, Any]], bool]]] = {
    "text": _text,
    "word": _word,
    "grid": _grid,
    "integer": _integer,
    "fraction": _fraction,
    "decimal": _decimal,
}
