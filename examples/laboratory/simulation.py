"""The rounds of one run: N nodes with the node's own modules, exchanging groups as text.

A round is that of `node.Node.run_round`, with all nodes in step (`simulate`): every node answers
its questions, then every node takes from what its peers generated `delay` rounds before, then every
node trains. Questions, conversion to rollouts, the draw of offers, the pool, the choice from it,
advantages, samples and the optimiser are the node's. Replaced are generation (all nodes' at once,
`stacked.py`), the network (a list of rollouts by round), the clock (the round's number) and the
scorer's process (`world.World.score`).

Deterministic on one thread: chance comes from the run's seed and the node's number alone. In all
arms of one regime and seed a node draws the same stream of questions.
"""

import copy
import hashlib
import random
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any

from protocol.messages import Item, Rollout
from protocol.names import question_seed
from swarmnode.breadth import Breadth
from swarmnode.config import DefenceSettings, HybridSettings
from swarmnode.defending import Defence
from swarmnode.rollout import Completion, Group, Origin, Question
from swarmnode.samples import samples_of
from swarmnode.swarm import sampling
from swarmnode.swarm.admission import Offer
from swarmnode.swarm.conversion import Arrival, rollouts_of
from swarmnode.swarm.mixing import Mixing
from swarmnode.swarm.pool import Pool
from swarmnode.train.batch import Sample
from swarmnode.train.foreign import foreign_advantages
from swarmnode.train.trainer import StepReport, Trainer

from .settings import Run, hybrid_settings, sharing_settings, train_settings
from .stacked import SwarmGenerator
from .world import World

# As in `swarmnode.node`: a peer's completion may be twice as long as this node's own limit.
_LONGEST_EXTERNAL = 2
_LABEL = "laboratory"

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Shared:
    """One rollout as its author published it, with the rewards that every receiver gives it."""

    offer: Offer
    question: Question
    rollout: Rollout
    rewards: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Learnt:
    """What a node did with a round."""

    received: Sequence[Group]
    external: Sequence[Group]  # trained on
    own: Sequence[Group]  # trained on: with signal
    step: StepReport
    foreign_share: float


@dataclass(frozen=True, slots=True)
class Turnover:
    """Every so many rounds the last `nodes` leave, and as many newcomers begin at the start."""

    every: int
    nodes: int


def simulate(run: Run, world: World, turnover: Turnover | None = None) -> Iterator[tuple[str, Row]]:
    """Yields ("rounds", row) and ("evaluations", row) as they come; the rows are described in
    `measures.py`. Evaluations are before the first round, every `evaluate_every` and at the end.
    With `turnover` an entry of a row is that of a newcomer where one has come."""
    regime = run.regime
    swarm = SimulatedSwarm(run, world)
    nodes, kept = swarm.nodes, len(measured(run))  # newcomers take places in the same list
    published: list[list[Shared]] = []  # by round
    yield "evaluations", {"round": 0, "accuracy": _at_start(swarm, run)}
    for round in range(1, regime.rounds + 1):
        if turnover and round > 1 and round % turnover.every == 1:
            swarm.replace_last(turnover.nodes, round)
        own = swarm.answer(round)
        published.append([
            shared for node, groups in zip(nodes, own, strict=True)
            for shared in node.publish(groups, round)
        ])  # fmt: skip
        seen = published[round - 1 - regime.delay] if round > regime.delay else []
        for node in nodes:
            node.receive(seen, round)
        learnt = [node.learn(groups, round) for node, groups in zip(nodes, own, strict=True)]
        yield "rounds", _row(round, own[:kept], learnt[:kept])
        if round % regime.evaluate_every == 0 or round == regime.rounds:
            yield "evaluations", {"round": round, "accuracy": swarm.accuracy(measured(run))}


def _at_start(swarm: "SimulatedSwarm", run: Run) -> list[dict[str, float]]:
    """The held-out accuracy of the nodes that are measured; equal models are evaluated once."""
    small = range(run.regime.nodes - run.regime.small, run.regime.nodes)
    numbers = [0, small[0]] if small else [0]
    by_size = swarm.accuracy(numbers)
    return [by_size[-1] if number in small else by_size[0] for number in measured(run)]


