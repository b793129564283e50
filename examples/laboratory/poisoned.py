"""The rounds of a swarm in which some nodes poison: honest nodes as in `simulation.py`, and
attackers without a model (`attacks.py`) that publish as many groups as each of them.

A case is one attacker, how many of eight nodes it is, and what the honest nodes defend themselves
with; the same seeds give the same warm start and the same questions in every case, so differences
are paired. Only what an honest node can see reaches it: texts under questions, scored by itself.
"""

import copy
import hashlib
import math
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import msgspec
import torch

from protocol.messages import Item
from protocol.names import question_seed
from swarmnode.config import DefenceSettings
from swarmnode.rollout import Group
from swarmnode.swarm.admission import Offer
from swarmnode.swarm.conversion import rollouts_of
from swarmnode.train.batch import Sample
from swarmnode.train.unverified import unimitated

from .attacks import ATTACKS, AttackName, Likeliest, Poisoner, attacker, groups_of, is_poisoned
from .settings import Arm, Regime, Run
from .simulation import Shared, SimulatedNode, SimulatedSwarm, arrived
from .world import World

NODES = 4
ROUNDS = 25
COMPLETIONS = 8
OWN, EXTERNAL = 2, 3
MAX_NEW_TOKENS = 24
LR = 1e-3
EVALUATE_QUESTIONS = 16  # per task
LOOK_EVERY = 5  # rounds between looks at what is imitated of honest peers
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
    "hybrid": {"unverified": "all", "max_gap": 0.0},
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
        self._poisoners = [_Malicious(case, seed, number, world) for number in range(honest, NODES)]
        self._last: list[list[Group]] = []  # own groups of the last rounds
        self._rewards: list[float] = []
        self._honest_tokens: Counter[str] = Counter({"all": 0, "imitated": 0})

    def play(self, round: int) -> Row:
        """One round of all nodes."""
        own = self._generator.answer(round)
        published = [
            shared
            for node, groups in zip(self._nodes, own, strict=True)
            for shared in node.publish(groups, round)
        ]
        count = max(map(len, own)) if own else 0
        usual = right_tokens([group for groups in own for group in groups])
        for poisoner in self._poisoners:
            published += poisoner.publish(count, round, usual)
        for node in self._nodes:
            node.receive(published, round)
        if round % LOOK_EVERY == 0 and not self._case.alone:
            self._look_at_honest(published)
        learnt = [node.learn(groups, round) for node, groups in zip(self._nodes, own, strict=True)]
        flat = [group for groups in own for group in groups]
        self._rewards.append(_reward(flat))
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

    def _look_at_honest(self, published: Sequence[Shared]) -> None:
        """Counts the tokens of honest peers' right completions, and those that the first node is
        going to imitate of them."""
        node, malicious = self._nodes[0], {poisoner.author for poisoner in self._poisoners}
        groups = [
            arrived(shared, 0)
            for shared in published
            if shared.offer.author not in {node.author, *malicious}
        ]
        for group in groups:
            for completion, reward in zip(group.completions, group.rewards, strict=True):
                if reward > 0:
                    tokens = len(self._world.codec.encode(completion.text)) + completion.ended
                    self._honest_tokens["all"] += tokens
        judged, defence = copy.copy(node.judged), node.defence
        node.defence = copy.copy(defence)  # a look counts for nothing
        if node.defence is not None:
            node.defence.dropped = Counter()
        samples = [s for s in node.samples(groups) if s.advantage > 0]
        node.judged, node.defence = judged, defence
        self._honest_tokens["imitated"] += sum(imitated_tokens(node, sample) for sample in samples)

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
            "honest_tokens": dict(self._honest_tokens),
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
        likeliest = Likeliest(world.model, world.prompts, world.codec) if case.is_adaptive else None
        self._poisoner = Poisoner(chosen, self._rng, likeliest)

    def publish(self, count: int, round: int, usual: float) -> list[Shared]:
        """`count` groups on fresh questions; honest nodes' right texts have `usual` tokens now."""
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
        groups = groups_of(self._poisoner, questions, COMPLETIONS, round, usual, world.score)
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


@torch.no_grad()
def imitated_tokens(node: SimulatedNode, sample: Sample) -> int:
    """How many tokens of a peer's completion the node's policy, as it is, lets into the loss."""
    settings = node.hybrid
    count = len(sample.completion_ids)
    if settings is None or settings.unverified == "all" or sample.verified is None:
        return count
    ids = torch.tensor([sample.prompt_ids + sample.completion_ids])
    logps = torch.log_softmax(node.model(input_ids=ids).logits[0, -count - 1 : -1].float(), dim=-1)
    own = logps.gather(1, ids[0, -count:, None])[:, 0]
    least = math.log(settings.least_probability) if settings.unverified == "likely" else 0.0
    left_out = unimitated(own, torch.tensor(sample.verified), torch.tensor([count]), least)
    return count - int(left_out.sum())


def mean_tokens(groups: Sequence[Group]) -> float:
    """Of all completions, EOS included."""
    return fmean(c.token_count for group in groups for c in group.completions)


def right_tokens(groups: Sequence[Group]) -> float:
    """As `mean_tokens`, of the right completions alone; of all where none is."""
    counts = [
        completion.token_count
        for group in groups
        for completion, reward in zip(group.completions, group.rewards, strict=True)
        if reward > 0
    ]
    return fmean(counts) if counts else mean_tokens(groups)


def _reward(groups: Sequence[Group]) -> float:
    return fmean(reward for group in groups for reward in group.rewards)
