"""The regimes and arms of the table: fixed here, committed before the runs, changed by no result.

A regime is what the swarm is like; an arm is what every one of its nodes does; a run is one arm in
one regime with one seed. Within a regime and seed all arms have the same warm start, and a node
has the same stream of questions in every arm, so that differences are paired.

Departures from the published experiment (arXiv 2509.08721, section 5):

1. A model of 0.26 M parameters and small tasks, 80 rounds, and the learning rate of the demo's
   settings, 3e-4. It was settled on seed 1 before any table: at 1e-3 every arm tried (8/0, 4/4, 2/6
   and `alone 2`) collapsed to constant answers, at 3e-4 and 1e-4 a node alone (8/0) learns.
2. Nodes share their policies' warm start but not their questions, as there; every seed has its own
   warm start, so that the spread over seeds is that of the whole experiment.
3. The reward that counts is that of fresh own completions before any filter, and it is a mean:
   the paper adds up the rewards of I + J rollouts after the peers' were filtered.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

import msgspec

from swarmnode.config import HybridSettings, SharingSettings, TrainSettings

SMALL_WIDTH = 64  # 0.12 M parameters
BASELINE = "8/0"  # the arm that every other is compared with
# Seeds 1 and 11 to 14 served to settle the learning rate and the parts of `hybrid`; none is here.
SEEDS = (2, 3, 4, 5, 6)
MIXED_SEEDS = (2, 3, 4)  # each of them needs a second warm start
ABLATION_SEEDS = (2, 3)
QUICK_SEEDS = (2, 3)
QUICK_ROUNDS = 40
# Fetched per wanted group: everything that is offered, as the paper's nodes see everything.
_FETCH_ALL = 64
_PUBLISH_ALL = 64


@dataclass(frozen=True, slots=True)
class Regime:
    """What a swarm is like.

    `blur_steps` decides how sparse the reward is at the start (`starts.py`): 45 steps leave 2.6 %
    of seed 1's samples right, 26 steps 11 %. With `delay` k a node sees what its peers generated
    k rounds before; 0 is the paper's synchronous round. With `one_task` each node draws questions
    of one task only, node n of task n modulo their number. The last `small` nodes have a model of
    `SMALL_WIDTH` with a warm start of its own. The last `noisy` nodes publish noise: under each of
    their questions stand answers to others of their questions; they train like the rest, and what
    is measured leaves them out.
    """

    name: str
    blur_steps: int
    delay: int = 0
    one_task: bool = False
    small: int = 0
    noisy: int = 0
    nodes: int = 8
    rounds: int = 80
    completions: int = 8
    max_new_tokens: int = 8
    temperature: float = 1.0
    lr: float = 3e-4
    evaluate_every: int = 20
    evaluate_questions: int = 32  # per task


@dataclass(frozen=True, slots=True)
class Arm:
    """What every node does: `own` questions (I) and at most `external` groups of peers (J) a round.

    `rule` is a name in `simulation.RULES`. `train` and `sharing` change single settings of the
    node's own sections, so an ablation is one more row.

    Local dynamic sampling, for J = 0: with `fill` the node wants that many groups with signal in
    each step. It goes on drawing questions until it has them, at most `most` a round; with `hold`
    it draws `own` a round and keeps groups with signal until there are `fill` of them for a step.
    """

    name: str
    rule: Literal["off", "sapo", "hybrid"]
    own: int
    external: int = 0
    fill: int = 0
    most: int = 0
    hold: bool = False
    train: Mapping[str, Any] = field(default_factory=dict)
    sharing: Mapping[str, Any] = field(default_factory=dict)
    hybrid: Mapping[str, Any] = field(default_factory=dict)
    most_completions: int = 0  # G may grow to as many (`breadth.py`); 0: it stays

    @property
    def slug(self) -> str:
        """The name as a folder's."""
        return re.sub(r"[^A-Za-z0-9-]+", "_", self.name.replace("/", "-")).strip("_")


@dataclass(frozen=True, slots=True)
class Run:
    """One cell of the table."""

    regime: Regime
    arm: Arm
    seed: int


REGIMES: Mapping[str, Regime] = MappingProxyType(
    {
        regime.name: regime
        for regime in (
            Regime("sparse", blur_steps=45),
            Regime("dense", blur_steps=26),
            Regime("one_task", blur_steps=45, one_task=True),
            Regime("stale", blur_steps=45, delay=5),
            Regime("mixed", blur_steps=45, small=4),
            Regime("noisy", blur_steps=45, noisy=4),
        )
    }
)

# The controls, all with J = 0. At equal generation a node generates what a node of the I/J arm
# does, I questions a round, and steps on whatever has a signal (`alone 2`), or waits for a batch
# of I + J groups with signal (`alone 2, held to 8`: equal generation and equal training batch at
# once). At equal training batch it draws until I + J groups have a signal, from at most as many
# questions as a node of 2/6 sees in a round, 2 own and 7 × 2 of peers (`alone, filled to 8`); what
# that costs shows per generated token.
#
# `hybrid` is the node's default of `config.HybridSettings`. Its J may grow, and own questions take
# the place of missing groups: "2/6" are its settings, not what every round makes of them. How much
# it generates and trains on is in the table.
ARMS: Mapping[str, Arm] = MappingProxyType(
    {
        arm.name: arm
        for arm in (
            Arm(BASELINE, "off", 8),
            Arm("sapo 6/2", "sapo", 6, 2),
            Arm("sapo 4/4", "sapo", 4, 4),
            Arm("sapo 2/6", "sapo", 2, 6),
            Arm("hybrid 6/2", "hybrid", 6, 2),
            Arm("hybrid 4/4", "hybrid", 4, 4),
            Arm("hybrid 2/6", "hybrid", 2, 6),
            Arm("hybrid 2/6, all tasks", "hybrid", 2, 6, hybrid={"own_tasks_only": False}),
            Arm("hybrid 2/6, at most 4 versions old", "hybrid", 2, 6, hybrid={"max_lag": 4}),
            Arm("alone 2", "off", 2),
            Arm("alone 2, held to 8", "off", 2, fill=8, hold=True),
            Arm("alone, filled to 8", "off", 8, fill=8, most=16),
        )
    }
)


