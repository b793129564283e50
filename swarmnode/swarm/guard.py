"""Lowers the weight of peers' completions while this node's own reward falls.

The own reward of fresh questions is compared window by window: a mean more than two standard
errors below that of one of the last windows halves the share, every other window brings a tenth of
what is missing back. Fresh questions never repeat, so this reward is as held out as an evaluation,
and free. A fall has other causes too; the guard only makes sure that peers are not the reason for
long.
"""

import math
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from swarmnode.rollout import Group

# Groups in one window, and windows that the newest is compared with.
WINDOW_GROUPS = 64
COMPARED = 3
# Standard errors of the difference that count as a fall; by chance about one window in forty.
FALL_ERRORS = 2.0
LEAST_SHARE = 1 / 16
_RETURN = 0.1


class Guard:
    """`share` multiplies the weight of peers' part of the loss: 1, or less after a fall."""

    def __init__(self) -> None:
        self.share = 1.0
        self._window: list[float] = []  # mean rewards of this window's groups
        self._past: deque[tuple[float, float]] = deque(maxlen=COMPARED)  # mean, squared error

    def note(self, groups: Iterable[Group]) -> None:
        """Takes in own groups, before any filtering."""
        for group in groups:
            self._window.append(group.mean_reward)
            if len(self._window) == WINDOW_GROUPS:
                self._close_window()

    def _close_window(self) -> None:
        count = len(self._window)
        mean = math.fsum(self._window) / count
        squared_error = math.fsum((x - mean) ** 2 for x in self._window) / (count * (count - 1))
        fell = any(
            mean < before - FALL_ERRORS * math.sqrt(squared_error + error)
            for before, error in self._past
        )
        if fell:
            self.share = max(LEAST_SHARE, self.share / 2)
        else:
            self.share += _RETURN * (1 - self.share)
        self._past.append((mean, squared_error))
        self._window.clear()

    def state(self) -> dict[str, Any]:
        """What `load_state` restores, JSON-able."""
        return {"share": self.share, "window": self._window, "past": list(self._past)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes over what `state` returned."""
        self.share = state["share"]
        self._window = list(state["window"])
        self._past.clear()
        self._past.extend((mean, error) for mean, error in state["past"])
