"""A swarm inside one process, deterministic: for tests and simulation, not for use.

Everything happens during the call that causes it: a published frame is in every other node's
next `poll`, a fetch is answered in the asker's own next `poll`. There is no thread, clock or
chance. What a real network does to a node is done to it here by `Hub.cut` and `Hub.join_again`.
"""

from collections import Counter
from collections.abc import Sequence

from protocol.names import WHOLE, Shard, check_shard
from swarmnode.swarm.alone import Alone
from swarmnode.swarm.bounded import BoundedQueue, Outbox
from swarmnode.swarm.transport import (
    MAX_EVENT_BYTES,
    MAX_EVENTS,
    MAX_HELD_BYTES,
    MAX_HELD_FRAMES,
    QUEUES,
    Announced,
    AnyEvent,
    Fetched,
    FetchFailed,
    FetchProblem,
    TransportStatus,
    check_fetch,
    check_frame,
    check_held,
    event_bytes,
)


class Hub:
    """The wire between the `MemoryTransport`s that were made with it."""

    def __init__(self) -> None:
        self._open: dict[str, MemoryTransport] = {}
        self._cut: set[str] = set()

    def join(self, transport: "MemoryTransport") -> None:
        self._open[transport.peer_id] = transport

    def leave(self, peer: str) -> None:
        self._open.pop(peer, None)

    def cut(self, peer: str) -> None:
        """Takes the peer off the wire: it runs on, alone."""
        self._cut.add(peer)

    def join_again(self, peer: str) -> None:
        self._cut.discard(peer)

    def others(self, peer: str) -> list["MemoryTransport"]:
        """Whom `peer` reaches, in the order in which they opened."""
        if peer in self._cut:
            return []
        me = self._open.get(peer)
        avoided = me._avoided if me else set()
        return [
            t
            for id, t in self._open.items()
            if id != peer and id not in self._cut | avoided and peer not in t._avoided
        ]


class MemoryTransport:
    """`Transport` over a `Hub`. `address` is where others see this node, "" for nowhere."""

    def __init__(
        self,
        hub: Hub,
        peer_id: str,
        max_events: int = MAX_EVENTS,
        max_held: int = MAX_HELD_FRAMES,
        address: str = "",
    ) -> None:
        self.peer_id = peer_id
        self._address = address
        self._hub = hub
        self._running = False
        self._events: BoundedQueue[AnyEvent] = BoundedQueue(max_events, MAX_EVENT_BYTES)
        self._outbox = Outbox(max_held, MAX_HELD_BYTES)
        self._bytes: Counter[str] = Counter()
        self._shards: frozenset[Shard] = frozenset((WHOLE,))
        self._avoided: set[str] = set()  # for good: there is no clock here

    def open(self) -> None:
        self._running = True
        self._hub.join(self)

    def listen(self, shards: Sequence[Shard]) -> None:
        for shard in shards:
            check_shard(shard)
        self._shards = frozenset((WHOLE, *shards))

    def publish(self, frame: bytes, shard: Shard = WHOLE) -> None:
        check_frame(frame)
        check_shard(shard)
        if not self._running:
            return
        self._bytes["out"] += len(frame)
        for other in self._hub.others(self.peer_id):
            if shard in other._shards:
                other._receive(Announced(self.peer_id, frame, shard), len(frame))

    def hold(self, id: bytes, frame: bytes) -> None:
        check_held(id, frame)
        self._outbox.put(id, frame)

    def fetch(self, peer: str, ids: Sequence[bytes]) -> None:
        check_fetch(peer, ids)
        found = [t for t in self._hub.others(self.peer_id) if t.peer_id == peer]
        if not found or not self._running:
            problem = FetchProblem.UNREACHABLE
            self._receive(FetchFailed(peer, tuple(ids), problem, "not on the hub"), 0)
            return
        frames = {id: found[0]._outbox.get(id) for id in ids}
        for id, frame in frames.items():
            if frame is not None:
                found[0]._bytes["out"] += len(frame)
                self._receive(Fetched(peer, id, frame, found[0]._address), len(frame))
        absent = tuple(id for id, frame in frames.items() if frame is None)
        if absent:
            self._receive(FetchFailed(peer, absent, FetchProblem.ABSENT, "not held"), 0)

    def avoid(self, peer: str, seconds: float) -> None:
        self._avoided.add(peer)

    def poll(self) -> list[AnyEvent]:
        return self._events.take_all()

    def status(self) -> TransportStatus:
        peers = tuple(t.peer_id for t in self._hub.others(self.peer_id)) if self._running else ()
        return TransportStatus(
            peer_id=self.peer_id,
            running=self._running,
            state=f"connected to {len(peers)} peers" if peers else "alone: offline",
            alone="" if peers else Alone.OFFLINE,
            addresses=(f"/memory/0/p2p/{self.peer_id}",) if self._running else (),
            peers=peers,
            bytes_in=self._bytes["in"],
            bytes_out=self._bytes["out"],
            dropped=dict.fromkeys(QUEUES, 0)
            | {"events": self._events.dropped, "hold": self._outbox.dropped},
        )

    def close(self) -> None:
        self._running = False
        self._hub.leave(self.peer_id)

    def _receive(self, event: AnyEvent, payload_bytes: int) -> None:
        self._bytes["in"] += payload_bytes
        self._events.put(event, event_bytes(event))
