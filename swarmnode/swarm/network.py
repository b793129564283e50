"""What a node's network process does while it runs, whatever library it runs on.

Obeys the node, hears and counts gossip, serves streams, keeps the list of neighbours, reports.
Written with anyio: on asyncio it drives `hivemind_p2pd`, on trio `libp2p_trio`.
"""

import random
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import anyio
from anyio.abc import SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

from protocol.codec import decode_hello
from protocol.limits import MAX_ANNOUNCEMENT_BYTES, MAX_FRAME_BYTES
from protocol.messages import Hello
from protocol.names import (
    Shard,
    announcement_topic,
    fetch_protocol,
    lan_service,
    peers_protocol,
)
from swarmnode.errors import SwarmNodeError
from swarmnode.swarm import channel
from swarmnode.swarm.acquaintances import Teller
from swarmnode.swarm.address_book import AddressBook
from swarmnode.swarm.alive import Estranged
from swarmnode.swarm.alone import Surroundings, explain
from swarmnode.swarm.bounded import BoundedQueue, Outbox
from swarmnode.swarm.discovery import Dialler, Neighbours, Strangers
from swarmnode.swarm.fetching import Fetcher, Server, Traffic
from swarmnode.swarm.flood import FloodGate
from swarmnode.swarm.host import Host, HostError
from swarmnode.swarm.lan import Lan, why
from swarmnode.swarm.listening import Listening
from swarmnode.swarm.reach import Reach, Scope, scope_of
from swarmnode.swarm.seeking import Seeker
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

# Seconds for which a flooder is avoided, how many are remembered (the connection is gone anyway,
# and keys cost nothing), and the pause after each attempt to keep one out: each second of a flood
# costs some of what honest neighbours say, and each attempt a request to the library.
_AVOID_S, _MAX_AVOIDED, _CUT_PAUSE_S = 600.0, 1024, 0.02
# A library that has not answered for so long hangs, and the process ends to be replaced. Shorter
# would punish a machine whose cores are all busy training.
_HUNG_S = 10.0
# For which a connected peer may be without the topic that it had: p2pd takes up to ten to open its
# gossip again.
_ESTRANGED_S = 20.0

