"""Streams between two nodes, both ends: fetching frames by id, and the greeting (SPEC section 7).

Everything a peer can stretch is bounded: bytes by the protocol's limits, time by deadlines, the
number of streams in total and per peer.
"""

import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

import anyio
from anyio.abc import TaskGroup

from protocol import codec
from protocol.errors import ProtocolError
from protocol.limits import (
    BLOCK_HEADER_BYTES,
    MAX_FETCH_REQUEST_BYTES,
    MAX_FRAME_BYTES,
    MAX_HELLO_BYTES,
)
from protocol.messages import Hello
from protocol.names import HELLO_PROTOCOL
from swarmnode.swarm.bounded import Outbox
from swarmnode.swarm.budget import Bucket
from swarmnode.swarm.host import Host, HostError, Stream, StreamCut
from swarmnode.swarm.transport import AnyEvent, Fetched, FetchFailed, FetchProblem

# Seconds for one fetch from first to last byte. 2 MB, the largest answer, takes 16 s at 1 Mbit/s.
FETCH_S = 20.0
_SLOT_S = 25.0  # for one of the slots below to become free
_OPEN_S = 8  # for finding and connecting the peer; whole seconds, as the daemon counts
_HELLO_S = 5.0
_AT_ONCE = 16  # fetches on the wire; each holds one frame of at most 256 KiB
_WAITING = 256  # fetches accepted, the waiting ones included
_PER_PEER = 8  # so that one silent peer cannot hold all slots
# Seconds that a frame waits for its byte budget. A peer that is told to go asks another holder.
_PATIENCE_S = 5.0


@dataclass(frozen=True)
class Served:
    """What peers may take of a node's time; others than these in tests only."""

    at_once: float = 64  # streams that peers opened
    per_peer: float = 4
    request_s: float = 5.0  # for a peer to say what it wants
    take_s: float = 30.0  # for a peer to take what it wanted: longer than its own deadline


class Traffic:
    """Payload bytes in and out, as `TransportStatus` defines them, what may be spent of them a
    second, and streams turned away."""

    def __init__(self, max_upload: float = math.inf, max_download: float = math.inf) -> None:
        self.bytes_in = 0
        self.bytes_out = 0
        self.streams_refused = 0
        self.uploads_refused = 0
        self.downloads_refused = 0
        self._upload = Bucket(max_upload)
        self._download = Bucket(max_download)

    def received(self, count: int) -> None:
        """Counts bytes that came."""
        self.bytes_in += count
        self._download.spend(count, time.monotonic())

    def sent(self, count: int) -> None:
        """Counts bytes that went."""
        self.bytes_out += count
        self._upload.spend(count, time.monotonic())

    async def may_send(self) -> bool:
        """Whether the next frame may go, after a wait of seconds if that helps."""
        is_allowed = await _allowed(self._upload)
        self.uploads_refused += not is_allowed
        return is_allowed

    async def may_receive(self) -> bool:
        """Whether to ask a peer for frames, after a wait of seconds if that helps."""
        is_allowed = await _allowed(self._download)
        self.downloads_refused += not is_allowed
        return is_allowed


async def _allowed(bucket: Bucket) -> bool:
    until = time.monotonic() + _PATIENCE_S
    while (wait_s := bucket.wait_s(time.monotonic())) > 0:
        if time.monotonic() + wait_s > until:
            return False
        await anyio.sleep(wait_s)
    return True


class Opener(Protocol):
    """What `Fetcher` needs of a `Host`."""

    def stream(
        self, peer: str, protocol: str, timeout_s: int
    ) -> AbstractAsyncContextManager[Stream]: ...


