"""What a step's peers' part does for this node's own objective, to first order.

With g_own and g_peers the two parts of a step's gradient, a small step along −g changes the own
objective J by −⟨∇J, g⟩, and g_own is this node's unbiased estimate of ∇J from fresh answers:

    own    = ⟨g_own, g_own⟩
    peers  = ⟨g_own, g_peers⟩

peers / own says how much own progress the peers' part brings for each unit that the own part seems
to bring: 0, nothing; 1, as much again; below 0, it works against this node. It is cautious: `own`
contains the noise of g_own as well, which makes the ratio too small, never too large and never of
the wrong sign on average; so it grows with the number of own answers in a step. (Tried: own halves
against each other, which carries no such noise, was lost in that of the product; and Adam's scaling
in the products, which correlates with the noise.) Single steps mean little: `swarmnode/gain.py`
takes sums over many.

It holds for the tasks that the node practises and for small plain gradient steps. It does not see
what peers' completions change in later rounds, good or bad.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Alignment:
    """The two products above, in the same arbitrary unit."""

    own: float
    peers: float
