"""What must hold in every round of every node, whatever the network does."""

import math
from collections import Counter
from collections.abc import Iterator

from protocol.envelope import read_unverified
from protocol.limits import MAX_ITEMS
from protocol.messages import Rollout
from protocol.names import question_seed
from simulated_swarm.air import Air, SimulatedTransport
from simulated_swarm.member import SWARM, TASK, Member, Round, question
from swarmnode.config import HybridSettings, SharingSettings
from swarmnode.swarm.asking import MAX_ATTEMPTS, MAX_PEERS, MAX_WANTED
from swarmnode.swarm.copies import MAX_QUESTIONS, MAX_SKETCHES, MAX_TEXTS
from swarmnode.swarm.exchange import MAX_REMEMBERED
from swarmnode.swarm.numbers import MAX_ANSWERED
from swarmnode.swarm.offers import MAX_AUTHORS
from swarmnode.swarm.sharding import LARGE, MAX_LOBBY, MAX_SHARD, Scale

_MAX_HELD = 1024


class Violation(AssertionError):
    """An invariant that did not hold: a bug in the node's code."""


class Checks:
    """Checks rounds, and counts what has no bound but tells something. `known` authors are
    remembered at most by the rules for strangers."""

    def __init__(
        self, sharing: SharingSettings, air: Air, known: int, scale: Scale = LARGE
    ) -> None:
        self.count: Counter[str] = Counter()
        self.largest: Counter[str] = Counter()  # sizes of structures
        self._sharing = sharing
        self._air = air
        self._trained: dict[bytes, dict[bytes, float]] = {}  # node → rollout → when trained on
        self._had: dict[bytes, dict[bytes, float]] = {}  # the same of what was taken
        offers = MAX_AUTHORS * sharing.keep_announcements * MAX_ITEMS
        self._most = {
            "authors": MAX_AUTHORS,
            "offers": offers,
            "versions": MAX_AUTHORS,
            "heard": MAX_REMEMBERED,
            "taken": MAX_REMEMBERED,
            "in_flight": round(HybridSettings().stretch * sharing.external) * sharing.fetch_factor,
            "asking": MAX_AUTHORS + MAX_PEERS * MAX_WANTED,
            "kept": 64,
            "sharding": MAX_LOBBY + MAX_SHARD,
            # The shards drawn, with their halves and doubles.
            "listening": 4 * math.floor(scale.audience / scale.least_authors + 1),
            "pool": sharing.pool_groups,
            "outbox": _MAX_HELD,
            "seen": MAX_REMEMBERED,
            "standing": known,
            "budgets": 3 * known + 1,
            "numbers": known + MAX_ANSWERED,
            "texts": MAX_TEXTS + MAX_QUESTIONS * MAX_SKETCHES,
        }

    def check(self, member: Member, done: Round, now: float) -> None:
        """Raises `Violation` for what must not happen; counts the rest."""
        if any(question(TASK, arrival.question.seed).held_out for arrival in done.arrived):
            raise Violation("a held-out question was accepted")
        self._check_taking(member, done, now)
        self._check_training(member, done, now)
        sizes = member.exchange.sizes() | {
            "pool": len(member.pool),
            "outbox": len(member.transport.outbox),
        }
        for name, size in sizes.items():
            if size > self._most[name]:
                raise Violation(f"{name} has {size} entries, more than {self._most[name]}")
            self.largest[name] = max(self.largest[name], size)

    def check_nothing_is_lost(self, member: Member, now: float) -> None:
        """What a node once asked for, and did not get, it must go on asking for as long as it may
        be trained on and someone alive of whom it was asked holds it.

        Given up may be what the network lost `MAX_ATTEMPTS` times in a row.
        """
        asked, oldest = member.transport.asked, int(now - self._sharing.max_age_s)
        for id in [id for id, one in asked.items() if one.when < oldest]:
            del asked[id]
        given_up = {offer.item.rollout_id for offer, _ in member.exchange.given_up()}
        wanted = {offer.item.rollout_id for offer in member.exchange.wanted()} - given_up
        self.count["given_up"] += len(given_up)
        for id in asked.keys() - wanted:
            times = [asked[id].times[peer] for peer in asked[id].times if self._holds(peer, id)]
            if not times or self._may_be_refused(member, id, oldest):
                continue
            if id not in given_up:
                raise Violation("a rollout was forgotten that was asked for and can be had")
            if min(times) < MAX_ATTEMPTS:
                raise Violation("a rollout was given up that can be had")
            self.count["given_up_though_held"] += 1

    def _holds(self, peer: str, id: bytes) -> bool:
        one = self._air.present.get(peer)
        return one is not None and one.outbox.get(id) is not None

    def _may_be_refused(self, member: Member, id: bytes, oldest: float) -> bool:
        """Whether a rollout that is held is rightly not taken: too old, or of a question that is
        held out."""
        frames = (one.outbox.get(id) for one in self._holders(member, id))
        author, message = read_unverified(next(filter(None, frames)))
        assert type(message) is Rollout
        seed = question_seed(SWARM, author, TASK, message.seed)
        return message.created < oldest or question(TASK, seed).held_out

    def _holders(self, member: Member, id: bytes) -> Iterator[SimulatedTransport]:
        present = self._air.present
        return (present[peer] for peer in member.transport.asked[id].times if peer in present)

    def forget(self, member: Member) -> None:
        self._trained.pop(member.public_key, None)
        self._had.pop(member.public_key, None)

    def _check_taking(self, member: Member, done: Round, now: float) -> None:
        had = self._had.setdefault(member.public_key, {})
        for arrival in done.arrived:
            id = arrival.origin.rollout_id
            if id in had:
                raise Violation("a rollout was taken twice")
            if member.transport.asked.pop(id, None) is None:
                raise Violation("a rollout was taken that was not asked for")
            had[id] = now
        self._forget_old(had, now)

    def _forget_old(self, when: dict[bytes, float], now: float) -> None:
        oldest = now - 3 * self._sharing.max_age_s  # what is older cannot be admitted again
        while when and next(iter(when.values())) < oldest:
            del when[next(iter(when))]

    def _check_training(self, member: Member, done: Round, now: float) -> None:
        trained = self._trained.setdefault(member.public_key, {})
        for group in done.chosen:
            origin = group.origin
            assert origin is not None
            if origin.rollout_id in trained:
                raise Violation("a rollout was trained on twice")
            if origin.created < int(now - self._sharing.max_age_s):
                raise Violation(f"a rollout {now - origin.created:.0f} s old was trained on")
            if member.round - origin.received_round > self._sharing.max_wait_rounds:
                raise Violation("a rollout waited too long for training")
            if origin.author == member.public_key:
                raise Violation("a node trained on its own rollout as a peer's")
            trained[origin.rollout_id] = now
        self._forget_old(trained, now)
