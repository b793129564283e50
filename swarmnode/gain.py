"""A node's own estimate of what its swarm gives it, from the last measured steps.

The estimate is Σ peers / (Σ own + Σ peers) over the newest measured steps (`train/alignment.py`):
the share of this node's progress on its own questions that its peers' completions bring. (The ratio
Σ peers / Σ own says the same, but its denominator comes from few answers and is often near 0.) Its
standard error is the jackknife's over blocks of steps, since neighbours are alike.
"""

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# Steps in the estimate, and how many there must be before anything is said.
WINDOW = 200
LEAST = 20
BLOCKS = 10

Pair = tuple[float, float]  # (own, peers) of one step


@dataclass(frozen=True, slots=True)
class Gain:
    """`share` 0: peers' completions bring nothing; 1: all of the progress; below 0: harm."""

    share: float
    error: float  # one standard error


class GainEstimate:
    """Keeps the newest `WINDOW` pairs (own, peers)."""

    def __init__(self) -> None:
        self._pairs: deque[Pair] = deque(maxlen=WINDOW)

    def note(self, own: float, peers: float) -> None:
        """Takes in one measured step; what is not finite is left out."""
        if math.isfinite(own) and math.isfinite(peers):
            self._pairs.append((own, peers))

    def now(self) -> Gain | None:
        """The estimate, if there is one."""
        return estimate(list(self._pairs))

    def state(self) -> list[list[float]]:
        """What `load_state` restores, JSON-able."""
        return [list(pair) for pair in self._pairs]

    def load_state(self, state: Iterable[Sequence[float]]) -> None:
        """Takes over what `state` returned."""
        self._pairs.clear()
        self._pairs.extend((own, peers) for own, peers in state)


def estimate(pairs: Sequence[Pair]) -> Gain | None:
    """From measured steps, each (own, peers). None below `LEAST` steps, and while all together, or
    without one of the blocks, show no progress that could be shared."""
    if len(pairs) < LEAST:
        return None
    ends = [len(pairs) * i // BLOCKS for i in range(BLOCKS + 1)]
    without = [_share([*pairs[: ends[i]], *pairs[ends[i + 1] :]]) for i in range(BLOCKS)]
    share = _share(pairs)
    known = [value for value in without if value is not None]
    if share is None or len(known) < BLOCKS:
        return None
    mean = math.fsum(known) / BLOCKS
    variance = math.fsum((value - mean) ** 2 for value in known)
    return Gain(share, math.sqrt(variance * (BLOCKS - 1) / BLOCKS))


def _share(pairs: Sequence[Pair]) -> float | None:
    peers = math.fsum(pair[1] for pair in pairs)
    whole = math.fsum(pair[0] for pair in pairs) + peers
    return peers / whole if whole > 0 else None
