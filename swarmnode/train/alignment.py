"""What a step's peers' part does for this node's own objective, to first order.

With g_own and g_peers the two parts of a step's gradient, a small step along −g changes the own
objective J by −⟨∇J, g⟩. Own completions of one half of the own groups, a, and of the other, b, are
independent estimates of ∇J, so that products between them carry no noise of their own:

    own     = ⟨g_a, g_b⟩ / (a b)      a, b: the halves' shares of the own tokens, a + b = 1
    peers   = ⟨g_a + g_b, g_peers⟩

peers / own says how much own progress the peers' part of the step brings for each unit that the own
part brings: 0, nothing; 1, as much again; below 0, it works against this node. Both are noisy:
only sums over many steps mean anything (`swarmnode/gain.py`).

It holds for the tasks that the node practises and for small plain gradient steps: Adam's scaling is
left out, since it correlates with the very noise that the halves are there to cancel (tried: the
sign was then wrong). It does not see what peers' completions change in later rounds, good or bad.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from swarmnode.train.batch import Sample


@dataclass(frozen=True, slots=True)
class Alignment:
    """The two products above, in the same arbitrary unit."""

    own: float
    peers: float


@dataclass(frozen=True, slots=True)
class Parts:
    """A step's samples, own ones in two halves that share no question."""

    first: list[Sample]
    second: list[Sample]
    peers: list[Sample]

    @property
    def shares(self) -> tuple[float, float]:
        """Of the own completion tokens, by half."""
        first, second = (sum(len(s.completion_ids) for s in p) for p in (self.first, self.second))
        return first / (first + second), second / (first + second)


def parts_of(samples: Sequence[Sample]) -> Parts | None:
    """The parts of a step; None when own groups do not suffice for two halves, or none is a
    peer's. Questions are dealt to the halves in turn, in the order in which they appear."""
    own: dict[tuple[int, ...], list[Sample]] = {}
    for sample in samples:
        if not sample.external:
            own.setdefault(sample.prompt_ids, []).append(sample)
    peers = [sample for sample in samples if sample.external]
    if len(own) < 2 or not peers:
        return None
    groups = list(own.values())
    return Parts(
        [sample for group in groups[::2] for sample in group],
        [sample for group in groups[1::2] for sample in group],
        peers,
    )
