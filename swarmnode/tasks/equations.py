"""Equations written out in a text that are false: `3+4=8`. Read literally, never evaluated.

A peer may reason wrongly and still give the right answer; whoever imitates it learns wrong
arithmetic. What is read is what needs no understanding: whole numbers in ASCII digits joined by
+ - * / × · ÷ and compared by =, chains such as `2*3+1=6+1=7` included. Everything else, words,
variables, brackets, decimals, powers, is passed over: what is not understood is not called false.

Linear in the text's length; numbers and sides are bounded, so their arithmetic is as well. Standard
library only: it also runs on strangers' text inside the node.
"""

import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Final

# Characters of a text that are looked at, digits of a number and tokens of a side. What is larger
# is passed over, so the work is bounded whatever a stranger writes.
MAX_CHARACTERS: Final = 20_000
MAX_DIGITS: Final = 12
MAX_SIDE_TOKENS: Final = 64

_OPERATORS: Final = {"+": "+", "-": "-", "−": "-", "*": "*", "×": "*", "·": "*", "/": "/", "÷": "/"}
_DIGITS: Final = frozenset("0123456789")
# Numbers, words, white space, and every other character by itself: one of them fits always, so the
# reading is linear.
_PIECES: Final = re.compile(r"[0-9]+|[^\W\d_]+|\s+|.", re.DOTALL)
# Next to a number these are other notations: powers, decimals, thousands, calls, brackets, units.
_GLUE: Final = frozenset("^.,_()[]{}%!\\$€")
# Before a number these words calculate: what follows is only a part of the side.
_CALCULATING: Final = frozenset(
    (
        "mod", "of", "times", "plus", "minus", "over", "by", "div", "sqrt", "root", "log", "base",
        "power", "choose", "remainder", "r",
    )
)  # fmt: skip
_UNREADABLE: Final = "."  # stands for what makes a side unreadable


def false_equations(text: str) -> list[str]:
    """The false equations in `text`, as read: without spaces, in order.

    >>> false_equations("3+4 = 8, and 2*3=6")
    ['3+4=8']
    >>> false_equations("10-3-2=5=4")
    ['5=4']
    >>> false_equations("x+4=8, 1/2=0.5, f(2)=3, 2^3=8, 17 mod 5+2=4, 1010=10")
    []
    """
    found = []
    for run in _runs(text[:MAX_CHARACTERS]):
        sides = _sides(run)
        if all(len(side) < 2 for side in sides):  # `1010=10` may compare two notations
            continue
        for left, right in pairwise(sides):
            values = _value(left), _value(right)
            if None not in values and values[0] != values[1]:
                found.append(f"{''.join(left)}={''.join(right)}")
    return found


def is_false(text: str) -> bool:
    """Whether `text` holds an equation that is false."""
    return bool(false_equations(text))


def _runs(text: str) -> Iterator[list[str]]:
    """Stretches of numbers, operators and equals signs; `_UNREADABLE` where one touches something
    that may belong to it. A full stop or comma that no digit follows ends a sentence."""
    run: list[str] = []
    word = ""  # the last one, if only spaces follow it
    for match in _PIECES.finditer(text):
        piece, before = match[0], text[match.start() - 1 : match.start()]
        match _kind(piece, text, match.start()):
            case "number":
                if word in _CALCULATING or before.isalpha():
                    run.append(_UNREADABLE)
                run.append(piece)
                word = ""
            case "sign":
                if word:
                    run.append(_UNREADABLE)
                run.append(_OPERATORS.get(piece, "="))
                word = ""
            case "word":
                word = piece.casefold()
                if run and (before in _DIGITS or word in _CALCULATING):
                    run.append(_UNREADABLE)
                yield run
                run = []
            case "glue":
                run.append(_UNREADABLE)
                word = ""
            case "end":
                yield run
                run, word = [], ""
    yield run


def _kind(piece: str, text: str, place: int) -> str:
    """What a piece of `text` that starts at `place` is to an equation."""
    if piece[0] in _DIGITS:
        return "number"
    if piece in _OPERATORS or piece == "=":
        return "sign"
    if piece[0].isalpha():
        return "word"
    if piece.isspace():
        return "space"
    return "glue" if piece in _GLUE and not _ends_sentence(text, place) else "end"


def _ends_sentence(text: str, place: int) -> bool:
    return text[place] in ".,!" and (place + 1 == len(text) or text[place + 1] not in _DIGITS)


def _sides(run: Sequence[str]) -> list[list[str]]:
    sides: list[list[str]] = [[]]
    for part in run:
        if part == "=":
            if sides[-1]:  # else `==`, or a side that is missing
                sides.append([])
        else:
            sides[-1].append(part)
    return sides


def _value(side: Sequence[str]) -> Fraction | None:
    """What a side is worth, products before sums; None for what is no plain sum of products."""
    if not side or len(side) > MAX_SIDE_TOKENS:
        return None
    total = Fraction(0)
    term: Fraction | None = None
    operator, sign = "", 1
    for part in side:
        if part.isdigit():
            if len(part) > MAX_DIGITS or (term is not None and not operator):
                return None
            factor = sign * Fraction(int(part))
            if operator == "/" and not factor:
                return None
            term = _joined(term, operator, factor)
            operator, sign = "", 1
        elif part in "+-":
            if term is not None and not operator:
                total, term = total + term, None
            sign = -sign if part == "-" else sign
        elif part in "*/" and term is not None and not operator:
            operator = part
        else:
            return None
    return None if term is None or operator else total + term


def _joined(term: Fraction | None, operator: str, factor: Fraction) -> Fraction:
    if term is None:
        return factor
    return term * factor if operator == "*" else term / factor
