"""The rounds of a swarm in which some nodes poison: honest nodes as in `simulation.py`, and
attackers without a model (`attacks.py`) that publish as many groups as each of them.

A case is one attacker, how many of eight nodes it is, and what the honest nodes defend themselves
with; the same seeds give the same warm start and the same questions in every case, so differences
are paired. Only what an honest node can see reaches it: texts under questions, scored by itself.
"""

import hashlib
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import msgspec

from protocol.messages import Item
from protocol.names import question_seed
from swarmnode.config import DefenceSettings
from swarmnode.rollout import Group
from swarmnode.swarm.admission import Offer
from swarmnode.swarm.conversion import rollouts_of

from .attacks import ATTACKS, AttackName, Likeliest, Poisoner, attacker, groups_of, is_poisoned
from .settings import Arm, Regime, Run
from .simulation import Shared, SimulatedNode, SimulatedSwarm
from .world import World

NODES = 4
ROUNDS = 25
COMPLETIONS = 8
OWN, EXTERNAL = 2, 3
MAX_NEW_TOKENS = 16
LR = 1e-3
EVALUATE_QUESTIONS = 16  # per task
LAST_ROUNDS = 6  # what a node has become: its samples of these
_LABEL = "laboratory"

Row = dict[str, Any]

# Every part off. `hybrid` switches are beside them, as in a node's settings.
UNDEFENDED: Mapping[str, Mapping[str, Any]] = {
    "defence": {
        "equations": False,
        "novelty": False,
        "max_length": 0.0,
        "max_advantage": 0.0,
        "author_share": 1.0,
        "per_question": 0,
    },
    "hybrid": {"unverified": "all"},
}
DEFENDED: Mapping[str, Mapping[str, Any]] = {"defence": {}, "hybrid": {}}


@dataclass(frozen=True, slots=True)
class Case:
    """One swarm: `attack` "none" is an honest one, and with `alone` nobody shares. `malicious` of
    the `NODES` are poisoners. `settings` are the honest nodes' [defence] and [hybrid]."""

    name: str
    attack: AttackName | str = "none"
    is_adaptive: bool = False
    malicious: int = 0
    alone: bool = False
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: DEFENDED)
    rounds: int = ROUNDS


def simulate(case: Case, seed: int, world: World) -> Iterator[Row]:
    """A row per round, and a last one with what the nodes have become."""
    swarm = _Swarm(case, seed, world)
    for round in range(1, case.rounds + 1):
        yield swarm.play(round)
    yield swarm.result()


