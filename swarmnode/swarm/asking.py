"""Whom this node asks for which offer: its author, or another peer that says it holds the rollout.

Who serves a frame does not matter, as it is signed and named by its id. A peer that does not hold
what it announced, or serves something else, is not asked for it again; one that is gone or busy a
few times. An offer that nobody is left to be asked for waits for a new holder until it is too old.
Bounded: holders by number, attempts by offer.
"""

from collections import OrderedDict
from collections.abc import Container, Sequence
from dataclasses import dataclass

from protocol.limits import HELD_BYTES, MAX_FETCH_IDS, MAX_HELD
from protocol.names import peer_id
from swarmnode.swarm.admission import Offer
from swarmnode.swarm.offers import MAX_AUTHORS
from swarmnode.swarm.transport import FetchProblem, Transport

# Seconds after which a fetch without an event is given up. The transport's own limit is shorter.
MAX_FETCH_S = 60.0
# Times that one peer is asked for one offer. Each costs up to 8 s of dialling a peer that may be
# gone; a network that comes back within two rounds costs nothing.
MAX_ATTEMPTS = 3
# Peers that one offer is asked of: saying that one holds it costs nothing.
MAX_PEERS = 8
# What each holder says it holds is kept from so many of its announcements.
_KEEP_LISTS = 3
# Problems after which the same peer is not asked again at all; the others may pass.
_FINAL_PROBLEMS = frozenset((FetchProblem.ABSENT, FetchProblem.MALFORMED))
# No fault of the peer: nothing was asked.
_OWN_PROBLEMS = frozenset((FetchProblem.BUDGET,))


@dataclass(slots=True)
class _Asked:
    """One offer in flight, whom it was asked of, and when."""

    offer: Offer
    peer: bytes
    when: float


class Asking:
    """Fetches in flight, attempts made, and who holds what. Peers are public keys."""

    def __init__(self, transport: Transport, me: bytes) -> None:
        self._transport = transport
        self._me = me
        self._in_flight: dict[bytes, _Asked] = {}  # by peer and id
        self._wanted: set[bytes] = set()  # keys of the offers in flight
        self._attempts: dict[bytes, dict[bytes, int]] = {}  # offer's key → peer → attempts
        # Holder → beginnings of ids, newest first. Who announced longest ago is forgotten.
        self._held: OrderedDict[bytes, bytes] = OrderedDict()

    def __len__(self) -> int:
        return len(self._in_flight)

    @property
    def remembered(self) -> int:
        """Entries kept, for bounds and tests."""
        return len(self._held) + sum(map(len, self._attempts.values()))

    def note_held(self, holder: bytes, packed: bytes) -> None:
        """Takes note of what `holder` announced that it holds: beginnings of ids in a row."""
        if packed:
            kept = packed + self._held.pop(holder, b"")
            self._held[holder] = kept[: _KEEP_LISTS * MAX_HELD * HELD_BYTES]
            while len(self._held) > MAX_AUTHORS:
                self._held.popitem(last=False)

    def is_open(self, offer: Offer) -> bool:
        """Whether there is someone to be asked for it, and nobody has been asked just now."""
        return offer.key not in self._wanted and self._peer_for(offer) is not None

    def was_tried(self, key: bytes) -> bool:
        """Whether the offer with this key was asked for before: then it is wanted."""
        return key in self._attempts

    def is_given_up(self, offer: Offer) -> bool:
        """Whether it was asked for and there is nobody left to ask."""
        return self.was_tried(offer.key) and not (
            offer.key in self._wanted or self._peer_for(offer) is not None
        )

    def asked(self, offer: Offer) -> frozenset[bytes]:
        """Whom it was asked of."""
        return frozenset(self._attempts.get(offer.key, ()))

    def ask(self, offers: Sequence[Offer], now: float) -> int:
        """Fetches those of the offers that are open; returns how many."""
        by_peer: dict[bytes, list[bytes]] = {}
        for offer in offers:
            peer = self._peer_for(offer)
            id = offer.item.rollout_id
            if offer.key in self._wanted or peer is None or peer + id in self._in_flight:
                continue
            self._in_flight[peer + id] = _Asked(offer, peer, now)
            self._wanted.add(offer.key)
            attempts = self._attempts.setdefault(offer.key, {})
            attempts[peer] = attempts.get(peer, 0) + 1
            by_peer.setdefault(peer, []).append(id)
        for peer, ids in by_peer.items():
            for start in range(0, len(ids), MAX_FETCH_IDS):
                self._transport.fetch(peer_id(peer), ids[start : start + MAX_FETCH_IDS])
        return sum(map(len, by_peer.values()))

    def answered(self, peer: bytes, id: bytes) -> Offer | None:
        """The offer that was asked of `peer` under this id, and is not in flight any more."""
        asked = self._in_flight.pop(peer + id, None)
        if asked is None:
            return None
        self._wanted.discard(asked.offer.key)
        return asked.offer

    def failed(self, offer: Offer, peer: bytes, problem: FetchProblem) -> None:
        """Takes note of why `peer` did not deliver it."""
        if problem in _FINAL_PROBLEMS:
            self.blame(offer, peer)
        elif problem in _OWN_PROBLEMS:
            self._attempts[offer.key][peer] -= 1

    def blame(self, offer: Offer, peer: bytes) -> None:
        """Sees to it that `peer` is not asked for this offer again."""
        self._attempts.setdefault(offer.key, {})[peer] = MAX_ATTEMPTS

    def expire(self, now: float) -> int:
        """Gives up fetches without an answer; returns how many. Their peers may be asked again."""
        lost = [key for key, asked in self._in_flight.items() if asked.when < now - MAX_FETCH_S]
        for key in lost:
            self._wanted.discard(self._in_flight.pop(key).offer.key)
        return len(lost)

    def forget(self, known: Container[bytes]) -> None:
        """Forgets attempts at offers whose keys are not among `known`."""
        if self._attempts:
            self._attempts = {
                key: attempts
                for key, attempts in self._attempts.items()
                if key in known or key in self._wanted
            }

    def _peer_for(self, offer: Offer) -> bytes | None:
        """Who is to be asked for it next: its author, then holders, the least asked first."""
        attempts = self._attempts.get(offer.key)
        if not attempts:
            return offer.author
        peers = dict.fromkeys([offer.author, *self._holders(offer.item.rollout_id[:HELD_BYTES])])
        if len(attempts) >= MAX_PEERS:
            peers = dict.fromkeys(attempts)
        left = [peer for peer in peers if attempts.get(peer, 0) < MAX_ATTEMPTS]
        return min(left, key=lambda peer: attempts.get(peer, 0), default=None)

    def _holders(self, begin: bytes) -> list[bytes]:
        """Peers that say so, those who said so last first."""
        return [
            holder
            for holder, packed in reversed(self._held.items())
            if begin in packed and holder != self._me and _has(packed, begin)
        ]


def _has(packed: bytes, begin: bytes) -> bool:
    return any(packed[at : at + HELD_BYTES] == begin for at in range(0, len(packed), HELD_BYTES))