_MAX_NOTICES = 16


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
        self._flood = FloodGate()
        self._to_cut: set[str] = set()  # connected, and avoided
        self._must_cut = anyio.Event()  # set when there is one
        self._over_budget = 0
        self._told: set[str] = set()  # flags whose limit a person has heard of
        self._neighbours = Neighbours()
        self._estranged = Estranged(_ESTRANGED_S)
        hello = decode_hello(start.hello)
        self._strangers = Strangers(hello, self._emit)
        self._rng = random.SystemRandom()
        self._reach = Reach(start.lan_only)
        self._own: tuple[str, ...] = ()  # where this node listens, as last seen
        self._notices: BoundedQueue[str] = BoundedQueue(_MAX_NOTICES, 64 * 1024)
        self._silent_s = 0.0  # for which the library has not answered
        self._unheard: tuple[bytes, Shard] | None = (
            None  # the newest announcement, while nobody heard it
        )
        self._said = b""  # the mark of the last one that somebody did
        self._is_on_lan = start.mdns
        self._book = AddressBook(Path(start.book) if start.book else None)
        self._seeker = Seeker(
            host, start.peer_id, start.swarm_id, self._neighbours, self._book, self._reach,
            self._rng, self._notice,
        )  # fmt: skip
        met = self._seeker.met
        self._diallers = [
            Dialler(address, host, hello, start.hello, self._neighbours, self._emit, self._rng, met)
            for address in start.peers
            if not address.endswith(f"/p2p/{start.peer_id}")  # itself, from a shared peer list
        ]

    async def run(self, node: SocketStream) -> None:
        """Returns never; raises what ended it, in an exception group."""
        if problem := self._book.load(time.time()):
            self._notice(problem)
        server = Server(
            self._outbox, self._start.hello, self._traffic, self._greeted, self._neighbours.avoids
        )
        await server.open(self._host, self._protocol)
        known = self._seeker.known
        teller = Teller(self._start.peer_id, lambda: self._own, known, time.monotonic)
        await self._host.handle(peers_protocol(self._start.swarm_id), teller.serve)
        async with (
            self._host.subscribe(self._topic, self._admits) as messages,
            anyio.create_task_group() as tasks,
        ):
            await node.send(channel.encode(channel.Listening(await self._addresses())))
            limit = MAX_FRAME_BYTES + self._start.overhead_bytes
            fetcher = Fetcher(
                self._host, self._protocol, self._traffic, self._emit, tasks, max_frame_bytes=limit
            )
            listening = Listening(
                self._host, self._start.swarm_id, self._start.peer_id, self._admits, self._emit,
                tasks, self._rng,
            )  # fmt: skip
            tasks.start_soon(self._obey, node, fetcher, listening)
            tasks.start_soon(listening.look_for_neighbours)
            tasks.start_soon(self._send, node)
            tasks.start_soon(self._listen, messages)
            tasks.start_soon(self._watch)
            tasks.start_soon(self._keep_out)
            tasks.start_soon(self._seeker.run)
            tasks.start_soon(self._look_on_lan)
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
                case channel.Avoid(peer, seconds):
                    self._avoid(peer, seconds)

    def _greeted(self, peer: str, address: str, theirs: Hello) -> None:
        self._strangers.greet(peer, address, theirs, time.monotonic())

    async def _publish(self, frame: bytes, shard: Shard) -> None:
        if not self._neighbours.members:
            self._unheard = frame, shard  # gossip to nobody is lost: it is said when somebody comes
            return
        try:
            await self._host.publish(announcement_topic(self._start.swarm_id, shard), frame)
        except HostError:
            self._unheard = frame, shard  # the library hangs, or is gone; `_watch` finds out
            return
        self._unheard, self._said = None, channel.mark(frame)
        self._traffic.sent(len(frame))

    async def _listen(self, messages: AsyncIterator[tuple[str, bytes]]) -> None:
        async for peer, frame in messages:
            self._emit(Announced(peer, frame))

    def _admits(self, peer: str, frame: bytes) -> bool:
        if peer == self._start.peer_id:
            return False  # our own
        if not 0 < len(frame) <= MAX_ANNOUNCEMENT_BYTES + self._start.overhead_bytes:
            self._oversized += 1
            return False
        self._traffic.received(len(frame))
        if self._neighbours.avoids(peer):
            self._cut(peer)
            return False
        if not self._flood.allows(peer, time.monotonic()):
            self._over_budget += 1
            if self._flood.is_flooder(peer):
                self._avoid(peer, _AVOID_S)
            return False
        return True

    def _avoid(self, peer: str, seconds: float) -> None:
        """Cuts `peer` off, and drops what others pass on of it."""
        avoided = self._neighbours.avoided
        avoided.pop(peer, None)
        avoided[peer] = time.monotonic() + seconds
        while len(avoided) > _MAX_AVOIDED:
            del avoided[next(iter(avoided))]
        self._cut(peer)
        self._notice(f"avoiding {peer} for {seconds:.0f} s: it flooded or lied")

    async def _keep_out(self) -> None:
        """Disconnects who is avoided, again and again: the libraries let everyone connect."""
        while True:
            await self._must_cut.wait()
            self._must_cut = anyio.Event()
            cut, self._to_cut = self._to_cut, set()
            for peer in cut:
                if self._neighbours.avoids(peer):
                    with suppress(HostError):  # it is gone, or not our neighbour
                        await self._host.disconnect(peer)
            await anyio.sleep(_CUT_PAUSE_S)

    def _cut(self, peer: str) -> None:
        if len(self._to_cut) < _MAX_AVOIDED:
            self._to_cut.add(peer)
            self._must_cut.set()

    async def _watch(self) -> None:
        """Keeps the list of neighbours and reports to the node, for as long as the library lives.

        Raises `SwarmNodeError` when it hangs.
        """
        answered = time.monotonic()
        while True:
            try:
                await self._look()
                answered = time.monotonic()
            except HostError as error:
                self._silent_s = time.monotonic() - answered
                if self._silent_s > _HUNG_S:
                    text = f"the network library hangs: {self._silent_s:.0f} s without an answer"
                    raise SwarmNodeError(text) from error
                self._neighbours.connected, self._neighbours.members = frozenset(), ()
                self._neighbours.relayed = ()
            self._newest_report = self._report(self._with_peer_id(self._own))
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

    async def _look(self) -> None:
        """Sees who is connected; tells them what nobody heard before."""
        connected = frozenset(await self._host.peers())
        members = tuple(await self._host.subscribers(self._topic))
        self._neighbours.relayed = tuple(await self._host.relayed())
        await self._addresses()
        was_alone = not self._neighbours.members
        self._neighbours.connected, self._neighbours.members = connected, members
        for peer in connected.intersection(self._neighbours.avoided):
            self._cut(peer)
        self._silent_s = 0.0
        for peer in self._estranged.look(connected, set(members), time.monotonic()):
            with suppress(HostError):  # it is gone
                await self._host.disconnect(peer)  # to be met again
        if self._unheard is not None and members and not was_alone:
            # One look after the first peer came: the library has its streams open by then.
            await self._publish(*self._unheard)

    async def _look_on_lan(self) -> None:
        """Finds peers by multicast DNS, if that is wanted and possible here."""
        if not self._start.mdns:
            return
        is_loopback = all(scope_of(address) is Scope.LOOPBACK for address in self._own)
        lan = Lan(
            lan_service(self._start.swarm_id),
            self._start.peer_id,
            lambda: self._own,
            self._seeker.suggest,
            is_loopback=is_loopback,
        )
        try:
            await lan.run()
        except OSError as error:
            self._is_on_lan = False
            self._notice(f"mDNS is off: {why(error)}")

    async def _addresses(self) -> tuple[str, ...]:
        """Where this node can be dialled, as users give it to `--peer`."""
        _, addresses = await self._host.identify()
        self._own = tuple(address for address in addresses if self._reach.allows(address))
        return self._with_peer_id(self._own)

    def _with_peer_id(self, addresses: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(f"{address}/p2p/{self._start.peer_id}" for address in addresses)

    def _report(self, addresses: tuple[str, ...]) -> channel.Report:
        alone, state = explain(self._surroundings())
        return channel.Report(
            addresses=addresses,
            peers=self._neighbours.members,
            state=state,
            alone=alone or "",
            bytes_in=self._traffic.bytes_in,
            bytes_out=self._traffic.bytes_out,
            foreign_peers=self._strangers.count,
            said=self._said,
            dropped={
                "events": self._events.dropped,
                "oversized": self._oversized,
                "flood": self._over_budget,
                "upload": self._traffic.uploads_refused,
                "streams": self._traffic.streams_refused,
                "malformed": self._host.malformed,
            },
            relayed=self._neighbours.relayed,
            tasks=len(anyio.get_running_tasks()),
        )

    def _surroundings(self) -> Surroundings:
        return Surroundings(
            members=len(self._neighbours.members),
            strangers=len(self._neighbours.connected),
            problems=tuple(text for text in (d.problem() for d in self._diallers) if text),
            dialling=self._diallers[0].address if self._diallers else "",
            remembered=len(self._book),
            looks_on_lan=self._is_on_lan,
            relayed=len(self._neighbours.relayed),
            silent_s=self._silent_s,
        )

    def _notice(self, text: str) -> None:
        self._notices.put(text, len(text))
        self._something.set()

    def _emit(self, event: AnyEvent) -> None:
        self._events.put(event, event_bytes(event))
        self._something.set()

    async def _send(self, node: SocketStream) -> None:
        while True:
            await self._something.wait()
            self._something = anyio.Event()
            while self._notices:
                await node.send(channel.encode(channel.Notice(self._notices.take())))
            if self._newest_report is not None:
                report, self._newest_report = self._newest_report, None
                await node.send(channel.encode(report))
            while self._events:
                await node.send(channel.encode(self._events.take()))