class SimulatedSwarm:
    """All nodes of a run, and the one generator that answers for them."""

    def __init__(self, run: Run, world: World, defence: DefenceSettings | None = None) -> None:
        self.nodes = [
            SimulatedNode(number, run, world, defence) for number in range(run.regime.nodes)
        ]
        self._run = run
        self._world = world
        self._generator = SwarmGenerator(
            [node.model for node in self.nodes],
            world.prompts,
            (int(world.tokenizer.eos_token_id),),
            max_new_tokens=run.regime.max_new_tokens,
            temperature=run.regime.temperature,
            seeds=[node.seed for node in self.nodes],
        )

    def replace_last(self, count: int, round: int) -> None:
        """The last `count` nodes leave; newcomers with the start's model take their places."""
        for number in range(len(self.nodes) - count, len(self.nodes)):
            node = SimulatedNode(number, self._run, self._world, since=round)
            self.nodes[number] = node
            self._generator.replace(number, node.model, node.seed)

    def answer(self, round: int) -> list[list[Group]]:
        """By node: this round's groups on own fresh questions, scored, with and without signal,
        all that was generated. Nodes that need no more questions wait for the others."""
        own: list[list[Group]] = [[] for _ in self.nodes]
        while True:
            asked = [node.ask(groups, round) for node, groups in zip(self.nodes, own, strict=True)]
            if not any(asked):
                return [node.fresh(groups) for node, groups in zip(self.nodes, own, strict=True)]
            for breadth in sorted({node.completions for node in self.nodes}):
                # One call for the nodes of one G; the others ask nothing in it.
                of_breadth = [
                    questions if node.completions == breadth else []
                    for node, questions in zip(self.nodes, asked, strict=True)
                ]
                answers = self._generator.generate(of_breadth, breadth)
                for node, groups, questions, given in zip(
                    self.nodes, own, of_breadth, answers, strict=True
                ):
                    groups += map(node.group, questions, given)

    def accuracy(self, numbers: Collection[int]) -> list[dict[str, float]]:
        """Greedy accuracy on the held-out questions, by task, of the nodes of these numbers."""
        held_out = self._world.held_out
        questions = [question for asked in held_out.values() for question in asked]
        questions_of = [questions if number in numbers else [] for number in range(len(self.nodes))]
        given = self._generator.greedy(questions_of)
        found = []
        for answers in (given[number] for number in numbers):
            right: dict[str, list[float]] = {name: [] for name in held_out}
            for question, answer in zip(questions, answers, strict=True):
                right[question.task] += self._world.score(question, [answer.text])
            found.append({name: sum(rewards) / len(rewards) for name, rewards in right.items()})
        return found


