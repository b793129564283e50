"""What waits to be handed to the network process, bounded, shared by the node and one writer.

Held frames and what is listened to are kept here for the node's whole life, so that a network
process that was restarted gets them again.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence

from protocol.names import WHOLE, Shard
from swarmnode.swarm.bounded import BoundedQueue, Outbox
from swarmnode.swarm.channel import Avoid, Command, Fetch, Hold, Listen, Publish
from swarmnode.swarm.transport import MAX_HELD_BYTES, MAX_HELD_FRAMES

# Announcements that wait: one a round. Older ones offer what newer ones do, or what is stale.
_MAX_PUBLISH = 64
# Fetches that wait: some tens a round. What waits longer is not wanted any more.
_MAX_FETCH = 512
_MAX_QUEUE_BYTES = 8 * 2**20
_MAX_AVOID = 64


class Outgoing:
    """Commands in the order: what to hear, holds, announcements, fetches. So nothing is announced
    before it is held, or in a shard before this node is a part of it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._is_open = False
        self._publish: BoundedQueue[Publish] = BoundedQueue(_MAX_PUBLISH, _MAX_QUEUE_BYTES)
        self._fetch: BoundedQueue[Fetch] = BoundedQueue(_MAX_FETCH, _MAX_QUEUE_BYTES)
        self._outbox = Outbox(MAX_HELD_FRAMES, MAX_HELD_BYTES)
        self._unsent: OrderedDict[bytes, None] = OrderedDict()  # ids to hand over, oldest first
        self._shards: tuple[Shard, ...] = ()
        self._shards_changed = False
        self._avoid: BoundedQueue[Avoid] = BoundedQueue(_MAX_AVOID, _MAX_QUEUE_BYTES)

    def avoid(self, peer: str, seconds: float) -> None:
        with self._changed:
            self._avoid.put(Avoid(peer, seconds), len(peer))
            self._changed.notify()

    def listen(self, shards: Sequence[Shard]) -> None:
        with self._changed:
            self._shards, self._shards_changed = tuple(shards), True
            self._changed.notify()

    def publish(self, frame: bytes, shard: Shard = WHOLE) -> None:
        with self._changed:
            self._publish.put(Publish(frame, shard), len(frame))
            self._changed.notify()

    def publish_again(self, frame: bytes, shard: Shard = WHOLE) -> None:
        """Queues what a network process that is gone did not say, unless something newer waits."""
        with self._changed:
            if not self._publish:
                self._publish.put(Publish(frame, shard), len(frame))

    def hold(self, id: bytes, frame: bytes) -> None:
        with self._changed:
            self._outbox.put(id, frame)
            self._unsent[id] = None
            while len(self._unsent) > MAX_HELD_FRAMES:
                self._unsent.popitem(last=False)
            self._changed.notify()

    def fetch(self, peer: str, ids: Sequence[bytes]) -> list[Fetch]:
        """Queues a fetch and returns those that it pushed out."""
        with self._changed:
            lost = self._fetch.put(Fetch(peer, tuple(ids)), 32 * len(ids))
            self._changed.notify()
            return lost

    def begin(self) -> None:
        """A new network process: it needs all that is held, and none of the old fetches."""
        with self._changed:
            self._is_open = True
            self._unsent = OrderedDict.fromkeys(self._outbox.ids())
            self._shards_changed = bool(self._shards)
            self._fetch.take_all()

    def end(self) -> None:
        """The network process is gone: lets `take` return."""
        with self._changed:
            self._is_open = False
            self._changed.notify_all()

    def take(self) -> Command | None:
        """The next command, waiting for one; None once the network process is gone."""
        with self._changed:
            while self._is_open:
                command = self._next()
                if command is not None:
                    return command
                self._changed.wait()
            return None

    def dropped(self) -> dict[str, int]:
        with self._changed:
            return {
                "publish": self._publish.dropped,
                "fetch": self._fetch.dropped,
                "hold": self._outbox.dropped,
            }

    def _next(self) -> Command | None:
        if self._shards_changed:
            self._shards_changed = False
            return Listen(self._shards)
        if self._avoid:
            return self._avoid.take()
        while self._unsent:
            id, _ = self._unsent.popitem(last=False)
            frame = self._outbox.get(id)
            if frame is not None:
                return Hold(id, frame)
        if self._publish:
            return self._publish.take()
        return self._fetch.take() if self._fetch else None
