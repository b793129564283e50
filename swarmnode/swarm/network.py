"""What a node's network process does while it runs, whatever library it runs on.

Obeys the node, hears and counts gossip, serves streams, keeps the list of neighbours, reports.
Written with anyio: on asyncio it drives `hivemind_p2pd`, on trio `libp2p_trio`.
"""

import random
import time
from collections.abc import AsyncIterator

import anyio
from anyio.abc import SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

from protocol.codec import decode_hello
from protocol.limits import MAX_ANNOUNCEMENT_BYTES
from protocol.messages import Hello
from protocol.names import Shard, announcement_topic, fetch_protocol
from swarmnode.swarm import channel
from swarmnode.swarm.bounded import BoundedQueue, Budget, Outbox
from swarmnode.swarm.discovery import Dialler, Neighbours, Strangers, look_around
from swarmnode.swarm.fetching import Fetcher, Server, Traffic
from swarmnode.swarm.host import Host
from swarmnode.swarm.listening import Listening
from swarmnode.swarm.transport import (
    MAX_EVENT_BYTES,
    MAX_EVENTS,
    MAX_HELD_BYTES,
    MAX_HELD_FRAMES,
    Announced,
    AnyEvent,
    PeerNote,
    event_bytes,
)

# Announcements of one publisher in this time, above which the rest of them is dropped, so that
# one flooder cannot push others' out of the queue of events. An honest node makes one a round.
_ANNOUNCEMENTS, _WINDOW_S = 30, 10.0


class Network:
    """Everything that goes on while `host` runs."""

    def __init__(self, start: channel.Start, host: Host) -> None:
        self._start = start
        self._host = host
        self._topic = announcement_topic(start.swarm_id)
        self._protocol = fetch_protocol(start.swarm_id)
        self._outbox = Outbox(MAX_HELD_FRAMES, MAX_HELD_BYTES)
        self._events: BoundedQueue[AnyEvent] = BoundedQueue(MAX_EVENTS, MAX_EVENT_BYTES)
        self._something = anyio.Event()  # set when there is something to send to the node
        self._newest_report: channel.Report | None = None
        self._traffic = Traffic(start.max_upload, start.max_download)
        self._oversized = 0
        self._budget = Budget(_ANNOUNCEMENTS, _WINDOW_S)
        self._over_budget = 0
        self._told: set[str] = set()  # flags whose limit a person has heard of
        self._neighbours = Neighbours()
        hello = decode_hello(start.hello)
        self._strangers = Strangers(hello, self._emit)
        self._rng = random.SystemRandom()
        self._diallers = [
            Dialler(address, host, hello, start.hello, self._neighbours, self._emit, self._rng)
            for address in start.peers
            if not address.endswith(f"/p2p/{start.peer_id}")  # itself, from a shared peer list
        ]

    async def run(self, node: SocketStream) -> None:
        """Returns never; raises what ended it, in an exception group."""
        server = Server(self._outbox, self._start.hello, self._traffic, self._greeted)
        await server.open(self._host, self._protocol)
        async with (
            self._host.subscribe(self._topic, self._admits) as messages,
            anyio.create_task_group() as tasks,
        ):
            await node.send(channel.encode(channel.Listening(await self._addresses())))
            fetcher = Fetcher(self._host, self._protocol, self._traffic, self._emit, tasks)
            listening = Listening(
                self._host,
                self._start.swarm_id,
                self._start.peer_id,
                self._admits,
                self._emit,
                tasks,
                self._rng,
            )
            tasks.start_soon(self._obey, node, fetcher, listening)
            tasks.start_soon(listening.look_for_neighbours)
            tasks.start_soon(self._send, node)
            tasks.start_soon(self._listen, messages)
            tasks.start_soon(self._watch)
            tasks.start_soon(
                look_around,
                self._host,
                self._start.peer_id,
                self._start.swarm_id,
                self._neighbours,
                self._rng,
            )
            for dialler in self._diallers:
                tasks.start_soon(dialler.run)

    async def _obey(self, node: SocketStream, fetcher: Fetcher, listening: Listening) -> None:
        source = BufferedByteReceiveStream(node)
        while True:
            header = await source.receive_exactly(channel.HEADER_BYTES)
            body = await source.receive_exactly(channel.body_length(header))
            match channel.decode_command(body):
                case channel.Listen(shards):
                    listening.listen_to(shards)
                case channel.Publish(frame, shard):
                    await self._publish(frame, shard)
                case channel.Hold(id, frame):
                    self._outbox.put(id, frame)
                case channel.Fetch(peer, ids):
                    fetcher.start(peer, ids)

    def _greeted(self, peer: str, address: str, theirs: Hello) -> None:
        self._strangers.greet(peer, address, theirs, time.monotonic())

    async def _publish(self, frame: bytes, shard: Shard) -> None:
        await self._host.publish(announcement_topic(self._start.swarm_id, shard), frame)
        self._traffic.sent(len(frame))

    async def _listen(self, messages: AsyncIterator[tuple[str, bytes]]) -> None:
        async for peer, frame in messages:
            self._emit(Announced(peer, frame))

    def _admits(self, peer: str, frame: bytes) -> bool:
        if peer == self._start.peer_id:
            return False  # our own
        if not 0 < len(frame) <= MAX_ANNOUNCEMENT_BYTES:
            self._oversized += 1
            return False
        self._traffic.received(len(frame))
        if not self._budget.allows(peer, time.monotonic()):
            self._over_budget += 1
            return False
        return True

    async def _watch(self) -> None:
        """Keeps the list of neighbours and reports to the node."""
        while True:
            self._neighbours.connected = frozenset(await self._host.peers())
            self._neighbours.members = tuple(await self._host.subscribers(self._topic))
            self._newest_report = self._report(await self._addresses())
            self._something.set()
            self._tell_of_limits()
            await anyio.sleep(channel.REPORT_S)

    def _tell_of_limits(self) -> None:
        """Tells a person, once, that a byte budget holds traffic back."""
        traffic = self._traffic
        for flag, count in (
            ("--max-upload", traffic.uploads_refused),
            ("--max-download", traffic.downloads_refused),
        ):
            if count and flag not in self._told:
                self._told.add(flag)
                text = f"{flag} is used up: some rollouts are not exchanged; training goes on"
                self._emit(PeerNote(self._start.peer_id, text))

    async def _addresses(self) -> tuple[str, ...]:
        """Where this node can be dialled, as users give it to `--peer`."""
        _, addresses = await self._host.identify()
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
                "upload": self._traffic.uploads_refused,
                "streams": self._traffic.streams_refused,
                "malformed": self._host.malformed,
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

    async def _send(self, node: SocketStream) -> None:
        while True:
            await self._something.wait()
            self._something = anyio.Event()
            if self._newest_report is not None:
                report, self._newest_report = self._newest_report, None
                await node.send(channel.encode(report))
            while self._events:
                await node.send(channel.encode(self._events.take()))
