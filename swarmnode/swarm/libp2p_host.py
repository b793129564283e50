"""A running py-libp2p node as a `Host`: peers, gossip through the gate, streams, providers."""

import random
import time
from collections import OrderedDict
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import cast

import anyio
import trio
from libp2p.abc import IHost, INetConn, INetStream
from libp2p.custom_types import StreamHandlerFn, TProtocol
from libp2p.kad_dht.pb.kademlia_pb2 import Message
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStoreError
from libp2p.protocol_muxer.multiselect_client import MultiselectClient
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from libp2p.pubsub.pubsub import Pubsub
from libp2p.stream_muxer.yamux.yamux import Yamux
from multiaddr import Multiaddr

from protocol.names import announcement_topic, discovery_cid
from swarmnode.swarm import alive, libp2p_providers, multiaddr
from swarmnode.swarm.alive import Torn, end_the_dead
from swarmnode.swarm.host import Admits, HostError, Stream, StreamCut
from swarmnode.swarm.libp2p_gossip import Admitted, Gate, Malformed
from swarmnode.swarm.libp2p_providers import Known, Providers, ProviderServer, Surroundings
from swarmnode.swarm.libp2p_streams import FAILURES, CheckedStream, PeerStream, end, explained
from swarmnode.swarm.reach import Reach

_CID_PREFIX_BYTES = 2  # version and codec; Kademlia's key is the multihash behind them
_MAX_DIALLED = 4  # addresses of one peer
_ASKED = 8  # neighbours asked about a peer or providers
_ASK_S = 4.0
# Between own announcements: a neighbour's queue of 32 must empty meanwhile, it drops silently.
_PACE_S = 0.01
_UNREAD = 1024  # admitted announcements that wait to be queued for the node
# Seconds for which a peer that sent malformed gossip is not talked to, and how many such peers
# are remembered: a stranger has as many keys as it likes, and its connection is closed anyway.
_BAN_S, _MAX_BANNED = 600.0, 1024
_CHECK_S = 1.0
_TORN_S = 5.0  # for which a connection may be without its gossip: it is just being made
_CLOSE_S = 1.0  # to tell neighbours that a topic is left
_END_S = 2.0  # for ending a connection over which nothing passes


