"""Whom this node asks for which offer: its author, or another peer that says it holds the rollout.

Who serves a frame does not matter, as it is signed and named by its id. A peer that does not hold
what it announced, or serves something else, is not asked for it again; one that is gone or busy a
few times, after longer and longer rests. What was asked for once is asked for until it is there or
too old, whatever its author has announced since; an offer that nobody is left to be asked for waits
for a new holder until then. A peer that could not be reached is away until it is heard from again:
it is asked for one offer at a time, after rests, and only where those who are there leave room, so
that the many who left do not hold up what the others offer.
Bounded: holders by number, attempts by offer, and the offers by number.
"""

from collections import OrderedDict
from collections.abc import Container, KeysView, Sequence
from dataclasses import dataclass

from protocol.limits import HELD_BYTES, MAX_FETCH_IDS, MAX_HELD
from protocol.names import peer_id
from swarmnode.swarm.admission import Offer
from swarmnode.swarm.offers import MAX_AUTHORS
from swarmnode.swarm.transport import FetchProblem, Transport

# Seconds after which a fetch without an event is given up. The transport's own limit is shorter.
MAX_FETCH_S = 60.0
# Times that one peer is asked for one offer; each costs up to 8 s of dialling a peer that may be
# gone. After a failure it rests for so many seconds, after each further one twice as long: a
# network that is away for half a minute costs no rollout, however short the rounds are.
MAX_ATTEMPTS, REST_S = 5, 2.0
# The longest rest of a peer that is away.
_MOST_REST_S = 32.0
# Peers that one offer is asked of: saying that one holds it costs nothing.
MAX_PEERS = 8
# Offers that were asked for and are not there yet: those of a hundred rounds in which nobody
# delivers. More only remembers who withholds what.
MAX_WANTED = 2048
# What each holder says it holds is kept from so many of its announcements.
_KEEP_LISTS = 3
# Problems after which the same peer is not asked again at all; the others may pass.
_FINAL_PROBLEMS = frozenset((FetchProblem.ABSENT, FetchProblem.MALFORMED))
# No fault of the peer: nothing was asked.
_OWN_PROBLEMS = frozenset((FetchProblem.BUDGET,))


@dataclass(slots=True)
class _Tries:
    """Of one peer for one offer."""

    count: int = 0
    not_before: float = 0.0  # the next one


