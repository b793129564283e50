"""The network process of a node: drives p2pd in asyncio, and ends with the node or with p2pd.

It is started by `supervisor` with its channel to the node as standard input. It holds no rule
about what frames mean and no key in memory (p2pd reads the key file). It must not import torch:
one runs per node, and this keeps it at some 30 MB.
"""

import asyncio
import os
import random
import shutil
import signal
import socket
import time
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

from protocol.codec import decode_hello
from protocol.limits import MAX_ANNOUNCEMENT_BYTES
from protocol.messages import Hello
from protocol.names import announcement_topic, fetch_protocol
from swarmnode.errors import ConfigError, SwarmNodeError
from swarmnode.swarm import channel, p2pd
from swarmnode.swarm.bounded import BoundedQueue, Budget, Outbox
from swarmnode.swarm.discovery import Dialler, Neighbours, Strangers, look_around
from swarmnode.swarm.fetching import Fetcher, Server, Traffic
from swarmnode.swarm.p2pd_control import Control, load_messages
from swarmnode.swarm.transport import (
    MAX_EVENT_BYTES,
    MAX_EVENTS,
    MAX_HELD_BYTES,
    MAX_HELD_FRAMES,
    Announced,
    AnyEvent,
    event_bytes,
)

# Announcements of one publisher in this time, above which the rest of them is dropped, so that
# one flooder cannot push others' out of the queue of events. An honest node makes one a round.
_ANNOUNCEMENTS, _WINDOW_S = 30, 10.0


def main() -> None:
    """Runs until the channel closes, p2pd ends or SIGTERM comes."""
    parent = os.getppid()
    p2pd.dies_with_parent(signal.SIGTERM)()
    if os.getppid() != parent:
        return  # the node ended before the line above took effect
    asyncio.run(_main(socket.socket(fileno=0)))


async def _main(node: socket.socket) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    reader, writer = await asyncio.open_connection(sock=node, limit=channel.MAX_MESSAGE_BYTES)
    try:
        start = await _read_command(reader)
        assert isinstance(start, channel.Start)
        await _run(start, reader, writer)
    except SwarmNodeError as error:
        writer.write(channel.encode(channel.Failed(str(error), isinstance(error, ConfigError))))
        await writer.drain()
    except (EOFError, ConnectionError, asyncio.CancelledError):
        pass  # the node is gone, or wants us gone
    finally:
        writer.close()