class SimulatedNode:
    """One node: its own model, optimiser, pool and chance. Made by `SimulatedSwarm`; `since` is
    the round in which a newcomer came, 0 for those that were there from the beginning."""

    def __init__(
        self,
        number: int,
        run: Run,
        world: World,
        defence: DefenceSettings | None = None,
        since: int = 0,
    ) -> None:
        self._run = run
        self.judged: Counter[tuple[bytes, bool]] = Counter()  # peers' completions, by author
        self.defence = defence and Defence(
            defence, world.swarm.answer_format, world.codec.encode_spans
        )
        self._world = world
        self._sharing = sharing_settings(run)
        self._train = train_settings(run)
        self._hybrid = hybrid_settings(run) if run.arm.rule == "hybrid" else None
        self._mixing = Mixing(self._sharing, self._hybrid or HybridSettings(), defence=defence)
        small = number >= run.regime.nodes - run.regime.small
        assert not small or world.small is not None
        self.model = copy.deepcopy(world.small if small else world.model)
        self._breadth = Breadth(run.regime.completions, run.arm.most_completions)
        self._noisy = number >= run.regime.nodes - run.regime.noisy
        self._eos_id = int(world.tokenizer.eos_token_id)
        name = f"laboratory {run.seed} {number}" + (f" {since}" if since else "")
        identity = hashlib.sha256(name.encode()).digest()
        self.author = identity
        self.seed = int.from_bytes(identity[:6], "big")  # of its completions
        self._questions_rng = random.Random(self.seed)
        self._sampling_rng = random.Random(self.seed + 1)
        self._tasks = practised(run, world, number)
        self._next_number = 0
        self._pool = Pool(
            self._sharing.pool_groups,
            self._sharing.max_age_s,
            self._sharing.max_wait_rounds,
            self._hybrid.max_uses if self._hybrid else 1,
        )
        self._received: list[Group] = []
        self._held: list[Group] = []
        self._paired: list[Question] = []  # peers', asked in this round
        self._second: list[Group] = []  # and this node's answers to them
        pad_id = int(world.tokenizer.pad_token_id)
        self._trainer = Trainer(
            self.model, self._train, pad_id, run.regime.temperature, self._hybrid
        )

    @property
    def completions(self) -> int:
        """G of its next questions."""
        return self._breadth.completions

    def ask(self, groups: Sequence[Group], round: int) -> list[Question]:
        """The questions to answer next in a round that made these groups so far; none: enough."""
        arm = self._run.arm
        if groups:
            missing = arm.fill - sum(group.has_signal for group in groups)
            return [self._draw() for _ in range(min(missing, arm.most - len(groups)))]
        peers = self._mixing.pair(self._pool.groups(), self._lag(round), self._sampling_rng)
        self._paired = [group.question for group in peers]
        count = self._mixing.own_questions(arm.own) - len(peers)
        return [self._draw() for _ in range(max(1, count))] + self._paired

    def fresh(self, groups: Sequence[Group]) -> list[Group]:
        """Those on own fresh questions; the others, on peers', are kept for the step."""
        own = list(groups[: len(groups) - len(self._paired)])
        self._second = list(groups[len(own) :])
        self._mixing.note_own(own)
        if self.defence:
            self.defence.note_own(own)
        self._breadth.note(own)
        return own

    def group(self, question: Question, completions: Sequence[Completion]) -> Group:
        """Its answers to a question, scored."""
        rewards = self._world.score(question, [completion.text for completion in completions])
        version, temperature = self._trainer.policy_version, self._run.regime.temperature
        return Group(question, tuple(completions), rewards, version, temperature)

    def publish(self, own: Sequence[Group], round: int) -> list[Shared]:
        """The rollouts of these groups: text without token ids and their log-probabilities."""
        shared: list[Shared] = []
        if self._run.arm.rule == "off":
            return shared
        if self._noisy:
            own = shuffled(own, self._sampling_rng)
        for group in own[: self._sharing.publish]:
            # The number names the question to those who rebuild it; here it is handed over.
            for rollout in rollouts_of(group, group.question.seed, _LABEL, float(round)):
                name = f"{self.author.hex()} {round} {len(shared)}".encode()
                item = Item(hashlib.sha256(name).digest(), group.question.digest, rollout.seed, 0)
                rewards = self._world.score(group.question, rollout.texts)
                offer = Offer(self.author, item, float(round))
                shared.append(Shared(offer, group.question, rollout, rewards))
        return shared

    def receive(self, seen: Sequence[Shared], round: int) -> None:
        """Fetches from what peers offer; pools what has a signal."""
        sharing = self._sharing
        offered = {
            shared.offer.key: shared for shared in seen if shared.offer.author != self.author
        }
        wanted = sampling.fetch_count(
            self._mixing.external, sharing.fetch_factor, len(self._pool), in_flight=0
        )
        offers = [shared.offer for shared in offered.values()]
        self._received = [
            arrived(offered[offer.key], round)
            for offer in sampling.choose_offers(offers, wanted, self._sampling_rng)
        ]
        if self.defence:
            self.defence.note_peers(self._received)
        for group in self._received:
            if self._mixing.is_useful(group):
                self._pool.add(group)

    def learn(self, own: Sequence[Group], round: int) -> Learnt:
        """One step on own groups and on those chosen from the pool."""
        self._pool.expire(float(round), round)
        external = self._mixing.choose(self._pool.groups(), self._lag(round), self._sampling_rng)
        self._pool.take(external)
        trained = self._batch([group for group in own if group.has_signal])
        samples = self.samples([*trained, *self._second, *external])
        share = self._mixing.foreign_share
        every = self._sharing.gain_every
        step = self._trainer.step(samples, share, is_measured=every > 0 and round % every == 0)
        return Learnt(self._received, external, trained, step, share)

    def samples(self, groups: Sequence[Group]) -> list[Sample]:
        """What these groups are to the trainer."""
        return samples_of(
            groups,
            advantage=self._train.advantage,
            encode_prompt=self._world.prompts.encode,
            encode_text=self._world.codec.encode,
            eos_id=self._eos_id,
            max_completion_tokens=_LONGEST_EXTERNAL * self._run.regime.max_new_tokens,
            foreign_advantages=self._foreign_advantages if self._hybrid else None,
            is_imitable=self._is_imitable,
            verified=self.defence.verified_marks if self.defence else None,
        )

    @property
    def hybrid(self) -> HybridSettings | None:
        """The parts of the hybrid rule, where that is the rule."""
        return self._hybrid

    def _lag(self, round: int) -> Callable[[Group], int]:
        """The rounds since a group was answered: every node takes one step a round."""

        def lag(group: Group) -> int:
            assert group.origin is not None
            return round - int(group.origin.created)

        return lag

    def _foreign_advantages(self, task: str, rewards: Sequence[float]) -> Sequence[float]:
        rate = self._mixing.ability.rate(task)
        values = foreign_advantages(rewards, rate, self._hybrid)
        return self.defence.bounded(values) if self.defence else values

    def _is_imitable(self, group: Group, completion: Completion) -> bool:
        found = self.defence is None or self.defence.is_imitable(group, completion)
        assert group.origin is not None
        self.judged[group.origin.author, found] += 1
        return found

    def _batch(self, useful: Sequence[Group]) -> list[Group]:
        """Which own groups with signal are trained on now (`Arm`)."""
        arm = self._run.arm
        if not arm.hold:
            return list(useful[: arm.fill]) if arm.fill else list(useful)
        self._held += useful
        if len(self._held) < arm.fill:
            return []
        batch, self._held = self._held[: arm.fill], self._held[arm.fill :]
        return batch

    def _draw(self) -> Question:
        """The next question of this node's stream; held-out ones are skipped."""
        world = self._world
        weights = {task.name: task.weight for task in world.swarm.tasks}
        while True:
            number, self._next_number = self._next_number, self._next_number + 1
            chances = [weights[name] for name in self._tasks]
            name = self._questions_rng.choices(self._tasks, chances)[0]
            seed = question_seed(world.swarm_id, self.author, world.tasks.digest(name), number)
            question = world.tasks.question(name, seed)
            if not question.held_out:
                return question


