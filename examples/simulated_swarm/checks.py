"""What must hold in every round of every node, whatever the network does."""

from collections import Counter

from protocol.limits import MAX_ITEMS
from protocol.names import peer_id
from simulated_swarm.air import Air
from simulated_swarm.member import TASK, Member, Round, question
from swarmnode.config import HybridSettings, SharingSettings
from swarmnode.swarm.asking import MAX_PEERS
from swarmnode.swarm.exchange import MAX_REMEMBERED
from swarmnode.swarm.offers import MAX_AUTHORS
from swarmnode.swarm.sharding import MAX_LOBBY, MAX_SHARD

_MAX_LISTENING = 24
_MAX_HELD = 1024


class Violation(AssertionError):
    """An invariant that did not hold: a bug in the node's code."""


class Checks:
    """Checks rounds, and counts what has no bound but tells something."""

    def __init__(self, sharing: SharingSettings, air: Air) -> None:
        self.count: Counter[str] = Counter()
        self.largest: Counter[str] = Counter()  # sizes of structures
        self._sharing = sharing
        self._air = air
        self._trained: dict[bytes, dict[bytes, float]] = {}  # node → rollout → when trained on
        offers = MAX_AUTHORS * sharing.keep_announcements * MAX_ITEMS
        self._most = {
            "authors": MAX_AUTHORS,
            "offers": offers,
            "versions": MAX_AUTHORS,
            "heard": MAX_REMEMBERED,
            "taken": MAX_REMEMBERED,
            "in_flight": round(HybridSettings().stretch * sharing.external) * sharing.fetch_factor,
            "asking": MAX_AUTHORS + MAX_PEERS * offers,
            "kept": 64,
            "sharding": MAX_LOBBY + MAX_SHARD,
            "listening": _MAX_LISTENING,
            "pool": sharing.pool_groups,
            "outbox": _MAX_HELD,
        }

    def check(self, member: Member, done: Round, now: float) -> None:
        """Raises `Violation` for what must not happen; counts the rest."""
        if any(question(TASK, arrival.question.seed).held_out for arrival in done.arrived):
            raise Violation("a held-out question was accepted")
        self._check_training(member, done, now)
        sizes = member.exchange.sizes() | {
            "pool": len(member.pool),
            "outbox": len(member.transport.outbox),
        }
        for name, size in sizes.items():
            if size > self._most[name]:
                raise Violation(f"{name} has {size} entries, more than {self._most[name]}")
            self.largest[name] = max(self.largest[name], size)

    def check_nothing_is_lost(self, member: Member) -> None:
        """Who gave an offer up must have asked everyone alive that it knew to hold it.

        An author that is alive and holds it can still have been lost three times in a row.
        """
        for offer, asked in member.exchange.given_up():
            self.count["given_up"] += 1
            author = self._air.present.get(peer_id(offer.author))
            if author is None or author.outbox.get(offer.item.rollout_id) is None:
                continue
            if offer.author not in asked:
                raise Violation("an offer was given up without asking its author, who holds it")
            self.count["given_up_though_held_by_the_author"] += 1

    def forget(self, member: Member) -> None:
        self._trained.pop(member.public_key, None)

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
        oldest = now - 3 * self._sharing.max_age_s  # what is older cannot be admitted again
        for id in [id for id, when in trained.items() if when < oldest]:
            del trained[id]
