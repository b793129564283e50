"""Queues and stores that never grow beyond a number of items and bytes: the oldest goes first.

Both count what they drop. They do not lock: a caller with several threads does.
"""

from collections import Counter, OrderedDict, deque
from collections.abc import KeysView
from typing import Generic, TypeVar

T = TypeVar("T")


class BoundedQueue(Generic[T]):
    """First in, first out. `dropped` counts the items pushed out before they were taken."""

    def __init__(self, max_items: int, max_bytes: int) -> None:
        self.dropped = 0
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._items: deque[tuple[T, int]] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: T, size_bytes: int) -> list[T]:
        """Appends `item` and returns those that had to go: perhaps `item` itself, if too big."""
        self._items.append((item, size_bytes))
        self._bytes += size_bytes
        lost = []
        while self._items and (len(self._items) > self._max_items or self._bytes > self._max_bytes):
            lost.append(self.take())
        self.dropped += len(lost)
        return lost

    def take(self) -> T:
        """Removes and returns the oldest item; raises `IndexError` when empty."""
        item, size_bytes = self._items.popleft()
        self._bytes -= size_bytes
        return item

    def take_all(self) -> list[T]:
        """Removes and returns everything, oldest first."""
        items = [item for item, _ in self._items]
        self._items.clear()
        self._bytes = 0
        return items


class Outbox:
    """Frames by id, served to peers until newer ones push them out."""

    def __init__(self, max_items: int, max_bytes: int) -> None:
        self.dropped = 0
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._frames: OrderedDict[bytes, bytes] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._frames)

    def put(self, id: bytes, frame: bytes) -> None:
        """Holds `frame` as the newest; the same id again replaces it."""
        self._bytes += len(frame) - len(self._frames.pop(id, b""))
        self._frames[id] = frame
        while self._frames and (
            len(self._frames) > self._max_items or self._bytes > self._max_bytes
        ):
            _, oldest = self._frames.popitem(last=False)
            self._bytes -= len(oldest)
            self.dropped += 1

    def get(self, id: bytes) -> bytes | None:
        return self._frames.get(id)

    def ids(self) -> list[bytes]:
        """All ids held, oldest first."""
        return list(self._frames)


class RecentIds:
    """The ids added within the last `lifetime_s` seconds, of those the newest `max_items`."""

    def __init__(self, max_items: int, lifetime_s: float) -> None:
        self._max_items = max_items
        self._lifetime_s = lifetime_s
        self._times: OrderedDict[bytes, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._times)

    def __contains__(self, id: bytes) -> bool:
        return id in self._times

    @property
    def ids(self) -> KeysView[bytes]:
        """All that are remembered, oldest first."""
        return self._times.keys()

    def is_fresh(self, id: bytes, now: float) -> bool:
        """Whether `id` was added within the lifetime before `now`, whatever was added since."""
        return self._times.get(id, float("-inf")) >= now - self._lifetime_s

    def add(self, id: bytes, now: float) -> None:
        """Remembers `id` from `now` (seconds) on, and forgets what is due."""
        times, oldest = self._times, now - self._lifetime_s
        times[id] = now
        times.move_to_end(id)
        while len(times) > self._max_items or next(iter(times.values())) < oldest:
            times.popitem(last=False)

    def times(self) -> dict[bytes, float]:
        """When each was added, oldest first."""
        return dict(self._times)


class Budget:
    """How often each peer may do something in a window of time. Forgets at each window's start.

    Peers are counted, not trusted: whoever makes many keys has many budgets, and the memory for
    them is bounded by `max_peers`, above which all newcomers of the window are refused.
    """

    def __init__(self, per_peer: int, window_s: float, max_peers: int = 10_000) -> None:
        self._per_peer = per_peer
        self._window_s = window_s
        self._max_peers = max_peers
        self._counts: Counter[str] = Counter()
        self._began = float("-inf")

    def allows(self, peer: str, now: float) -> bool:
        """Whether `peer` has budget left at `now` (seconds); takes one from it."""
        if now - self._began >= self._window_s:
            self._began = now
            self._counts.clear()
        if peer not in self._counts and len(self._counts) >= self._max_peers:
            return False
        self._counts[peer] += 1
        return self._counts[peer] <= self._per_peer