_KEPT = {"max_wait_rounds": 2}  # groups that a round does not use stay for the next ones


def _without(name: str, sharing: Mapping[str, Any] | None = None, **hybrid: Any) -> Arm:
    """`hybrid 2/6` with one thing changed."""
    return Arm(name, "hybrid", 2, 6, hybrid=hybrid, sharing=sharing or {})


def _spare(name: str, **hybrid: Any) -> Arm:
    """A mix that leaves useful groups in the pool, for what chooses among them."""
    return Arm(name, "hybrid", 2, 2, hybrid={"stretch": 1.0, "fill": 1.0, **hybrid}, sharing=_KEPT)


def _collapsing(name: str, **hybrid: Any) -> Arm:
    """`hybrid 2/6` at a learning rate at which the own reward falls."""
    return Arm(name, "hybrid", 2, 6, hybrid=hybrid, train={"lr": 1e-3})


# One part of `hybrid 2/6` changed at a time; the last is the published rule on hybrid's batch.
ABLATED, ABLATED_REGIME = "hybrid 2/6", "sparse"
ABLATIONS: Mapping[str, Arm] = MappingProxyType(
    {
        arm.name: arm
        for arm in (
            _without("J stays 6", stretch=1.0),
            _without("J up to 12", stretch=2.0),
            _without("no own questions for missing groups", fill=0.0),
            _without("own questions up to J", fill=1.0),
            _without("own questions up to 3 J", fill=3.0),
            _without("two own groups published", {"publish": 2}),
            Arm("G up to 32", "hybrid", 2, 6, most_completions=32),
            _without("no rescue", rescue_below=0.0),
            _without("rescue at any own rate", rescue_below=1.0),
            _without("kept for two rounds", _KEPT),
            _without("used twice", _KEPT, max_uses=2),
            _without("no guard", guard=False),
            _without("negatives kept", negatives="keep"),
            _without("negatives tapered", negatives="taper"),
            _without("margin 0", margin=0.0),
            _without("baseline not bound to the own rate", own_baseline=False),
            _without("advantages: mean alone", advantage="mean"),
            _without("advantages: MaxRL", advantage="maxrl"),
            _without("scaled by likelihood (HACPO)", scaling=True),
            _without("masked beyond 1 nat per token", max_gap=1.0),
            _without("shaped (LUFFY)", shaping=0.1),
            _without("separate normalisers", normaliser="separate"),
            _without(
                "published loss and choice",
                negatives="keep",
                advantage="mean_std",
                margin=0.0,
                normaliser="joint",
                rescue_below=0.0,
                own_tasks_only=False,
                own_baseline=False,
                guard=False,
            ),
            _spare("2/2 with spare groups"),
            _spare("2/2, one own question of two is a peer's", paired=1),
            _spare("2/2, priority: balance", priority="balance"),
            _spare("2/2, priority: headroom", priority="headroom"),
            _collapsing("lr 1e-3"),
            _collapsing("lr 1e-3, no guard", guard=False),
        )
    }
)

# Which arms of a regime are in the table; `--arms` asks for others.
_ALL_TASKS, _YOUNG = "hybrid 2/6, all tasks", "hybrid 2/6, at most 4 versions old"
_SHORT = (BASELINE, "sapo 2/6", "hybrid 2/6")
TABLE: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "sparse": tuple(name for name in ARMS if name not in (_ALL_TASKS, _YOUNG)),
        "dense": _SHORT,
        "one_task": _SHORT,
        "noisy": _SHORT,
    }
)
# With `--extended`, and then the ablations too.
EXTENDED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "dense": ("sapo 4/4", "hybrid 4/4"),
        "one_task": (_ALL_TASKS,),
        "mixed": _SHORT,
        "stale": ("sapo 2/6", "hybrid 2/6", _YOUNG),  # alone it is the sparse regime
    }
)
QUICK_TABLE: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"sparse": (BASELINE, "sapo 4/4", "sapo 2/6", "hybrid 2/6", "alone 2")}
)


def seeds_of(regime: Regime) -> tuple[int, ...]:
    """The seeds of this regime in the table."""
    return MIXED_SEEDS if regime.small else SEEDS


def arm(name: str) -> Arm:
    """The arm or ablation of that name."""
    return ARMS[name] if name in ARMS else ABLATIONS[name]


def train_settings(run: Run) -> TrainSettings:
    """The node's training settings in this run."""
    changes = {"lr": run.regime.lr, **run.arm.train}
    return msgspec.convert(changes, TrainSettings)


def sharing_settings(run: Run) -> SharingSettings:
    """The node's sharing settings in this run: it publishes all that it generates, and what a round
    does not use is dropped after it, as in the paper, where a round samples from what was
    generated for it."""
    changes = {
        "rule": run.arm.rule,
        "external": run.arm.external,
        "publish": _PUBLISH_ALL,
        "fetch_factor": _FETCH_ALL,
        "max_wait_rounds": 0,
        **run.arm.sharing,
    }
    return msgspec.convert(changes, SharingSettings)


def hybrid_settings(run: Run) -> HybridSettings:
    """The parts of the hybrid rule in this run."""
    return msgspec.convert(dict(run.arm.hybrid), HybridSettings)
