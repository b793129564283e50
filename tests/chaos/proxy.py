"""A TCP proxy between nodes that makes a network as bad as it is asked to be.

    with Proxies(seed=1) as proxies:
        link = proxies.to(target_port)      # nodes dial link.port
        link.fault = Fault(delay_s=0.3, jitter_s=0.2)
        link.cut()                          # ends every connection that there is

Each way of a connection passes on chunks in order. Of what a real network does, TCP hides loss: it
shows as a pause until the lost packet was sent again, and so it is here. The chance of each way of
each connection is its own, seeded by (seed, link, number of the connection, way).
"""

import asyncio
import contextlib
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

_CHUNK_BYTES = 16 * 1024
_WINDOW_CHUNKS = 8  # read ahead of what was passed on, so that a slow link pushes back
_LOOK_S = 0.02  # between looks whether a silent link speaks again
_ACCEPT_S = 0.1  # within which a connection that the kernel has accepted is known to a link


@dataclass(frozen=True, slots=True)
class Fault:
    """What a link does to each chunk, until it is given another. The default passes all on."""

    delay_s: float = 0.0
    jitter_s: float = 0.0  # the delay lies evenly within ± this, chunks stay in order
    loss_ratio: float = 0.0  # of chunks that are lost, and sent again after `resend_s`
    resend_s: float = 0.3
    bytes_per_s: float = float("inf")
    # Connections are accepted and stay open, and nothing passes: a cable that was pulled, or a
    # half-open link. What was sent meanwhile passes afterwards, as TCP would send it again.
    is_silent: bool = False


class Link:
    """The way to one node. `target_port` and `fault` may be changed at any time; so may `admits`,
    which is asked with the port that a connection comes from and says whether it is of this side of
    a partition."""

    def __init__(self, name: str, target_port: int, loop: asyncio.AbstractEventLoop) -> None:
        self.fault = Fault()
        self.admits: Callable[[int], bool] = lambda port: True
        self.port = 0
        self.connections = 0  # accepted so far
        self._name = name
        self.target_port = target_port
        self._loop = loop
        self._open: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._is_closed = False

    def cut(self) -> None:
        """Ends every connection; new ones are accepted."""
        self._loop.call_soon_threadsafe(self._cut)

    @property
    def open_connections(self) -> int:
        return len(self._open)

    async def listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        self._is_closed = True
        if self._server is not None:
            self._server.close()
        tasks = list(self._open)
        self._cut()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(_ACCEPT_S)

    def _cut(self) -> None:
        for task in self._open:
            task.cancel()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_closed:  # accepted at the last moment
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        self.connections += 1
        try:
            await self._serve(self.connections, reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # either side went away, which is what connections do
        except asyncio.CancelledError:
            pass  # cut
        finally:
            self._open.discard(task)
            # With a reset, as a router's or a kernel's: a tidy end would tell the nodes more.
            writer.transport.abort()

    async def _serve(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        source_port = writer.get_extra_info("peername")[1]
        onward_reader, onward = await asyncio.open_connection("127.0.0.1", self.target_port)
        try:
            async with asyncio.TaskGroup() as ways:
                for way, source, sink in ((0, reader, onward), (1, onward_reader, writer)):
                    rng = random.Random(f"{self._name} {number} {way}")
                    ways.create_task(self._pass_on(source, sink, rng, source_port))
        except* (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            onward.transport.abort()

    async def _pass_on(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        rng: random.Random,
        source_port: int,
    ) -> None:
        """Passes on what comes from `source`, each chunk when it is due; ends with the source."""
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_WINDOW_CHUNKS)
        reading = asyncio.create_task(self._read(source, queue, rng))
        try:
            while True:
                due, chunk = await queue.get()
                while self.fault.is_silent or not self.admits(source_port):
                    await asyncio.sleep(_LOOK_S)
                await asyncio.sleep(max(0.0, due - self._loop.time()))
                if not chunk:
                    raise asyncio.IncompleteReadError(b"", None)  # ends the other way, too
                sink.write(chunk)
                await sink.drain()
        finally:
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await reading

    async def _read(
        self,
        source: asyncio.StreamReader,
        queue: asyncio.Queue[tuple[float, bytes]],
        rng: random.Random,
    ) -> None:
        free = 0.0  # when the link has sent all before
        while True:
            try:
                chunk = await source.read(_CHUNK_BYTES)
            except OSError:
                chunk = b""
            fault = self.fault
            now = self._loop.time()
            wait_s = max(0.0, fault.delay_s + rng.uniform(-fault.jitter_s, fault.jitter_s))
            while rng.random() < fault.loss_ratio:
                wait_s += fault.resend_s
            free = max(free, now + wait_s) + len(chunk) / fault.bytes_per_s
            await queue.put((free, chunk))
            if not chunk:
                return


class Proxies:
    """Links, on an event loop in a thread of their own."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._links: list[Link] = []
        self._made = 0

    def to(self, target_port: int) -> Link:
        """A new way to the program on this port of this machine."""
        self._made += 1
        link = Link(f"{self._seed} {self._made}", target_port, self._loop)
        asyncio.run_coroutine_threadsafe(link.listen(), self._loop).result(30)
        self._links.append(link)
        return link

    def end(self, link: Link) -> None:
        """Ends a link and all its connections; dialling it is refused from now on."""
        asyncio.run_coroutine_threadsafe(link.close(), self._loop).result(30)
        self._links.remove(link)

    def __enter__(self) -> "Proxies":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        await asyncio.gather(*(link.close() for link in self._links))
        while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            _, late = await asyncio.wait(tasks, timeout=1.0)
            for task in late:
                task.cancel()
