"""Sybils: 400 keys of one operator on few networks against 100 honest nodes, each on its own.

Three ways to attack: joining a swarm that runs, with the same keys or with new ones in every round,
and being there from the start. The Sybils are as good as honest nodes in all else: they offer as
much, serve what they offer, and are right as often. Measured is what one honest node fetches.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from figures import Figure, figure
from parts import NOW, SWARM, TASK, Victim, announcement, person, rollout, victim

from protocol.codec import encode
from protocol.envelope import seal, signed_bytes
from protocol.limits import HEADER_BYTES
from protocol.messages import Item, Kind, Rollout
from protocol.names import WHOLE, Shard
from swarmnode.config import TrustSettings
from swarmnode.identity import Identity
from swarmnode.swarm.transport import QUEUES, Announced, AnyEvent, Fetched, TransportStatus

HONEST, SYBILS, EACH = 100, 400, 2
ROUND_S = 30.0
ASKED = 24  # what the defaults fetch in a round
LATE = 40  # rounds before late Sybils come


@dataclass
class Author:
    """Somebody who announces `EACH` rollouts a round and seals those that are asked for."""

    me: Identity
    address: str
    made: dict[bytes, Rollout] = field(default_factory=dict)

    def announce(self, round: int, now: float) -> bytes:
        items = []
        for old in list(self.made)[:-EACH]:  # as offered before the last announcement
            del self.made[old]
        for index in range(EACH):
            one = rollout(round * EACH + index, (f"{round} {index}", "no"), created=now)
            body = encode(one)
            signed = signed_bytes(Kind.ROLLOUT, SWARM, self.me.public_key, body)
            id = hashlib.sha256(signed).digest()
            self.made[id] = one
            items.append(Item(id, TASK, one.seed, HEADER_BYTES + len(body)))
        return seal(announcement(items, now, round), self.me.seed, SWARM).frame


class Stage:
    """A `Transport` on which everybody hears everybody and frames are made when asked for."""

    def __init__(self) -> None:
        self.authors: dict[str, Author] = {}
        self.fetched: list[str] = []  # authors, in order
        self._events: list[AnyEvent] = []

    def gossip(self, authors: Iterable[Author], round: int, now: float) -> None:
        for author in authors:
            self.authors[author.me.peer_id] = author
            self._events.append(Announced(author.me.peer_id, author.announce(round, now)))

    def fetch(self, peer: str, ids: Sequence[bytes]) -> None:
        author = self.authors[peer]
        for id in ids:
            frame = seal(author.made[id], author.me.seed, SWARM).frame
            self.fetched.append(peer)
            self._events.append(Fetched(peer, id, frame, author.address))

    def poll(self) -> list[AnyEvent]:
        events, self._events = self._events, []
        return events

    def status(self) -> TransportStatus:
        return TransportStatus("victim", running=True, state="", dropped=dict.fromkeys(QUEUES, 0))

    def listen(self, shards: Sequence[Shard]) -> None: ...
    def publish(self, frame: bytes, shard: Shard = WHOLE) -> None: ...
    def hold(self, id: bytes, frame: bytes) -> None: ...
    def avoid(self, peer: str, seconds: float) -> None: ...


def crowd(first: int, count: int, networks: int, prefix: str) -> list[Author]:
    """So many authors, spread over so many networks."""
    return [
        Author(person(first + n), f"/ip4/{prefix}.{n % networks}.{1 + n // networks}/tcp/4001")
        for n in range(count)
    ]


def share(
    way: str,
    rounds: int,
    trust: TrustSettings,
    networks: int = 10,
    after: int = 0,
    asked: int = ASKED,
) -> float:
    """The Sybils' part of what the victim fetches in `rounds` rounds of the attack, `asked` in
    each, of which the first `after` are not counted."""
    stage = Stage()
    node: Victim = victim(stage, trust=trust)
    honest = crowd(0, HONEST, HONEST, "198.51")
    sybils = crowd(HONEST, SYBILS, networks, "203.0")
    mine = {author.me.peer_id for author in honest}
    start = 0 if way == "start" else LATE
    counted = 0
    for round in range(start + rounds):
        node.now = NOW + round * ROUND_S
        if way == "new keys" and round > start:
            sybils = crowd(HONEST + round * SYBILS, SYBILS, networks, "203.0")
        stage.gossip([*honest, *(sybils if round >= start else ())], round, node.now)
        node.round(asked if round >= start else ASKED)
        if round < start + after:
            counted = len(stage.fetched)
    fetched = stage.fetched[counted:]
    return sum(peer not in mine for peer in fetched) / len(fetched)


def measure(short: bool) -> list[Figure]:
    """Figures of the battery."""
    rounds = 40 if short else 200
    trust = TrustSettings()
    found = {
        "joined a running swarm": share("late", rounds, trust),
        "joined it, new keys each round": share("new keys", rounds, trust),
        "were there from the start": share("start", 200, trust),
    }
    name = "share of 80 % Sybils on ten networks who"
    return [figure(f"{name} {way}", 100 * part, "%", "<=", 20.0) for way, part in found.items()]


if __name__ == "__main__":
    import sys

    from figures import show

    sys.exit(show(measure("--short" in sys.argv)) > 0)