def measured(run: Run) -> range:
    """The numbers of the nodes whose rows are kept: all but the noisy."""
    return range(run.regime.nodes - run.regime.noisy)


def shuffled(groups: Sequence[Group], rng: random.Random) -> list[Group]:
    """The same questions and the same completions, each under a question drawn by chance."""
    completions = [completion for group in groups for completion in group.completions]
    rng.shuffle(completions)
    left = iter(completions)
    return [
        replace(group, completions=tuple(next(left) for _ in group.completions)) for group in groups
    ]


def practised(run: Run, world: World, number: int) -> tuple[str, ...]:
    """The tasks that node `number` draws its questions from."""
    names = world.tasks.names
    return (names[number % len(names)],) if run.regime.one_task else names


def arrived(shared: Shared, round: int) -> Group:
    """A peer's rollout as the group that it is to whoever received it in this round."""
    offer = shared.offer
    origin = Origin(offer.author, offer.item.rollout_id, _LABEL, offer.created, round)
    return Arrival(shared.question, shared.rollout, origin).scored(shared.rewards)


def _row(round: int, own: Sequence[Sequence[Group]], learnt: Sequence[Learnt]) -> Row:
    """One round of all nodes; every list has one entry per node."""
    return {
        "round": round,
        "questions": [len(groups) for groups in own],
        "completions": [sum(len(g.completions) for g in groups) for groups in own],
        "right": [sum(sum(g.rewards) for g in groups) for groups in own],
        "with_signal": [sum(g.has_signal for g in groups) for groups in own],
        "tokens_generated": [
            sum(c.token_count for g in groups for c in g.completions) for groups in own
        ],
        "own_trained": [len(one.own) for one in learnt],
        "received": [len(one.received) for one in learnt],
        "received_with_signal": [sum(g.has_signal for g in one.received) for one in learnt],
        "external_trained": [len(one.external) for one in learnt],
        "external_age_rounds": [_age(one.external, round) for one in learnt],
        "tokens_trained_own": [one.step.tokens_own for one in learnt],
        "tokens_trained_external": [one.step.tokens_external for one in learnt],
        "steps": [one.step.optimizer_steps for one in learnt],
        "loss": [one.step.loss for one in learnt],
        "grad_norm": [one.step.grad_norm for one in learnt],
        "entropy": [one.step.entropy for one in learnt],
        "kl_own": [one.step.kl_own for one in learnt],
        "kl_external": [one.step.kl_external for one in learnt],
        "effective_ratio": [one.step.effective_ratio for one in learnt],
        "foreign_share": [one.foreign_share for one in learnt],
        "own_and_peers_products": [
            None if one.step.alignment is None else astuple(one.step.alignment) for one in learnt
        ],
    }


def _age(groups: Sequence[Group], round: int) -> float | None:
    """Mean age in rounds."""
    ages = [round - group.origin.created for group in groups if group.origin is not None]
    return sum(ages) / len(ages) if ages else None
