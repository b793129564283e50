"""py-libp2p's streams as the node wants them: exact reads, one error, checked gossip."""

import ipaddress
import time
from collections.abc import Awaitable, Callable

import anyio
import trio
from libp2p.abc import INetStream
from libp2p.exceptions import BaseLibp2pError, ParseError
from libp2p.io.exceptions import MessageTooLarge
from libp2p.pubsub.pb import rpc_pb2
from libp2p.utils.varint import read_varint_prefixed_bytes_limited

from swarmnode.swarm.host import HostError, StreamCut
from swarmnode.swarm.libp2p_gossip import MAX_RPC_BYTES, Admitted, Gate, Malformed
from swarmnode.swarm.multiaddr import varint

# What py-libp2p raises when a peer or its connection fails.
FAILURES = (
    BaseLibp2pError,
    OSError,
    ValueError,
    RuntimeError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
)
_CLOSE_S = 1.0  # for the last bytes of a stream; a peer that does not take them loses them
_CHECKS_AT_ONCE = 8  # signatures checked before other tasks get their turn: 2 ms


class PeerStream:
    """A `Stream` over a negotiated py-libp2p stream."""

    def __init__(self, stream: INetStream) -> None:
        self._stream = stream
        self.peer = str(stream.muxed_conn.peer_id)
        self.address = _address(stream)

    async def read_exactly(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            try:
                part = await self._stream.read(count - len(data))
            except FAILURES as error:
                raise StreamCut(f"the stream ended: {_words(error)}") from error
            if not part:
                raise StreamCut("the stream ended")
            data += part
        return bytes(data)

    async def write(self, data: bytes) -> None:
        try:
            await self._stream.write(data)
        except FAILURES as error:
            raise StreamCut(f"the stream ended: {_words(error)}") from error

    async def until_closed(self) -> None:
        try:
            await self._stream.read(1)
        except FAILURES:
            return


class CheckedStream:
    """A gossip stream as py-libp2p's message loop reads it, with `gate` in between.

    `deliver` gets each admitted message, and may wait: that holds up this neighbour only.
    `read` raises `Malformed` when the neighbour is at fault.
    """

    metric_send_channel = None  # read by py-libp2p's loop

    def __init__(
        self, stream: INetStream, gate: Gate, deliver: Callable[[Admitted], Awaitable[None]]
    ) -> None:
        self.muxed_conn = stream.muxed_conn
        self._link = str(stream.muxed_conn.peer_id)
        self._stream = stream
        self._gate = gate
        self._deliver = deliver
        self._unread = b""

    async def read(self, n: int | None = None) -> bytes:
        while not self._unread:
            clean = await self._pass(await self._next())
            body = clean.SerializeToString()
            self._unread = varint(len(body)) + body if body else b""
        end = len(self._unread) if n is None else n
        part, self._unread = self._unread[:end], self._unread[end:]
        return part

    async def reset(self) -> None:
        await self._stream.reset()

    async def _next(self) -> rpc_pb2.RPC:
        try:
            body = await read_varint_prefixed_bytes_limited(self._stream, MAX_RPC_BYTES)
        except (ParseError, MessageTooLarge) as error:
            raise Malformed("gossip without a sensible length") from error
        return self._gate.parse(body)

    async def _pass(self, rpc: rpc_pb2.RPC) -> rpc_pb2.RPC:
        admitted = []
        for number, message in enumerate(rpc.publish, start=1):
            one = self._gate.admitted(self._link, message, time.monotonic())
            if one is not None:
                admitted.append(one)
                await self._deliver(one)
            if number % _CHECKS_AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
        return self._gate.cleaned(self._link, rpc, admitted)


async def end(stream: INetStream, *, is_complete: bool) -> None:
    """Closes the stream, or resets it when the two ends do not agree any more."""
    with anyio.move_on_after(_CLOSE_S, shield=True):
        try:
            await (stream.close() if is_complete else stream.reset())
        except FAILURES:
            return  # it is closed


def explained(error: BaseException, peer: str) -> HostError:
    """py-libp2p's error with the words of its causes, in p2pd's terms where a person reads them."""
    words = _words(error)
    _, found, other = words.partition("remote_peer_id_from_pubkey=")
    if found:
        return HostError(f"peer id mismatch: expected {peer}, but remote key matches {other[:52]}")
    if "protocol not supported" in words or "protocols not supported" in words:
        return HostError("protocols not supported")
    return HostError(words[:300] or type(error).__name__)


def _words(error: BaseException | None) -> str:
    """The texts of an error and its causes, the first cause last."""
    words = []
    while error is not None:
        words += [" ".join(str(error).split())]
        error = error.__cause__
    return ": ".join(word for word in words if word)


def _address(stream: INetStream) -> str:
    remote = stream.get_remote_address()
    if remote is None:
        return ""
    try:
        ip = ipaddress.ip_address(remote[0])
    except ValueError:
        return ""
    return f"/ip{ip.version}/{ip}/tcp/{remote[1]}"
