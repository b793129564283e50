"""One finding of the doctor."""

import enum
from dataclasses import dataclass


class Level(enum.StrEnum):
    """How bad it is: a warning lets a node run, with less than it could have."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Check:
    """`found` says what is so, `fix` how to mend it; empty where there is nothing to mend."""

    name: str
    level: Level
    found: str
    fix: str = ""

    def as_dict(self) -> dict[str, str]:
        """For JSON."""
        return {
            "name": self.name, "level": self.level.value, "found": self.found, "fix": self.fix
        }  # fmt: skip


def ok(name: str, found: str) -> Check:
    """All is well."""
    return Check(name, Level.OK, found)


def warning(name: str, found: str, fix: str) -> Check:
    """A node runs, with less than it could have."""
    return Check(name, Level.WARNING, found, fix)


def problem(name: str, found: str, fix: str) -> Check:
    """A node would not run, or not long."""
    return Check(name, Level.PROBLEM, found, fix)
