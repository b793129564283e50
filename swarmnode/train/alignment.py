"""What a step's peers' part does for this node's own objective, to first order.

With g_own and g_peers the two parts of a step's gradient, a small step along −g changes the own
objective J by −⟨∇J, g⟩. For ∇J stands d, the mean of g_own over this node's steps before this one:

    own    = ⟨d, g_own⟩
    peers  = ⟨d, g_peers⟩

Σ peers / Σ (own + peers) over many steps says which share of the own progress the peers' part
brings (`swarmnode/gain.py`). d is of other questions and other answers than g_own, so its noise is
in neither product on average. (Tried: g_own itself for d, whose noise makes `own` too large,
tenfold with few answers; own halves against each other, lost in the noise of so few; Adam's scaling
in the products, which correlates with the noise.) Single steps mean little.

It holds for the tasks that the node practises and for small plain gradient steps. It does not see
what peers' completions change in later rounds, good or bad.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

# Steps that d remembers: a step counts 1 / MEMORY, and (1 − 1 / MEMORY) times less with each later.
MEMORY = 10
# Coordinates of a gradient that are looked at, evenly spread over the weights: 16 MB for each of
# the vectors, however large the model.
COORDINATES = 1 << 22


@dataclass(frozen=True, slots=True)
class Alignment:
    """The two products above, in the same arbitrary unit."""

    own: float
    peers: float


class OwnDirection:
    """d, from the coordinates (C,) of the gradients of past steps."""

    def __init__(self) -> None:
        self.mean: Tensor | None = None  # (C,); None before the first step

    def compare(self, own: Tensor, peers: Tensor) -> Alignment | None:
        """What this step's parts (C,) do, 0 for one that is missing; then takes the own one in.
        None: nothing to compare with yet, or not a finite number."""
        found = None
        if self.mean is not None:
            found = Alignment(float(self.mean @ own), float(self.mean @ peers))
        if bool(own.any()) and bool(torch.isfinite(own).all()):
            self.mean = own.clone() if self.mean is None else self.mean.lerp(own, 1 / MEMORY)
        if found is None or not (math.isfinite(found.own) and math.isfinite(found.peers)):
            return None
        return found
