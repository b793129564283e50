"""What came of one kind of fault, for the table."""

from collections import Counter
from dataclasses import dataclass, field

from crashing.judge import Verdict


@dataclass(slots=True)
class Outcome:
    """One kind of fault, several times. `wrong` holds what should not have happened."""

    name: str
    times: int = 0
    codes: Counter[int] = field(default_factory=Counter)
    corrupt: list[str] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)
    equal: int = 0
    wrong: list[str] = field(default_factory=list)

    def ended(self, code: int, said: str, wanted: int, word: str = "") -> None:
        """How the disturbed life ended: its last line must hold `word`, without a traceback."""
        self.times += 1
        self.codes[code] += 1
        last = (said.strip().splitlines() or [""])[-1]
        if code != wanted or word not in last or "Traceback" in said:
            self.wrong.append(f"{self.name}: exit code {code}, said {last[-300:]!r}")

    def note(self, verdict: Verdict) -> None:
        """What the disturbed life left on disk."""
        self.corrupt += [f"{self.name}: {text}" for text in verdict.corrupt]
        self.lost.append(verdict.lost)

    def resumed(self, is_equal: bool) -> None:
        """Whether the next life went on as the uninterrupted run did."""
        self.equal += is_equal
        if not is_equal:
            self.wrong.append(f"{self.name}: the next life did not go on as if never stopped")
