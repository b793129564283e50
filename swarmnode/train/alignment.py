"""What a step's peers' part does for this node's own objective, to first order.

With g_1 … g_n the gradients of the own groups in a step, one for each question, and p that of the
peers' part, a small step along −(Σ g + p) changes the own objective J by −⟨∇J, Σ g + p⟩. The own
groups estimate ∇J, each without itself where it is asked what it brings:

    own    = Σ_i ⟨g_i, mean of the other g_j⟩ = (|Σ g|² − Σ |g_i|²) / (n − 1)
    peers  = ⟨mean of g, p⟩

Σ peers / Σ (own + peers) over many steps says which share of the own progress the peers' part
brings (`swarmnode/gain.py`). All gradients are of the same weights and of independent answers, so
noise is in neither product on average. Single steps mean little. (Tried: |Σ g|² for `own`, whose
noise makes it tenfold too large with few answers; the mean of past own gradients for ∇J, which
turns against what it has brought about, and so gives negative products once a node learns slowly.)

It holds for the tasks that the node practises and for small plain gradient steps. It does not see
what peers' completions change in later rounds, good or bad.
"""

import math
from dataclasses import dataclass

from torch import Tensor

# Coordinates of a gradient that are looked at, evenly spread over the weights: 16 MB for each of
# the vectors, however large the model.
COORDINATES = 1 << 22


@dataclass(frozen=True, slots=True)
class Alignment:
    """The two products above, in the same arbitrary unit."""

    own: float
    peers: float


class Parts:
    """The parts of one step, from its gradient as it adds up: own groups first, peers' at last."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """For a step that begins anew."""
        self._own: Tensor | None = None  # Σ g, (C,)
        self._whole: Tensor | None = None  # with p
        self._squares = 0.0
        self._groups = 0

    def add(self, gradient: Tensor, *, is_own: bool) -> None:
        """`gradient` (C,) is that of all parts so far, of which the newest is one own group or all
        of peers'."""
        self._whole = gradient
        if is_own:
            newest = gradient if self._own is None else gradient - self._own
            self._squares += float(newest @ newest)
            self._own = gradient
            self._groups += 1

    def alignment(self) -> Alignment | None:
        """None: fewer than two own groups, or not a finite number."""
        if self._own is None or self._whole is None or self._groups < 2:
            return None
        own = (float(self._own @ self._own) - self._squares) / (self._groups - 1)
        peers = float(self._own @ (self._whole - self._own)) / self._groups
        return Alignment(own, peers) if math.isfinite(own) and math.isfinite(peers) else None
