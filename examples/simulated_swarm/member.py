"""One simulated node. Its round is `swarmnode.node.Node.run_round` without models: the answers are
made up, the rewards are read off them, and everything else is the node's own code."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from protocol.messages import Announcement, Item, Rollout
from protocol.names import peer_id, question_seed, shard_of
from simulated_swarm.air import Air, SimulatedTransport
from simulated_swarm.signing import StandIn, public_key
from swarmnode.config import HybridSettings, SharingSettings, TrustSettings
from swarmnode.report import Totals
from swarmnode.rollout import Completion, Group, Question
from swarmnode.swarm import sampling
from swarmnode.swarm.conversion import Arrival
from swarmnode.swarm.exchange import Exchange
from swarmnode.swarm.mixing import Mixing
from swarmnode.swarm.pool import Pool
from swarmnode.swarm.publishing import Published
from swarmnode.swarm.sharding import AUDIENCE

SWARM = bytes(range(32))
TASK = b"task"
COMPLETIONS = 8
_HELD_OUT_EVERY = 16  # of the questions


def question(digest: bytes, seed: int) -> Question:
    """The question of a generator's seed: the same for everyone."""
    return Question("task", digest, seed, f"{seed}?", str(seed), seed % _HELD_OUT_EVERY == 0)


@dataclass(frozen=True)
class Setting:
    """What is the same for all nodes."""

    sharing: SharingSettings
    questions: int
    book: str  # what answers are cut from
    text_bytes: int
    rebuild: Callable[[bytes, int], Question] = question
    trust: TrustSettings = TrustSettings()  # noqa: RUF009  frozen
    audience: int = AUDIENCE


@dataclass
class Round:
    """What one round did."""

    arrived: list[Arrival]
    chosen: list[Group]
    asked: int


class Member:
    """A node and its round. `key` is its secret."""

    def __init__(self, key: bytes, air: Air, signing: StandIn, setting: Setting) -> None:
        self.key = key
        self.public_key = public_key(key)
        self.transport = SimulatedTransport(air, peer_id(self.public_key))
        self.rng = random.Random(key)
        self.round = 0
        self._setting = setting
        self._signing = signing
        self._number = 0
        self._skill = self.rng.uniform(0.2, 0.8)
        sharing, hybrid = setting.sharing, HybridSettings()
        self.exchange = Exchange(
            self.transport,
            sharing,
            swarm_id=SWARM,
            signing_key=key,
            public_key=self.public_key,
            model_label="simulated",
            tasks=[TASK],
            rebuild=setting.rebuild,
            trust=setting.trust,
            audience=setting.audience,
            seal=signing.seal,
            open_frame=signing.open_frame,
            read_offers=signing.read_offers,
        )
        self.pool = Pool(
            sharing.pool_groups, sharing.max_age_s, sharing.max_wait_rounds, hybrid.max_uses
        )
        self.mixing = Mixing(sharing, hybrid)
        self.totals = Totals()

    def run_round(self, now: float) -> Round:
        """One round, as in `Node.run_round`."""
        self.round += 1
        own = [self._answered() for _ in range(self.mixing.own_questions(self._setting.questions))]
        self.mixing.note_own(published.group for published in own)
        self.exchange.listen(self.rng, now)
        offered = own[: self._setting.sharing.publish]
        self.exchange.publish(offered, round=self.round, now=now)
        arrived = self.exchange.collect(round=self.round, now=now)
        for arrival in arrived:
            group = arrival.scored([float(text[0] == "1") for text in arrival.rollout.texts])
            self.exchange.note_scored(group, now)
            if self.mixing.is_useful(group):
                self.pool.add(group)
        self.pool.expire(now, self.round)
        chosen = self.mixing.choose(self.pool.groups(), self.exchange.lag, self.rng)
        self.pool.take(chosen)
        self.totals.external_groups_trained += len(chosen)
        for group in chosen:
            assert group.origin is not None
            self.totals.note_trained_from(peer_id(group.origin.author))
        wanted = sampling.fetch_count(
            self.mixing.external,
            self._setting.sharing.fetch_factor,
            len(self.pool),
            self.exchange.in_flight,
        )
        return Round(arrived, chosen, self.exchange.request(wanted, self.rng, now))

    def _answered(self) -> Published:
        number, asked = self._question()
        texts = [self._text() for _ in range(COMPLETIONS)]
        completions = tuple(Completion(text, -0.5, len(text) // 4 + 1) for text in texts)
        rewards = tuple(float(text[0] == "1") for text in texts)
        return Published(number, Group(asked, completions, rewards, self.round, 1.0))

    def _question(self, *, held_out: bool = False) -> tuple[int, Question]:
        while True:
            self._number += 1
            seed = question_seed(SWARM, self.public_key, TASK, self._number)
            asked = question(TASK, seed)
            if asked.held_out is held_out:
                return self._number, asked

    def _text(self) -> str:
        """An answer that nobody gave before: who copies is found out."""
        at = self.rng.randrange(len(self._setting.book) - self._setting.text_bytes)
        right = "1" if self.rng.random() < self._skill else "0"
        words = self._setting.book[at : at + self._setting.text_bytes]
        return f"{right} {self.rng.getrandbits(40):x} {words}"


class Liar(Member):
    """A node that offers a held-out question and what it does not hold, says it holds what it saw
    announced, and repeats itself; besides, it does what others do."""

    def run_round(self, now: float) -> Round:
        frame, shard = self._lie(now), shard_of(self.public_key, self.exchange.shards)
        self.transport.publish(frame, shard)
        self.transport.publish(frame, shard)
        return super().run_round(now)

    def _lie(self, now: float) -> bytes:
        number, _ = self._question(held_out=True)
        rollout = Rollout.build(
            task_digest=TASK,
            seed=number,
            created=now,
            policy_version=0,
            temperature=1.0,
            model_label="liar",
            texts=["1"],
            mean_logps=[-0.5],
            token_counts=[1],
            ended=[True],
        )
        sealed = self._signing.seal(rollout, self.key, SWARM)
        self.transport.hold(sealed.id, sealed.frame)
        items = [
            Item(sealed.id, TASK, number, len(sealed.frame)),
            Item(self.rng.randbytes(32), TASK, number, 300),
        ]
        known = [offer.item.rollout_id for offer in self.exchange.offered()]
        announcement = Announcement.build(
            round=self.round,
            created=now,
            policy_version=0,
            model_label="liar",
            items=items,
            held=self.rng.sample(known, min(16, len(known))),
        )
        return self._signing.seal(announcement, self.key, SWARM).frame