async def _run(
    start: channel.Start, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    folder = Path(start.folder)
    try:
        async with p2pd.started(
            folder, start.identity_path, start.host, start.port, start.peers
        ) as daemon:
            control = Control(daemon.control_socket, folder / "streams.sock", load_messages())
            peer_id, addresses = await control.identify()
            if peer_id != start.peer_id:
                raise SwarmNodeError(f"p2pd runs as {peer_id}, the key file was of {start.peer_id}")
            if not any(address.endswith(f"/tcp/{start.port}") for address in addresses):
                raise ConfigError(f"port {start.port} is taken: choose another with --port")
            await Network(start, control).run(daemon, reader, writer)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Network:
    """Everything that goes on while p2pd runs."""

    def __init__(self, start: channel.Start, control: Control) -> None:
        self._start = start
        self._control = control
        self._topic = announcement_topic(start.swarm_id)
        self._outbox = Outbox(MAX_HELD_FRAMES, MAX_HELD_BYTES)
        self._events: BoundedQueue[AnyEvent] = BoundedQueue(MAX_EVENTS, MAX_EVENT_BYTES)
        self._something = asyncio.Event()  # set when there is something to send to the node
        self._newest_report: channel.Report | None = None
        self._traffic = Traffic()
        self._oversized = 0
        self._budget = Budget(_ANNOUNCEMENTS, _WINDOW_S)
        self._over_budget = 0
        self._neighbours = Neighbours()
        self._fetcher = Fetcher(control, fetch_protocol(start.swarm_id), self._traffic, self._emit)
        hello = decode_hello(start.hello)
        self._strangers = Strangers(hello, self._emit)
        rng = random.SystemRandom()
        self._diallers = [
            Dialler(address, control, hello, start.hello, self._neighbours, self._emit, rng)
            for address in start.peers
            if not address.endswith(f"/p2p/{start.peer_id}")  # itself, from a shared peer list
        ]
        self._rng = rng

    async def run(
        self, daemon: p2pd.Daemon, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Returns never; raises what ended it."""
        server = Server(self._outbox, self._start.hello, self._traffic, self._greeted)
        await server.open(self._control, fetch_protocol(self._start.swarm_id))
        async with self._control.subscribe(self._topic) as messages:
            writer.write(channel.encode(channel.Listening(await self._addresses())))
            await _until_first_ends(
                self._obey(reader),
                self._send(writer),
                self._listen(messages),
                self._watch(),
                _watch_daemon(daemon),
                look_around(
                    self._control,
                    self._start.peer_id,
                    self._start.swarm_id,
                    self._neighbours,
                    self._rng,
                ),
                *(dialler.run() for dialler in self._diallers),
            )

    async def _obey(self, reader: asyncio.StreamReader) -> None:
        while True:
            match await _read_command(reader):
                case channel.Publish(frame):
                    await self._publish(frame)
                case channel.Hold(id, frame):
                    self._outbox.put(id, frame)
                case channel.Fetch(peer, ids):
                    self._fetcher.start(peer, ids)

    def _greeted(self, peer: str, address: str, theirs: Hello) -> None:
        self._strangers.greet(peer, address, theirs, time.monotonic())

    async def _publish(self, frame: bytes) -> None:
        await self._control.publish(self._topic, frame)
        self._traffic.bytes_out += len(frame)

    async def _listen(self, messages: AsyncIterator[tuple[str, bytes]]) -> None:
        async for peer, frame in messages:
            if peer == self._start.peer_id:
                continue  # the daemon gives us our own, too
            if not 0 < len(frame) <= MAX_ANNOUNCEMENT_BYTES:
                self._oversized += 1
                continue
            self._traffic.bytes_in += len(frame)
            if self._budget.allows(peer, time.monotonic()):
                self._emit(Announced(peer, frame))
            else:
                self._over_budget += 1

    async def _watch(self) -> None:
        """Keeps the list of neighbours and reports to the node."""
        while True:
            self._neighbours.connected = frozenset(await self._control.peers())
            self._neighbours.members = tuple(await self._control.subscribers(self._topic))
            self._newest_report = self._report(await self._addresses())
            self._something.set()
            await asyncio.sleep(channel.REPORT_S)

    async def _addresses(self) -> tuple[str, ...]:
        """Where this node can be dialled, as users give it to `--peer`."""
        _, addresses = await self._control.identify()
        return tuple(f"{address}/p2p/{self._start.peer_id}" for address in addresses)

    def _report(self, addresses: tuple[str, ...]) -> channel.Report:
        return channel.Report(
            addresses=addresses,
            peers=self._neighbours.members,
            state=self._state(),
            bytes_in=self._traffic.bytes_in,
            bytes_out=self._traffic.bytes_out,
            foreign_peers=self._strangers.count,
            dropped={
                "events": self._events.dropped,
                "oversized": self._oversized,
                "flood": self._over_budget,
                "streams": self._traffic.streams_refused,
            },
        )

    def _state(self) -> str:
        count = len(self._neighbours.members)
        if count:
            return f"connected to {count} peer{'s' if count > 1 else ''}"
        problems = [text for text in (d.problem() for d in self._diallers) if text]
        if problems:
            more = f" ({len(problems) - 1} more fail)" if len(problems) > 1 else ""
            return f"alone: {problems[0]}{more}"
        strangers = len(self._neighbours.connected)
        if strangers:
            return f"alone: connected to {strangers} nodes, none of which is in this swarm yet"
        if self._diallers:
            return f"alone: dialing {self._diallers[0].address}"
        return "alone: no --peer given, waiting for others to join"

    def _emit(self, event: AnyEvent) -> None:
        self._events.put(event, event_bytes(event))
        self._something.set()

    async def _send(self, writer: asyncio.StreamWriter) -> None:
        while True:
            await self._something.wait()
            self._something.clear()
            if self._newest_report is not None:
                writer.write(channel.encode(self._newest_report))
                self._newest_report = None
            while self._events:
                writer.write(channel.encode(self._events.take()))
                await writer.drain()
            await writer.drain()


async def _watch_daemon(daemon: p2pd.Daemon) -> None:
    raise SwarmNodeError(await daemon.ended())


async def _until_first_ends(*coroutines: Coroutine[Any, Any, None]) -> None:
    """Runs all until one ends or fails, cancels the others and raises the failure."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _read_command(reader: asyncio.StreamReader) -> channel.Command:
    try:
        header = await reader.readexactly(channel.HEADER_BYTES)
        return channel.decode_command(await reader.readexactly(channel.body_length(header)))
    except asyncio.IncompleteReadError as error:
        raise EOFError from error
