"""Names of `train.objective` → the function and how its terms are averaged."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from swarmnode.config import TrainSettings
from swarmnode.train.objectives.cispo import cispo
from swarmnode.train.objectives.dapo import dapo
from swarmnode.train.objectives.decoupled import decoupled
from swarmnode.train.objectives.dppo_tv import dppo_tv
from swarmnode.train.objectives.dr_grpo import dr_grpo
from swarmnode.train.objectives.gspo import gspo
from swarmnode.train.objectives.soft_gate import soft_gate
from swarmnode.train.objectives.tokens import Terms, Tokens
from swarmnode.train.objectives.topr import topr


@dataclass(frozen=True, slots=True)
class Objective:
    """`average` says what the sum of a step's terms is divided by.

    "tokens": the number of tokens. "completions": each completion's tokens first, then the number
    of completions. "length": the number of completions times `train.length_tokens`.
    `reads_sampler`: the terms correct for the sampler's distribution themselves.
    """

    terms: Callable[[Tokens, TrainSettings], Terms]
    average: Literal["tokens", "completions", "length"]
    reads_sampler: bool = False


OBJECTIVES: Mapping[str, Objective] = MappingProxyType(
    {
        "dapo": Objective(dapo, "tokens"),
        "dr_grpo": Objective(dr_grpo, "length"),
        "gspo": Objective(gspo, "completions"),
        "cispo": Objective(cispo, "tokens"),
        "dppo_tv": Objective(dppo_tv, "tokens", reads_sampler=True),
        "soft_gate": Objective(soft_gate, "completions"),
        "topr": Objective(topr, "tokens", reads_sampler=True),
        "decoupled": Objective(decoupled, "tokens", reads_sampler=True),
    }
)