class Fetcher:
    """Fetches in the background of `tasks`; every id ends in one event given to `emit`."""

    def __init__(
        self,
        host: Opener,
        protocol: str,
        traffic: Traffic,
        emit: Callable[[AnyEvent], None],
        tasks: TaskGroup,
        fetch_s: float = FETCH_S,
        max_frame_bytes: int = MAX_FRAME_BYTES,
    ) -> None:
        self._host = host
        self._fetch_s = fetch_s
        self._max_frame_bytes = max_frame_bytes
        self._protocol = protocol
        self._traffic = traffic
        self._emit = emit
        self._tasks = tasks
        self._slots = anyio.Semaphore(_AT_ONCE)
        self._by_peer: Counter[str] = Counter()

    def start(self, peer: str, ids: tuple[bytes, ...]) -> None:
        if self._by_peer.total() >= _WAITING or self._by_peer[peer] >= _PER_PEER:
            self._emit(FetchFailed(peer, ids, FetchProblem.OVERLOAD, "too many fetches at once"))
            return
        self._by_peer[peer] += 1
        self._tasks.start_soon(self._run, peer, ids)

    async def _run(self, peer: str, ids: tuple[bytes, ...]) -> None:
        missing = dict.fromkeys(ids)
        try:
            with anyio.fail_after(_SLOT_S):
                await self._slots.acquire()
        except TimeoutError:
            self._fail(peer, missing, FetchProblem.OVERLOAD, "too many fetches at once")
        else:
            try:
                if await self._traffic.may_receive():
                    problem, detail = await self._try_twice(peer, missing)
                else:
                    problem, detail = FetchProblem.BUDGET, "over --max-download"
                self._fail(peer, missing, problem, detail)
            finally:
                self._slots.release()
        finally:
            self._by_peer[peer] -= 1
            if not self._by_peer[peer]:
                del self._by_peer[peer]

    async def _try_twice(self, peer: str, missing: dict[bytes, None]) -> tuple[FetchProblem, str]:
        """Fetches; returns what is to be said of the ids that are still missing then."""
        count = len(missing)
        try:
            with anyio.fail_after(self._fetch_s):
                try:
                    await self._fetch(peer, missing)
                except StreamCut:
                    if len(missing) < count:
                        raise
                    # A relay cuts its circuits by time and volume: a stream that ends before the
                    # first frame is tried once more, on a fresh one.
                    await self._fetch(peer, missing)
        except HostError as error:
            return FetchProblem.UNREACHABLE, short_reason(str(error))
        except TimeoutError:
            return FetchProblem.TIMEOUT, f"incomplete after {self._fetch_s:g} s"
        except StreamCut:
            if len(missing) == count:
                return FetchProblem.BUSY, "the peer ended the stream before the first frame"
            return FetchProblem.TIMEOUT, "the answer was cut short"
        except ProtocolError as error:
            return FetchProblem.MALFORMED, error.detail
        return FetchProblem.ABSENT, "the peer does not hold it"

    async def _fetch(self, peer: str, missing: dict[bytes, None]) -> None:
        """Removes from `missing` what arrives, as it arrives."""
        wanted = tuple(missing)
        async with self._host.stream(peer, self._protocol, _OPEN_S) as stream:
            request = codec.encode_fetch_request(wanted)
            await _send_block(stream, request)
            self._traffic.sent(len(request))
            for id in wanted:
                frame = await _read_block(stream, self._max_frame_bytes)
                self._traffic.received(len(frame))
                if frame:
                    del missing[id]
                    self._emit(Fetched(peer, id, frame, stream.address))

    def _fail(
        self, peer: str, missing: dict[bytes, None], problem: FetchProblem, detail: str
    ) -> None:
        if missing:
            self._emit(FetchFailed(peer, tuple(missing), problem, detail))


_SERVED = Served()