class Libp2pHost:
    """A `Host` over py-libp2p, for one swarm."""

    def __init__(self, host: IHost, pubsub: Pubsub, swarm_id: bytes, reach: Reach) -> None:
        self.malformed = 0
        self._host = host
        self._reach = reach
        self._network = host.get_network()
        self._pubsub = pubsub
        self._topic = announcement_topic(swarm_id)
        self._key = discovery_cid(swarm_id)[_CID_PREFIX_BYTES:]
        self._own = str(host.get_id())
        self._own_addresses = [_bare(str(address)) for address in host.get_addrs()]
        self._gate = Gate(swarm_id)
        self._deliver: dict[str, trio.MemorySendChannel[tuple[str, bytes]]] = {}  # by topic
        self._is_subscribed = trio.Event()
        self._banned: OrderedDict[str, float] = OrderedDict()  # until when, monotonic seconds
        around = Surroundings(self._speakers, self._members, self._addresses, time.monotonic)
        self._providers = Providers(self._key, around)
        # Every stream that a peer opens goes through here: py-libp2p lets what its handlers raise
        # end the host.
        assert isinstance(self._network, Swarm)
        inner = self._network.common_stream_handler
        self._network.set_stream_handler(partial(self._contain, inner))
        for protocol in pubsub.protocols:
            host.set_stream_handler(protocol, self._serve_gossip)
        serve = ProviderServer(self._providers).serve
        host.set_stream_handler(TProtocol(libp2p_providers.PROTOCOL), partial(self._serve, serve))

    async def identify(self) -> tuple[str, list[str]]:
        return self._own, self._own_addresses

    async def connect(self, peer: str, addresses: list[str], timeout_s: int) -> None:
        id = ID.from_base58(peer)
        if any(not connection.is_closed for connection in self._network.get_connections(id)):
            return
        if peer in self._banned:
            raise HostError("it sent malformed gossip and is avoided for some minutes")
        known = addresses or self._addresses(peer)
        usable = [
            text for text in known if multiaddr.tcp_endpoint(text) and self._reach.allows(text)
        ][:_MAX_DIALLED]
        problem = HostError("no TCP address of it is known, and this library does no QUIC or relay")
        try:
            with trio.fail_after(timeout_s):
                for text in usable:
                    try:
                        await self._network.dial_addr(Multiaddr(text), id)
                    except FAILURES as error:
                        problem = explained(error, peer)
                    else:
                        return
        except trio.TooSlowError as error:
            raise HostError("timed out") from error
        raise problem

    async def peers(self) -> list[str]:
        return sorted(str(peer) for peer in self._host.get_connected_peers())

    async def disconnect(self, peer: str) -> None:
        await self._disconnect(ID.from_base58(peer))

    async def relayed(self) -> list[str]:
        return []  # it neither relays nor dials through relays

    async def subscribers(self, topic: str) -> list[str]:
        subscribed = self._pubsub.peer_topics.get(topic, set())
        return sorted(str(peer) for peer in subscribed if peer in self._pubsub.peers)

    async def publish(self, topic: str, data: bytes) -> None:
        try:
            await self._pubsub.publish(topic, data)
        except FAILURES as error:
            raise explained(error, self._own) from error
        await trio.sleep(_PACE_S)

    @asynccontextmanager
    async def subscribe(
        self, topic: str, admits: Admits
    ) -> AsyncIterator[AsyncIterator[tuple[str, bytes]]]:
        deliver, messages = trio.open_memory_channel[tuple[str, bytes]](_UNREAD)
        self._deliver[topic] = deliver
        self._gate.open(topic, admits)
        # py-libp2p's own way to its user drops bursts above 32: the gate delivers instead, and
        # what comes this way is thrown away.
        subscription = await self._pubsub.subscribe(topic)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_discard, subscription)
                self._is_subscribed.set()
                yield messages
                nursery.cancel_scope.cancel()
        finally:
            self._gate.close(topic)
            del self._deliver[topic]
            messages.close()
            with anyio.move_on_after(_CLOSE_S, shield=True), suppress(*FAILURES):
                await self._pubsub.unsubscribe(topic)

    @asynccontextmanager
    async def stream(self, peer: str, protocol: str, timeout_s: int) -> AsyncIterator[Stream]:
        try:
            with trio.fail_after(timeout_s):
                stream = await self._open(peer, protocol, timeout_s)
        except trio.TooSlowError as error:
            raise HostError("timed out") from error
        is_complete = False
        try:
            yield PeerStream(stream)
            is_complete = True
        finally:
            await end(stream, is_complete=is_complete)

    async def handle(self, protocol: str, handler: Callable[[Stream], Awaitable[None]]) -> None:
        self._host.set_stream_handler(TProtocol(protocol), partial(self._serve, handler))

    async def provide(self, cid: bytes, timeout_s: int) -> None:
        request = libp2p_providers.offer(cid[_CID_PREFIX_BYTES:], (self._own, self._own_addresses))
        await self._ask_around(request, timeout_s)

    async def find_providers(self, cid: bytes, count: int, timeout_s: int) -> dict[str, list[str]]:
        key = cid[_CID_PREFIX_BYTES:]
        found = dict(self._providers.stored()) if key == self._key else {}
        for answer in await self._ask_around(libp2p_providers.question(key), timeout_s):
            found.update(libp2p_providers.peers_in(answer.providerPeers))
        return dict(list(found.items())[:count])

    async def look_after(self) -> None:
        """Keeps those out who were turned away, until their time is over, and ends connections
        that are dead or without their gossip."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                end_the_dead, self._network.get_connections, self._answers, self._end
            )
            nursery.start_soon(self._keep_out)
            nursery.start_soon(self._end_the_torn)

    async def _answers(self, connection: INetConn) -> bool:
        """Whether the other end of the connection says anything; who knows no pings does, too."""
        try:
            stream = await connection.new_stream()
        except FAILURES:
            return False
        try:
            select = MultiselectClient().select_one_of
            await select([TProtocol(alive.PROTOCOL)], MultiselectCommunicator(stream))
            await stream.write(bytes(alive.PING_BYTES))
            await stream.read(alive.PING_BYTES)
        except FAILURES:
            return True
        finally:
            await end(stream, is_complete=False)
        return True

    async def _end(self, connection: INetConn) -> None:
        """Ends every connection to the peer of this one, without last words: they would wait for
        what nobody reads."""
        id = connection.muxed_conn.peer_id
        for one in self._network.get_connections(id):
            assert isinstance(one.muxed_conn, Yamux)
            with suppress(*FAILURES):  # closed
                await one.muxed_conn.secured_conn.close()  # its reader sees the end and tidies up
        with trio.move_on_after(_END_S) as waiting:
            while self._network.get_connections(id):
                await trio.sleep(_END_S / 20)
        if waiting.cancelled_caught:
            await self._disconnect(id)

    async def _end_the_torn(self) -> None:
        torn = Torn(_TORN_S)
        while True:
            await trio.sleep(_CHECK_S)
            connected = self._network.get_connections_map()
            silent = {str(id) for id in connected if not self._gossips(id)}
            for peer in torn.look(silent, time.monotonic()):
                for one in self._network.get_connections(ID.from_base58(peer))[:1]:
                    await self._end(one)
            self._gate.forget_all_but({str(id) for id in connected})

    def _gossips(self, id: ID) -> bool:
        """Whether py-libp2p knows the topics that the peer told, and can tell it something."""
        stream = self._pubsub.peers.get(id)
        told = self._gate.topics_of(str(id))
        known = all(id in self._pubsub.peer_topics.get(topic, ()) for topic in told)
        return known and not (told and (stream is None or stream.muxed_conn.is_closed))

    async def _keep_out(self) -> None:
        while True:
            await trio.sleep(_CHECK_S)
            for peer, until in list(self._banned.items()):
                id = ID.from_base58(peer)
                if until < time.monotonic():
                    del self._banned[peer]
                    self._pubsub.blacklisted_peers.discard(id)
                elif self._network.get_connections(id):
                    await self._disconnect(id)

    async def _open(self, peer: str, protocol: str, timeout_s: int) -> INetStream:
        id = ID.from_base58(peer)
        if not self._network.get_connections(id):
            addresses = self._addresses(peer) or await self._search(peer)
            await self.connect(peer, addresses, timeout_s)
        try:
            return await self._host.new_stream(id, [TProtocol(protocol)])
        except FAILURES as error:
            raise explained(error, peer) from error

    async def _search(self, peer: str) -> list[str]:
        """A peer's addresses as a neighbour knows them."""
        for answer in await self._ask_around(libp2p_providers.search(peer), _ASK_S):
            for id, addresses in libp2p_providers.peers_in(answer.closerPeers):
                if id == peer and addresses:
                    return addresses
        raise HostError("no neighbour knows an address of it")

    async def _ask_around(self, request: Message, timeout_s: float) -> list[Message]:
        """The answers of some neighbours that came in time."""
        speakers = [id for id, _ in self._speakers()]
        asked = random.SystemRandom().sample(speakers, min(_ASKED, len(speakers)))
        answers: list[Message] = []
        with trio.move_on_after(min(timeout_s, _ASK_S)):
            async with trio.open_nursery() as nursery:
                for peer in asked:
                    nursery.start_soon(self._ask, peer, request, answers)
        return answers

    async def _ask(self, peer: str, request: Message, answers: list[Message]) -> None:
        try:
            async with self.stream(peer, libp2p_providers.PROTOCOL, int(_ASK_S)) as stream:
                await libp2p_providers.write_message(stream, request)
                if request.type != Message.ADD_PROVIDER:
                    answers.append(await libp2p_providers.read_message(stream))
        except (HostError, StreamCut):
            return  # others may know

    async def _contain(self, inner: StreamHandlerFn, stream: INetStream) -> None:
        try:
            await inner(stream)
        except Exception:  # noqa: BLE001  whatever a stranger made py-libp2p raise ends its stream
            self.malformed += 1
            await end(stream, is_complete=False)

    async def _serve(
        self, handler: Callable[[Stream], Awaitable[None]], stream: INetStream
    ) -> None:
        if str(stream.muxed_conn.peer_id) not in self._banned:
            await handler(PeerStream(stream))
        await end(stream, is_complete=True)

    async def _serve_gossip(self, stream: INetStream) -> None:
        await self._is_subscribed.wait()
        id = stream.muxed_conn.peer_id
        if str(id) in self._banned:
            await self._disconnect(id)
            return
        try:
            await self._repeat_topics(id)
            checked = CheckedStream(stream, self._gate, self._take)
            await self._pubsub.stream_handler(cast(INetStream, checked))
        except Malformed:
            self.malformed += 1
            self._banned[str(id)] = time.monotonic() + _BAN_S
            while len(self._banned) > _MAX_BANNED:
                forgotten, _ = self._banned.popitem(last=False)
                self._pubsub.blacklisted_peers.discard(ID.from_base58(forgotten))
            # Not `add_to_blacklist`: it deletes what a closing connection may have deleted.
            self._pubsub.blacklisted_peers.add(id)
            await self._disconnect(id)

    async def _repeat_topics(self, id: ID) -> None:
        """Tells the peer again what this node subscribes to, if it opened gossip before.

        p2pd forgets the topics of a peer when the connection of its own stream ends, though this
        node's stream goes over another one and lives; then it opens a new one.
        """
        queue = self._pubsub.peer_queues.get(id)
        if queue is None or not self._gate.topics_of(str(id)):
            return
        while not queue.closed and not queue.push(self._pubsub.get_hello_packet()):
            await trio.sleep(_PACE_S)  # full, and it waits for the peer to read

    async def _take(self, one: Admitted) -> None:
        deliver = self._deliver.get(one.message.topicIDs[0])
        if deliver is not None:  # else this node listens to it no more
            with suppress(trio.BrokenResourceError):
                await deliver.send((one.publisher, one.message.data))

    async def _disconnect(self, id: ID) -> None:
        with suppress(*FAILURES):  # it is gone
            await self._host.disconnect(id)

    def _speakers(self) -> list[Known]:
        speakers = []
        for id in self._host.get_connected_peers():
            with suppress(PeerStoreError):  # not identified yet
                if libp2p_providers.PROTOCOL in self._host.get_peerstore().get_protocols(id):
                    speakers.append((str(id), self._addresses(str(id))))
        return speakers

    def _members(self) -> list[Known]:
        subscribed = self._pubsub.peer_topics.get(self._topic, set())
        return [(str(id), self._addresses(str(id))) for id in subscribed]

    def _addresses(self, peer: str) -> list[str]:
        if peer == self._own:
            return self._own_addresses
        try:
            found = self._host.get_peerstore().addrs(ID.from_base58(peer))
        except (PeerStoreError, ValueError):
            return []
        texts = [multiaddr.to_text(address.to_bytes()) for address in found]
        return [_bare(text) for text in texts if text]


def _bare(address: str) -> str:
    """The address without /p2p/ at its end."""
    return address.rpartition("/p2p/")[0] or address


async def _discard(subscription: AsyncIterable[object]) -> None:
    async for _ in subscription:
        pass
