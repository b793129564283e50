"""What the network process needs of a libp2p library: one `Host`, kept by one adapter for each.

`hivemind_p2pd` drives the Go daemon from asyncio, `libp2p_trio` runs py-libp2p on trio. What is
done with a host (`network`, `fetching`, `discovery`) is written once, with anyio, and runs on both.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from swarmnode.errors import SwarmNodeError


class HostError(SwarmNodeError):
    """The host refused a request or is gone; the message is the library's own."""


class StreamCut(SwarmNodeError):
    """A stream ended before what was to be read or written was through."""


class Stream(Protocol):
    """An open stream to `peer`; `address` is the other end of its connection ("" if unusual)."""

    @property
    def peer(self) -> str: ...

    @property
    def address(self) -> str: ...

    async def read_exactly(self, count: int) -> bytes:
        """The next `count` bytes; `StreamCut` when they do not come."""
        ...

    async def write(self, data: bytes) -> None:
        """Sends all of `data`; `StreamCut` when it cannot."""
        ...

    async def until_closed(self) -> None:
        """Returns when the peer has closed the stream, or sends something unasked."""
        ...


# Whether a gossiped frame (publisher, frame) is to be taken. It counts, so it is asked once for
# each distinct message whose signature holds.
Admits = Callable[[str, bytes], bool]


class Host(Protocol):
    """A running libp2p node. Every method raises `HostError` when the host or a peer fails it."""

    # Gossip so far that broke the wire format or its signature, and for which its sender was
    # turned away. The Go daemon does this by itself and does not say: 0.
    malformed: int

    async def identify(self) -> tuple[str, list[str]]:
        """(this node's peer id, the addresses it listens on)."""
        ...

    async def connect(self, peer: str, addresses: list[str], timeout_s: int) -> None:
        """Connects to `peer`, by its known addresses when none is given."""
        ...

    async def peers(self) -> list[str]:
        """The ids of all connected peers."""
        ...

    async def disconnect(self, peer: str) -> None:
        """Ends every connection to `peer`. It may connect again."""
        ...

    async def relayed(self) -> list[str]:
        """The ids of the peers that are connected through a relay only, as far as it is known."""
        ...

    async def subscribers(self, topic: str) -> list[str]:
        """The ids of the connected peers that subscribe to `topic`."""
        ...

    async def publish(self, topic: str, data: bytes) -> None: ...

    def subscribe(
        self, topic: str, admits: Admits
    ) -> AbstractAsyncContextManager[AsyncIterator[tuple[str, bytes]]]:
        """Yields the topic's admitted messages as (publisher, data)."""
        ...

    def stream(
        self, peer: str, protocol: str, timeout_s: int
    ) -> AbstractAsyncContextManager[Stream]:
        """Opens a stream, connecting first and looking the peer up if need be."""
        ...

    async def handle(self, protocol: str, handler: Callable[[Stream], Awaitable[None]]) -> None:
        """Calls `handler` for each stream that a peer opens; the stream is closed after it."""
        ...

    async def provide(self, cid: bytes, timeout_s: int) -> None:
        """Tells others that this node provides `cid`."""
        ...

    async def find_providers(self, cid: bytes, count: int, timeout_s: int) -> dict[str, list[str]]:
        """Up to about `count` peers that provide `cid`, with what addresses are known."""
        ...
