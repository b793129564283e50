"""Log lines above a live display: rich would wrap them hard, and an address could not be copied."""

from dataclasses import dataclass
from typing import TextIO, cast

from rich.console import Console


@dataclass(frozen=True)
class _Above:
    """The two methods of a text stream that `logging` calls."""

    console: Console

    def write(self, text: str) -> int:
        self.console.print(text, end="", soft_wrap=True, markup=False, highlight=False)
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""


def above(console: Console) -> TextIO:
    """A stream whose lines appear above the live display of `console`, unwrapped."""
    return cast(TextIO, _Above(console))
