"""A client of p2pd's control socket: length-prefixed protobuf over a Unix socket, in asyncio.

Each request opens its own connection, which costs little on a Unix socket and keeps slow requests
from holding up others. A connection that opened a stream *becomes* that stream; the one that
subscribed carries the topic's messages from then on. Streams that peers open arrive as
connections to a Unix socket of ours, each starting with a `StreamInfo`.

Source: `hivemind/proto/p2pd.proto`, which is go-libp2p-daemon's with hivemind's additions, and the
daemon's specification, https://github.com/learning-at-home/go-libp2p-daemon/blob/master/specs
"""

import asyncio
import contextlib
import importlib.util
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from google.protobuf.message import DecodeError

from swarmnode.errors import SwarmNodeError
from swarmnode.swarm import multiaddr
from swarmnode.swarm.host import Admits, HostError, StreamCut

# One message from the daemon, bytes. GossipSub passes messages of up to 1 MiB, which reach us
# before our own limit can be applied; a list of 128 peers with addresses is some 50 KB.
_MAX_MESSAGE_BYTES = 2 * 2**20
_ANSWER_S = 5.0  # for requests that the daemon answers from memory


@dataclass(frozen=True, slots=True)
class DaemonStream:
    """A `Stream` over the Unix socket connection that the daemon turned into it."""

    peer: str
    address: str
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def read_exactly(self, count: int) -> bytes:
        try:
            return await self.reader.readexactly(count)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise StreamCut(f"the stream ended {count} bytes early or less") from error

    async def write(self, data: bytes) -> None:
        # No half-close after it: p2pd closes both directions of a stream when one ends.
        self.writer.write(data)
        try:
            await self.writer.drain()
        except ConnectionError as error:
            raise StreamCut(f"the stream ended: {error}") from error

    async def until_closed(self) -> None:
        with contextlib.suppress(ConnectionError):  # closed, too
            await self.reader.read(1)


def folder_of_hivemind() -> Path:
    """Where the hivemind package is installed, found without importing it."""
    spec = importlib.util.find_spec("hivemind")
    if spec is None or not spec.submodule_search_locations:
        raise SwarmNodeError("the package hivemind is not installed: pip install hivemind")
    return Path(spec.submodule_search_locations[0])


