"""The simulated network: who hears and fetches what, when, and what gets lost on the way."""

import random
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import itemgetter

from protocol.names import WHOLE, Shard
from swarmnode.swarm.bounded import Outbox
from swarmnode.swarm.budget import Bucket
from swarmnode.swarm.transport import (
    QUEUES,
    Announced,
    AnyEvent,
    Fetched,
    FetchFailed,
    FetchProblem,
    TransportStatus,
)

_DIAL_S, _TIMEOUT_S, _PATIENCE_S = 8.0, 20.0, 5.0
_MAX_HELD, _MAX_HELD_BYTES = 1024, 32 * 2**20


@dataclass
class Count:
    """What went through the air since the last `reset`."""

    announced: int = 0  # copies of announcements on their way
    lost: int = 0
    announced_bytes: int = 0  # received
    fetched_bytes: int = 0  # received
    asked: int = 0
    delivered: int = 0


class Air:
    """All nodes' network. Each announcement copy and each fetch is lost with chance `loss`; delays
    of announcements are uniform up to 2 × `delay_s`, those of fetches exponential."""

    def __init__(self, rng: random.Random, loss: float, delay_s: float, upload: float) -> None:
        self.now = 0.0
        self.count = Count()
        self.upload = upload
        self._rng = rng
        self._loss = loss
        self._delay_s = delay_s
        self.present: dict[str, SimulatedTransport] = {}
        self._listeners: dict[Shard, dict[str, SimulatedTransport]] = {}

    def join(self, one: "SimulatedTransport") -> None:
        self.present[one.peer_id] = one
        self.subscribe(one, WHOLE)

    def leave(self, one: "SimulatedTransport") -> None:
        del self.present[one.peer_id]
        for shard in (WHOLE, *one.shards):
            self.unsubscribe(one, shard)

    def subscribe(self, one: "SimulatedTransport", shard: Shard) -> None:
        self._listeners.setdefault(shard, {})[one.peer_id] = one

    def unsubscribe(self, one: "SimulatedTransport", shard: Shard) -> None:
        listeners = self._listeners[shard]
        listeners.pop(one.peer_id, None)
        if not listeners:
            del self._listeners[shard]

    def gossip(self, sender: "SimulatedTransport", frame: bytes, shard: Shard) -> None:
        event = Announced(sender.peer_id, frame, shard)
        listeners = self._listeners.get(shard, {})
        chance, size, loss, reached = self._rng.random, len(frame), self._loss, 0
        for one in listeners.values():
            drawn = chance()
            if drawn < loss or one is sender:
                continue
            one.inbox.append((self.now + 2 * self._delay_s * drawn, event))
            one.bytes_in += size
            reached += 1
        self.count.announced += reached
        self.count.lost += len(listeners) - reached - (sender.peer_id in listeners)
        self.count.announced_bytes += reached * size

    def fetch(self, asker: "SimulatedTransport", peer: str, ids: Sequence[bytes]) -> None:
        holder = self.present.get(peer)
        self.count.asked += len(ids)
        if holder is None:
            self._fail(asker, peer, ids, FetchProblem.UNREACHABLE, _DIAL_S)
        elif self._rng.random() < self._loss:
            self._fail(asker, peer, ids, FetchProblem.TIMEOUT, _TIMEOUT_S)
        elif holder.upload.wait_s(self.now) > _PATIENCE_S:
            self._fail(asker, peer, ids, FetchProblem.BUSY, self._delay_s)
        else:
            self._deliver(asker, holder, ids)

    def _deliver(
        self, asker: "SimulatedTransport", holder: "SimulatedTransport", ids: Sequence[bytes]
    ) -> None:
        arrival = self.now + self._rng.expovariate(1 / (2 * self._delay_s))
        absent = []
        for id in ids:
            frame = holder.outbox.get(id)
            if frame is None:
                absent.append(id)
                continue
            holder.upload.spend(len(frame), self.now)
            holder.bytes_out += len(frame)
            asker.bytes_in += len(frame)
            asker.inbox.append((arrival, Fetched(holder.peer_id, id, frame)))
            self.count.fetched_bytes += len(frame)
            self.count.delivered += 1
        if absent:
            self._fail(asker, holder.peer_id, absent, FetchProblem.ABSENT, self._delay_s)

    def _fail(
        self,
        asker: "SimulatedTransport",
        peer: str,
        ids: Sequence[bytes],
        problem: FetchProblem,
        after_s: float,
    ) -> None:
        asker.inbox.append((self.now + after_s, FetchFailed(peer, tuple(ids), problem)))


@dataclass
class Asked:
    """A rollout that a node asked for: when first, and how often of which peer."""

    when: float
    times: Counter[str] = field(default_factory=Counter)


class SimulatedTransport:
    """`swarmnode.swarm.transport.Transport` over the air. `asked`, by id, is for the checks, which
    take from it what is settled."""

    def __init__(self, air: Air, peer_id: str) -> None:
        self.peer_id = peer_id
        self.inbox: list[tuple[float, AnyEvent]] = []
        self.outbox = Outbox(_MAX_HELD, _MAX_HELD_BYTES)
        self.shards: tuple[Shard, ...] = ()
        self.upload = Bucket(air.upload)
        self.bytes_in = 0
        self.bytes_out = 0
        self.asked: dict[bytes, Asked] = {}
        self._air = air

    def open(self) -> None:
        self._air.join(self)

    def close(self) -> None:
        self._air.leave(self)

    def listen(self, shards: Sequence[Shard]) -> None:
        for shard in set(self.shards) - set(shards):
            self._air.unsubscribe(self, shard)
        for shard in shards:
            self._air.subscribe(self, shard)
        self.shards = tuple(shards)

    def publish(self, frame: bytes, shard: Shard = WHOLE) -> None:
        self.bytes_out += len(frame)
        self._air.gossip(self, frame, shard)

    def hold(self, id: bytes, frame: bytes) -> None:
        self.outbox.put(id, frame)

    def fetch(self, peer: str, ids: Sequence[bytes]) -> None:
        self.bytes_out += 32 * len(ids)
        for id in ids:
            self.asked.setdefault(id, Asked(self._air.now)).times[peer] += 1
        self._air.fetch(self, peer, ids)

    def avoid(self, peer: str, seconds: float) -> None:
        """Costs the avoided nothing here: what it says is refused by the exchange. What was asked
        of it is not wanted any more."""
        self.asked = {id: one for id, one in self.asked.items() if peer not in one.times}

    def poll(self) -> list[AnyEvent]:
        now = self._air.now
        self.inbox.sort(key=itemgetter(0))
        count = bisect_right(self.inbox, now, key=itemgetter(0))
        arrived = [event for _, event in self.inbox[:count]]
        del self.inbox[:count]
        return arrived

    def status(self) -> TransportStatus:
        return TransportStatus(
            peer_id=self.peer_id,
            running=True,
            state="simulated",
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
            dropped=dict.fromkeys(QUEUES, 0),
        )