class Server:
    """Answers the streams that peers open: frames from `outbox`, and our greeting.

    `greeted` is told of every well-formed greeting: peer id, its address, what it said. Peers that
    `avoids` names get nothing.
    """

    def __init__(
        self,
        outbox: Outbox,
        hello: bytes,
        traffic: Traffic,
        greeted: Callable[[str, str, Hello], None],
        avoids: Callable[[str], bool] = lambda peer: False,
        limits: Served = _SERVED,
    ) -> None:
        self._limits = limits
        self._outbox = outbox
        self._avoids = avoids
        self._hello = hello
        self._traffic = traffic
        self._greeted = greeted
        self._serving: Counter[str] = Counter()

    async def open(self, host: Host, fetch_protocol: str) -> None:
        await host.handle(fetch_protocol, self._serve_fetch)
        await host.handle(HELLO_PROTOCOL, self._serve_hello)

    async def _serve_fetch(self, stream: Stream) -> None:
        async with self._turn(stream.peer) as is_taken:
            if not is_taken:
                return
            try:
                with anyio.fail_after(self._limits.request_s):
                    request = await _read_block(stream, MAX_FETCH_REQUEST_BYTES)
                self._traffic.received(len(request))
                with anyio.fail_after(self._limits.take_s):
                    for id in codec.decode_fetch_request(request):
                        frame = self._outbox.get(id) or b""
                        if frame and not await self._traffic.may_send():
                            return
                        await _send_block(stream, frame)
                        self._traffic.sent(len(frame))
                    await stream.until_closed()  # by the peer, when it has everything
            except (StreamCut, ProtocolError, TimeoutError):
                return  # a malformed request gets no answer

    async def _serve_hello(self, stream: Stream) -> None:
        async with self._turn(stream.peer) as is_taken:
            if not is_taken:
                return
            try:
                with anyio.fail_after(_HELLO_S):
                    theirs = await _read_block(stream, MAX_HELLO_BYTES)
                    await _send_block(stream, self._hello)  # whoever asks
                    with suppress(ProtocolError):
                        self._greeted(stream.peer, stream.address, codec.decode_hello(theirs))
                    await stream.until_closed()
            except (StreamCut, ProtocolError, TimeoutError):
                return

    @asynccontextmanager
    async def _turn(self, peer: str) -> AsyncIterator[bool]:
        """Whether one more stream of `peer` may be served; counts it while it is."""
        is_full = self._serving.total() >= self._limits.at_once
        if is_full or self._serving[peer] >= self._limits.per_peer or self._avoids(peer):
            self._traffic.streams_refused += 1
            yield False
            return
        self._serving[peer] += 1
        try:
            yield True
        finally:
            self._serving[peer] -= 1
            if not self._serving[peer]:
                del self._serving[peer]


async def greet(host: Host, peer: str, hello: bytes) -> Hello:
    """The greeting of a connected peer.

    Raises `HostError` when it does not speak the protocol or does not answer, `ProtocolError`
    when its answer is malformed.
    """
    try:
        with anyio.fail_after(_HELLO_S):
            async with host.stream(peer, HELLO_PROTOCOL, _OPEN_S) as stream:
                await _send_block(stream, hello)
                return codec.decode_hello(await _read_block(stream, MAX_HELLO_BYTES))
    except TimeoutError as error:
        raise HostError(f"no greeting within {_HELLO_S:.0f} s") from error
    except StreamCut as error:
        raise HostError("the stream ended before a greeting") from error


def short_reason(text: str) -> str:
    """The daemon's error in a few words: the cause at the end of its chain, without the dials.

    >>> short_reason("failed to dial: all dials failed\\n  * [/ip4/1.2.3.4/tcp/1] dial tcp4 "
    ...              "1.2.3.4:1: connect: connection refused")
    'connection refused'
    """
    lines = [line for line in text.splitlines() if line.strip()] or ["unknown"]
    # Dials refused by the daemon's own back-off say nothing about the peer.
    telling = [line for line in lines if "dial backoff" not in line]
    line = (telling or lines)[-1].strip()
    if "protocols not supported" in line:
        return "it does not speak this swarm's protocol"
    if "peer id mismatch" in line:  # "…: expected A, but remote key matches B"
        return f"another node answers there, {line.rsplit(' ', 1)[-1][:60]}: has its key changed?"
    return line.rsplit(": ", 1)[-1][:200]


async def _send_block(stream: Stream, data: bytes) -> None:
    await stream.write(codec.encode_block(data))


async def _read_block(stream: Stream, limit_bytes: int) -> bytes:
    header = await stream.read_exactly(BLOCK_HEADER_BYTES)
    return await stream.read_exactly(codec.block_length(header, limit_bytes))