@dataclass(slots=True)
class _Wanted:
    """An offer that was asked for, and the tries by peer."""

    offer: Offer
    tries: dict[bytes, _Tries]


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
        self._flying: set[bytes] = set()  # keys of the offers in flight
        self._wanted: dict[bytes, _Wanted] = {}  # by the offer's key, asked for longest ago first
        # Holder → beginnings of ids, newest first. Who announced longest ago is forgotten.
        self._held: OrderedDict[bytes, bytes] = OrderedDict()
        self._away: OrderedDict[bytes, _Tries] = OrderedDict()  # peers that cannot be reached

    def __len__(self) -> int:
        return len(self._in_flight)

    @property
    def remembered(self) -> int:
        """Entries kept, for bounds and tests."""
        return len(self._held) + sum(len(wanted.tries) for wanted in self._wanted.values())

    def note_held(self, holder: bytes, packed: bytes) -> None:
        """Takes note of what `holder` announced that it holds: beginnings of ids in a row."""
        self.note_there(holder)
        if packed:
            kept = packed + self._held.pop(holder, b"")
            self._held[holder] = kept[: _KEEP_LISTS * MAX_HELD * HELD_BYTES]
            while len(self._held) > MAX_AUTHORS:
                self._held.popitem(last=False)

    def note_there(self, peer: bytes) -> None:
        """Takes note of a sign of life."""
        self._away.pop(peer, None)

    def opened(self, offers: Sequence[Offer], now: float) -> tuple[list[Offer], list[Offer]]:
        """The offers for which there is someone to be asked now and nobody is being asked: those of
        peers that are there, and, one of each, those of peers that are away."""
        there: list[Offer] = []
        away: dict[bytes, Offer] = {}
        for offer in offers:
            if offer.key not in self._wanted and offer.author not in self._away:
                there.append(offer)  # most offers
                continue
            peer = None if offer.key in self._flying else self._peer_for(offer, now)
            if peer is None:
                continue
            if peer in self._away:
                away.setdefault(peer, offer)
            else:
                there.append(offer)
        return there, list(away.values())

    @property
    def tried(self) -> KeysView[bytes]:
        """The keys of the offers that were asked for before and are not there yet."""
        return self._wanted.keys()

    def wanted(self) -> list[Offer]:
        """The offers that were asked for before and are not there yet."""
        return [wanted.offer for wanted in self._wanted.values()]

    def is_given_up(self, offer: Offer) -> bool:
        """Whether it was asked for and there is nobody left to ask."""
        return offer.key in self._wanted and not (
            offer.key in self._flying or self._left_for(offer)
        )

    def asked(self, offer: Offer) -> frozenset[bytes]:
        """Whom it was asked of."""
        wanted = self._wanted.get(offer.key)
        return frozenset(wanted.tries if wanted else ())

    def ask(self, offers: Sequence[Offer], now: float) -> int:
        """Fetches those of the offers that are open; returns how many."""
        by_peer: dict[bytes, list[bytes]] = {}
        for offer in offers:
            peer = self._peer_for(offer, now)
            id = offer.item.rollout_id
            if offer.key in self._flying or peer is None or peer + id in self._in_flight:
                continue
            self._in_flight[peer + id] = _Asked(offer, peer, now)
            self._flying.add(offer.key)
            self._tries_of(offer, peer).count += 1
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
        self._flying.discard(asked.offer.key)
        return asked.offer

    def failed(self, offer: Offer, peer: bytes, problem: FetchProblem, now: float) -> None:
        """Takes note of why `peer` did not deliver it."""
        if problem is FetchProblem.UNREACHABLE:
            self._note_away(peer, now)
        if problem in _FINAL_PROBLEMS:
            self.blame(offer, peer)
        elif problem in _OWN_PROBLEMS:
            self._tries_of(offer, peer).count -= 1
        else:
            self._let_rest(offer, peer, now)

    def blame(self, offer: Offer, peer: bytes) -> None:
        """Sees to it that `peer` is not asked for this offer again."""
        self._tries_of(offer, peer).count = MAX_ATTEMPTS

    def expire(self, now: float) -> int:
        """Gives up fetches without an answer; returns how many. Their peers may be asked again."""
        lost = [key for key, asked in self._in_flight.items() if asked.when < now - MAX_FETCH_S]
        for key in lost:
            self._flying.discard(self._in_flight.pop(key).offer.key)
        return len(lost)

    def forget(self, taken: Container[bytes], oldest: float) -> None:
        """Forgets offers that are among the keys `taken` or from before `oldest` (Unix seconds)."""
        for key, wanted in list(self._wanted.items()):
            is_over = key in taken or wanted.offer.created < oldest
            if key not in self._flying and (is_over or len(self._wanted) > MAX_WANTED):
                del self._wanted[key]

    def drop(self, author: bytes) -> None:
        """Forgets the offers of `author`, but for those in flight."""
        for key, wanted in list(self._wanted.items()):
            if wanted.offer.author == author and key not in self._flying:
                del self._wanted[key]

    def _tries_of(self, offer: Offer, peer: bytes) -> _Tries:
        wanted = self._wanted.setdefault(offer.key, _Wanted(offer, {}))
        return wanted.tries.setdefault(peer, _Tries())

    def _let_rest(self, offer: Offer, peer: bytes, now: float) -> None:
        tries = self._tries_of(offer, peer)
        tries.not_before = now + REST_S * 2 ** (tries.count - 1)

    def _note_away(self, peer: bytes, now: float) -> None:
        tries = self._away.setdefault(peer, _Tries())
        if tries.not_before <= now:  # else it failed for several offers at once
            tries.not_before = now + min(_MOST_REST_S, REST_S * 2**tries.count)
            tries.count = min(tries.count + 1, MAX_ATTEMPTS)
        while len(self._away) > MAX_AUTHORS:
            self._away.popitem(last=False)

    def _rests(self, peer: bytes, now: float) -> bool:
        """Whether it is away, and either rests or is being asked."""
        tries = self._away.get(peer)
        if tries is None:
            return False
        return tries.not_before > now or any(a.peer == peer for a in self._in_flight.values())

    def _peer_for(self, offer: Offer, now: float) -> bytes | None:
        """Who is to be asked for it now: its author, then holders, the least asked first, and those
        who are away last."""
        left = self._left_for(offer)
        ready = [
            peer
            for peer, tries in left.items()
            if tries.not_before <= now and not self._rests(peer, now)
        ]
        return min(ready, key=lambda peer: (peer in self._away, left[peer].count), default=None)

    def _left_for(self, offer: Offer) -> dict[bytes, _Tries]:
        """Who may be asked for it, now or later, with their tries so far."""
        wanted = self._wanted.get(offer.key)
        if wanted is None and offer.author not in self._away:
            return {offer.author: _Tries()}
        tried = wanted.tries if wanted else {}
        peers = dict.fromkeys([offer.author, *self._holders(offer.item.rollout_id[:HELD_BYTES])])
        if len(tried) >= MAX_PEERS:
            peers = dict.fromkeys(tried)
        found = {peer: tried.get(peer, _Tries()) for peer in peers}
        return {peer: tries for peer, tries in found.items() if tries.count < MAX_ATTEMPTS}

    def _holders(self, begin: bytes) -> list[bytes]:
        """Peers that say so, those who said so last first."""
        return [
            holder
            for holder, packed in reversed(self._held.items())
            if begin in packed and holder != self._me and _has(packed, begin)
        ]


def _has(packed: bytes, begin: bytes) -> bool:
    return any(packed[at : at + HELD_BYTES] == begin for at in range(0, len(packed), HELD_BYTES))
