"""Dr. GRPO (arXiv 2503.20783): the clipped surrogate without a length in its divisor.

    loss = (1 / S) Σ_completions (1 / L) Σ_tokens −min(ρA, clip(ρ) A),   L a constant

with S completions in the step: a token weighs the same in a short and in a long completion, and,
unlike in a token mean, a step of longer completions is a longer step. Its advantages are the
rule `mean`, without the standard deviation; the rule is `train.advantage`, not set from here.

Departures from the paper:

1. L is `train.length_tokens`. The paper's code takes the longest completion allowed, which is the
   value to give; a peer's completion may be longer than it.
2. The bounds are `train.clip_low` and `train.clip_high`, equal in the paper.
"""

from swarmnode.config import TrainSettings
from swarmnode.train.objectives.dapo import dapo
from swarmnode.train.objectives.tokens import Terms, Tokens


def dr_grpo(tokens: Tokens, settings: TrainSettings) -> Terms:
    """The clipped surrogate of `dapo`; what differs is the divisor in the table."""
    return dapo(tokens, settings)
