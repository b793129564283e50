"""How many completions a question gets: more where learning stalls.

Where a question is hard, all of G answers are wrong and the group teaches nothing; one with more
answers finds a right one more often (BroRL, arXiv 2510.01180, which takes G from 16 to 512 at the
start of a second phase). Departure: here G doubles, up to a limit, whenever few of the last groups
had a signal, and halves when most have, so that the cost stays where it pays.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from swarmnode.rollout import Group

WINDOW_GROUPS = 32
# Shares of groups with a signal between which G stays as it is.
STALLED, FLOWING = 0.25, 0.6


class Breadth:
    """`completions` is G for the next questions, between `least` and `most`."""

    def __init__(self, least: int, most: int) -> None:
        self.completions = least
        self._least = least
        self._most = max(least, most)
        self._signals: deque[bool] = deque(maxlen=WINDOW_GROUPS)

    def note(self, groups: Iterable[Group]) -> None:
        """Takes in own groups, before any filtering. After a change it looks at a new window."""
        for group in groups:
            self._signals.append(group.has_signal)
            if len(self._signals) == WINDOW_GROUPS:
                self._adapt(sum(self._signals) / WINDOW_GROUPS)

    def state(self) -> dict[str, Any]:
        """What `load_state` restores, JSON-able."""
        return {"completions": self.completions, "signals": list(self._signals)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes over what `state` returned, within this node's limits."""
        self.completions = min(self._most, max(self._least, state["completions"]))
        self._signals.clear()
        self._signals.extend(state["signals"])

    def _adapt(self, share: float) -> None:
        before = self.completions
        if share < STALLED:
            self.completions = min(self._most, 2 * before)
        elif share > FLOWING:
            self.completions = max(self._least, before // 2)
        if self.completions != before:
            self._signals.clear()
