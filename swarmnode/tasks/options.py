"""Which options of a data set a manifest may set, and within which bounds.

A manifest comes from a stranger as often as a rollout does. What it can reach is listed here:
options that name files, and values that make a generator slow, endless or evaluate text, are not.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from swarmnode.errors import ConfigError


class Kind(Protocol):
    """The values that one option may take."""

    def accepts(self, value: Any) -> bool: ...

    def __str__(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Whole:
    """An integer from `low` to `high`, both allowed."""

    low: int
    high: int

    def accepts(self, value: Any) -> bool:
        return type(value) is int and self.low <= value <= self.high

    def __str__(self) -> str:
        return f"an integer from {self.low} to {self.high}"


@dataclass(frozen=True, slots=True)
class Real:
    """A number from `low` to `high`, both allowed."""

    low: float
    high: float

    def accepts(self, value: Any) -> bool:
        return type(value) in (int, float) and self.low <= value <= self.high

    def __str__(self) -> str:
        return f"a number from {self.low} to {self.high}"


@dataclass(frozen=True, slots=True)
class Flag:
    """True or false."""

    def accepts(self, value: Any) -> bool:
        return type(value) is bool

    def __str__(self) -> str:
        return "true or false"


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of some strings."""

    allowed: tuple[str, ...]

    def accepts(self, value: Any) -> bool:
        return type(value) is str and value in self.allowed

    def __str__(self) -> str:
        return "one of " + ", ".join(self.allowed)


@dataclass(frozen=True, slots=True)
class SomeOf:
    """A list without repetition, not empty, of some strings."""

    allowed: tuple[str, ...]

    def accepts(self, value: Any) -> bool:
        return (
            type(value) is list
            and 0 < len(value) <= len(self.allowed)
            and all(type(item) is str and item in self.allowed for item in value)
            and len(set(value)) == len(value)
        )

    def __str__(self) -> str:
        return "a list from " + ", ".join(self.allowed)


@dataclass(frozen=True, slots=True)
class Text:
    """A string of 1 to `longest` characters."""

    longest: int

    def accepts(self, value: Any) -> bool:
        return type(value) is str and 0 < len(value) <= self.longest

    def __str__(self) -> str:
        return f"a string of 1 to {self.longest} characters"


def check(task: str, options: Mapping[str, Any], allowed: Mapping[str, Kind]) -> None:
    """Raises `ConfigError` for an option that is not allowed or a value out of its bounds."""
    for key, value in options.items():
        kind = allowed.get(key)
        if kind is None:
            known = ", ".join(sorted(allowed))
            raise ConfigError(f"task {task}: no option {key!r}; allowed are {known}")
        if not kind.accepts(value):
            raise ConfigError(f"task {task}: option {key} is {value!r}; it must be {kind}")
