"""Where the answer stands in a completion, and what a model is told about it.

Linear in the text's length: no regular expression sees a completion.
"""

from typing import Final, Literal

AnswerFormat = Literal["whole", "tag"]

OPEN_TAG: Final = "<answer>"
CLOSE_TAG: Final = "</answer>"


def instruction(answer_format: AnswerFormat) -> str:
    """The system instruction for a format; empty for "whole", where the task's text says it all."""
    if answer_format == "whole":
        return ""
    return (
        "Think step by step, then write the final answer, and nothing else, "
        f"between {OPEN_TAG} and {CLOSE_TAG}."
    )


def extract(text: str, answer_format: AnswerFormat) -> str | None:
    """The answer in a completion, stripped of surrounding white space; None if there is none.

    "whole" is the whole completion, "tag" what the last closing tag and the opening tag nearest
    before it enclose.

    >>> extract("<answer>4</answer> no, <answer> 5 </answer>.", "tag")
    '5'
    >>> extract("The answer is 5", "tag") is None
    True
    >>> extract(" 5\\n", "whole")
    '5'
    """
    place = span(text, answer_format)
    return None if place is None else text[slice(*place)]


def span(text: str, answer_format: AnswerFormat) -> tuple[int, int] | None:
    """Where in a completion the answer that `extract` returns starts and ends.

    >>> span("<answer> 5 </answer>", "tag")
    (9, 10)
    """
    start, end = 0, len(text)
    if answer_format == "tag":
        end = text.rfind(CLOSE_TAG)
        opened = text.rfind(OPEN_TAG, 0, max(end, 0))
        if opened < 0:
            return None
        start = opened + len(OPEN_TAG)
    inner = text[start:end]
    start += len(inner) - len(inner.lstrip())
    return start, start + len(inner.strip())