def load_messages() -> ModuleType:
    """hivemind's generated protobuf module for the control socket.

    Loaded from its file: `import hivemind` would import torch, which costs each node's network
    process seconds of start and 200 MB for nothing.
    """
    path = folder_of_hivemind() / "proto" / "p2pd_pb2.py"
    spec = importlib.util.spec_from_file_location("swarmnode_p2pd_pb2", path)
    if spec is None or spec.loader is None:
        raise SwarmNodeError(f"{path} cannot be loaded: reinstall hivemind")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Control:
    """A `Host`: requests to one daemon. `messages` is the module from `load_messages`."""

    malformed = 0  # the daemon drops such gossip, and its sender, without a word

    def __init__(self, socket: Path, streams_socket: Path, messages: ModuleType) -> None:
        self._socket = socket
        self._streams_socket = streams_socket
        self._pb = messages
        self._handlers: dict[str, Callable[[DaemonStream], Awaitable[None]]] = {}
        self._server: asyncio.Server | None = None

    async def identify(self) -> tuple[str, list[str]]:
        """(this node's peer id, the addresses it listens on)."""
        response = await self._ask(self._pb.Request(type=self._pb.Request.IDENTIFY))
        return multiaddr.peer_id_text(response.identify.id), _texts(response.identify.addrs)

    async def connect(self, peer: str, addresses: list[str], timeout_s: int) -> None:
        """Connects to `peer`, by its known addresses when none is given.

        By QUIC where it listens there: behind a NAT, what others see of this node's QUIC is what
        holes are punched by.
        """
        request = self._pb.Request(type=self._pb.Request.CONNECT)
        request.connect.peer = multiaddr.peer_id_bytes(peer)
        request.connect.addrs.extend(
            multiaddr.to_binary(address) for address in multiaddr.with_quic(addresses)
        )
        request.connect.timeout = timeout_s
        await self._ask(request, timeout_s + 1)

    async def peers(self) -> list[str]:
        """The ids of all connected peers."""
        response = await self._ask(self._pb.Request(type=self._pb.Request.LIST_PEERS))
        return sorted({multiaddr.peer_id_text(peer.id) for peer in response.peers})

    async def disconnect(self, peer: str) -> None:
        """Ends every connection to `peer`. The daemon cannot keep it from connecting again."""
        request = self._pb.Request(type=self._pb.Request.DISCONNECT)
        request.disconnect.peer = multiaddr.peer_id_bytes(peer)
        await self._ask(request)

    async def relayed(self) -> list[str]:
        """The ids of the peers to which every connection goes through a relay."""
        response = await self._ask(self._pb.Request(type=self._pb.Request.LIST_PEERS))
        direct: set[str] = set()
        through: set[str] = set()
        for peer in response.peers:  # one entry for each connection
            texts = [multiaddr.to_text(address) or "" for address in peer.addrs]
            is_relayed = any("/p2p-circuit" in text for text in texts)
            (through if is_relayed else direct).add(multiaddr.peer_id_text(peer.id))
        return sorted(through - direct)

    async def subscribers(self, topic: str) -> list[str]:
        """The ids of the connected peers that subscribe to `topic`."""
        response = await self._ask(self._pubsub(self._pb.PSRequest.LIST_PEERS, topic))
        return sorted(multiaddr.peer_id_text(id) for id in response.pubsub.peerIDs)

    async def publish(self, topic: str, data: bytes) -> None:
        request = self._pubsub(self._pb.PSRequest.PUBLISH, topic)
        request.pubsub.data = data
        await self._ask(request)

    @asynccontextmanager
    async def subscribe(
        self, topic: str, admits: Admits
    ) -> AsyncIterator[AsyncIterator[tuple[str, bytes]]]:
        """Yields the topic's admitted messages as (publisher, data); asks about our own, too.

        The iterator raises `HostError` when the daemon ends.
        """
        async with self._connection() as (reader, writer):
            await self._exchange(
                reader, writer, self._pubsub(self._pb.PSRequest.SUBSCRIBE, topic), _ANSWER_S
            )
            yield self._messages(reader, admits)

    async def provide(self, cid: bytes, timeout_s: int) -> None:
        """Tells the DHT that this node provides `cid`."""
        request = self._dht(self._pb.DHTRequest.PROVIDE, timeout_s)
        request.dht.cid = cid
        await self._ask(request, timeout_s + 1)

    async def find_providers(self, cid: bytes, count: int, timeout_s: int) -> dict[str, list[str]]:
        """Up to `count` peers that provide `cid`, with what addresses the DHT knows."""
        request = self._dht(self._pb.DHTRequest.FIND_PROVIDERS, timeout_s)
        request.dht.cid = cid
        request.dht.count = count
        found: dict[str, list[str]] = {}
        try:
            async with self._connection() as (reader, writer), asyncio.timeout(timeout_s + 1):
                await self._exchange(reader, writer, request, timeout_s + 1)
                while len(found) <= count:
                    answer = await self._read(reader, self._pb.DHTResponse())
                    if answer.type == self._pb.DHTResponse.END:
                        break
                    found[multiaddr.peer_id_text(answer.peer.id)] = _texts(answer.peer.addrs)
        except TimeoutError as error:
            raise HostError("timed out") from error
        return found

    @asynccontextmanager
    async def stream(self, peer: str, protocol: str, timeout_s: int) -> AsyncIterator[DaemonStream]:
        """Opens a stream; the daemon connects first, looking the peer up in the DHT if need be."""
        request = self._pb.Request(type=self._pb.Request.STREAM_OPEN)
        request.streamOpen.peer = multiaddr.peer_id_bytes(peer)
        request.streamOpen.proto.append(protocol)
        request.streamOpen.timeout = timeout_s
        async with self._connection() as (reader, writer):
            response = await self._exchange(reader, writer, request, timeout_s + 1)
            address = multiaddr.to_text(response.streamInfo.addr) or ""
            yield DaemonStream(peer, address, reader, writer)

    async def handle(
        self, protocol: str, handler: Callable[[DaemonStream], Awaitable[None]]
    ) -> None:
        """Calls `handler` for each stream that a peer opens; the stream is closed after it."""
        if self._server is None:
            self._server = await asyncio.start_unix_server(self._accept, self._streams_socket)
        self._handlers[protocol] = handler
        request = self._pb.Request(type=self._pb.Request.STREAM_HANDLER)
        request.streamHandler.addr = multiaddr.unix_to_binary(self._streams_socket)
        request.streamHandler.proto.append(protocol)
        request.streamHandler.balanced = False
        await self._ask(request)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_ANSWER_S):
                info = await self._read(reader, self._pb.StreamInfo())
            peer, address = multiaddr.peer_id_text(info.peer), multiaddr.to_text(info.addr) or ""
            await self._handlers[info.proto](DaemonStream(peer, address, reader, writer))
        except (HostError, TimeoutError, ConnectionError):
            pass  # the peer went away; nothing was promised to it
        finally:
            writer.close()

    async def _ask(self, request: Any, timeout_s: float = _ANSWER_S) -> Any:
        async with self._connection() as (reader, writer):
            return await self._exchange(reader, writer, request, timeout_s)

    async def _exchange(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        request: Any,
        timeout_s: float,
    ) -> Any:
        encoded = request.SerializeToString()
        try:
            async with asyncio.timeout(timeout_s):
                writer.write(multiaddr.varint(len(encoded)) + encoded)
                await writer.drain()
                response = await self._read(reader, self._pb.Response())
        except TimeoutError as error:
            raise HostError("timed out") from error
        except ConnectionError as error:
            raise HostError(f"the daemon closed the connection: {error}") from error
        if response.type == self._pb.Response.ERROR:
            raise HostError(response.error.msg)
        return response

    @asynccontextmanager
    async def _connection(
        self,
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        try:
            reader, writer = await asyncio.open_unix_connection(self._socket)
        except OSError as error:
            raise HostError(f"the daemon does not listen: {error.strerror}") from error
        try:
            yield reader, writer
        finally:
            writer.close()

    async def _messages(
        self, reader: asyncio.StreamReader, admits: Admits
    ) -> AsyncIterator[tuple[str, bytes]]:
        while True:
            message = await self._read(reader, self._pb.PSMessage())
            # getattr: the field is called "from", which Python's syntax keeps for itself
            peer = multiaddr.peer_id_text(getattr(message, "from"))
            if admits(peer, message.data):
                yield peer, message.data

    async def _read(self, reader: asyncio.StreamReader, message: Any) -> Any:
        """Fills `message` with what comes next; `HostError` when it ends or makes no sense."""
        try:
            length = 0
            for shift in range(0, 35, 7):
                (byte,) = await reader.readexactly(1)
                length |= (byte & 0x7F) << shift
                if byte < 0x80:
                    break
            if length > _MAX_MESSAGE_BYTES:
                raise HostError(f"the daemon sent a message of {length} bytes")
            message.ParseFromString(await reader.readexactly(length))
        except asyncio.IncompleteReadError as error:
            raise HostError("the daemon closed the connection") from error
        except ConnectionError as error:
            raise HostError(f"the daemon closed the connection: {error}") from error
        except DecodeError as error:
            raise HostError(f"the daemon sent something unreadable: {error}") from error
        return message

    def _pubsub(self, kind: int, topic: str) -> Any:
        request = self._pb.Request(type=self._pb.Request.PUBSUB)
        request.pubsub.type = kind
        request.pubsub.topic = topic
        return request

    def _dht(self, kind: int, timeout_s: int) -> Any:
        request = self._pb.Request(type=self._pb.Request.DHT)
        request.dht.type = kind
        request.dht.timeout = timeout_s
        return request


def _texts(addresses: list[bytes]) -> list[str]:
    texts = [multiaddr.to_text(address) for address in addresses]
    return [text for text in texts if text is not None]