class _Swarm:
    def __init__(self, case: Case, seed: int, world: World) -> None:
        honest = NODES - case.malicious
        regime = Regime(
            "poisoned", 0, nodes=honest, rounds=case.rounds, completions=COMPLETIONS,
            max_new_tokens=MAX_NEW_TOKENS, lr=LR, evaluate_questions=EVALUATE_QUESTIONS,
        )  # fmt: skip
        arm = (
            Arm("alone", "off", OWN + EXTERNAL)
            if case.alone
            else Arm(
                "hybrid", "hybrid", OWN, EXTERNAL,
                hybrid=case.settings["hybrid"], sharing={"gain_every": 0},
            )
        )  # fmt: skip
        run = Run(regime, arm, seed)
        defence = msgspec.convert(dict(case.settings["defence"]), DefenceSettings)
        self._case = case
        self._world = world
        self._generator = SimulatedSwarm(run, world, None if case.alone else defence)
        self._nodes: Sequence[SimulatedNode] = self._generator.nodes
        self._poisoners = [
            _Malicious(case, seed, number, world) for number in range(honest, NODES)
        ]
        self._last: list[list[Group]] = []  # own groups of the last rounds
        self._rewards: list[float] = []
        self._foreign_tokens, self._masked_tokens = 0, 0.0

    def play(self, round: int) -> Row:
        """One round of all nodes."""
        own = self._generator.answer(round)
        published = [
            shared
            for node, groups in zip(self._nodes, own, strict=True)
            for shared in node.publish(groups, round)
        ]
        count = max(map(len, own)) if own else 0
        for poisoner in self._poisoners:
            published += poisoner.publish(count, round)
        for node in self._nodes:
            node.receive(published, round)
        learnt = [node.learn(groups, round) for node, groups in zip(self._nodes, own, strict=True)]
        flat = [group for groups in own for group in groups]
        self._rewards.append(_reward(flat))
        for step in (one.step for one in learnt):
            self._foreign_tokens += step.tokens_external
            # With one epoch no own token is ever clipped.
            self._masked_tokens += (step.clip_ratio or 0.0) * (
                step.tokens_own + step.tokens_external
            )
        if round > self._case.rounds - LAST_ROUNDS:
            self._last.append(flat)
        return {
            "round": round,
            "reward": self._rewards[-1],
            "groups": len(flat),
            "rates": {name: poison_rate(name, flat) for name in ATTACKS if name != "length"},
            "tokens": mean_tokens(flat),
            "external": [len(one.external) for one in learnt],
        }

    def result(self) -> Row:
        """What the nodes write at the end, and what of honest peers' data was kept."""
        flat = [group for groups in self._last for group in groups]
        return {
            "reward": fmean(self._rewards[-LAST_ROUNDS:]),
            "cumulative": sum(self._rewards),
            "rates": {name: poison_rate(name, flat) for name in ATTACKS if name != "length"},
            "tokens": mean_tokens(flat),
            "dropped": dict(sum((n.defence.dropped for n in self._nodes if n.defence), Counter())),
            "honest": self._judged(malicious=False),
            "malicious": self._judged(malicious=True),
            "foreign_tokens": self._foreign_tokens,
            "masked_tokens": round(self._masked_tokens),
            "examples": sorted({c.text for group in flat[-8:] for c in group.completions})[:12],
        }

    def _judged(self, *, malicious: bool) -> dict[str, int]:
        """Right completions of these peers that were trained on, and that were dropped."""
        authors = {poisoner.author for poisoner in self._poisoners}
        judged = sum((node.judged for node in self._nodes), Counter())
        counts = {True: 0, False: 0}
        for (author, was_kept), count in judged.items():
            if (author in authors) == malicious:
                counts[was_kept] += count
        return {"kept": counts[True], "dropped": counts[False]}


class _Malicious:
    """A poisoner with a key of its own, whose questions are drawn as everyone's are."""

    def __init__(self, case: Case, seed: int, number: int, world: World) -> None:
        name = f"laboratory {seed} {number}".encode()
        self.author = hashlib.sha256(name).digest()
        self._rng = random.Random(int.from_bytes(self.author[:6], "big"))
        self._world = world
        self._next = 0
        chosen = attacker(case.attack, is_adaptive=case.is_adaptive)  # type: ignore[arg-type]
        likeliest = (
            Likeliest(world.model, world.prompts, world.codec) if case.is_adaptive else None
        )
        self._poisoner = Poisoner(chosen, self._rng, likeliest)

    def publish(self, count: int, round: int) -> list[Shared]:
        """`count` groups on fresh questions."""
        world = self._world
        questions = []
        while len(questions) < count:
            name = self._rng.choice(world.tasks.names)
            digest = world.tasks.digest(name)
            seed = question_seed(world.swarm_id, self.author, digest, self._next)
            self._next += 1
            question = world.tasks.question(name, seed)
            if not question.held_out:
                questions.append(question)
        groups = groups_of(self._poisoner, questions, COMPLETIONS, round, world.score)
        shared = []
        for number, group in enumerate(groups):
            for rollout in rollouts_of(group, group.question.seed, _LABEL, float(round)):
                id = hashlib.sha256(self.author + f"{round} {number}".encode()).digest()
                item = Item(id, group.question.digest, rollout.seed, 0)
                rewards = world.score(group.question, rollout.texts)
                offer = Offer(self.author, item, float(round))
                shared.append(Shared(offer, group.question, rollout, rewards))
        return shared


def poison_rate(name: AttackName, groups: Sequence[Group]) -> float:
    """The share of completions that do what the attack wants; of the right ones for arithmetic."""
    texts = [
        completion.text
        for group in groups
        for completion, reward in zip(group.completions, group.rewards, strict=True)
        if reward > 0 or name != "arithmetic"
    ]
    return sum(is_poisoned(name, text) for text in texts) / max(1, len(texts))


def mean_tokens(groups: Sequence[Group]) -> float:
    """Of all completions, EOS included."""
    return fmean(c.token_count for group in groups for c in group.completions)


def _reward(groups: Sequence[Group]) -> float:
    return fmean(reward for group in groups for reward in group.rewards)
