"""How libp2p nodes find one another: the provider records of Kademlia, one hop away.

Speaks the part of go-libp2p's DHT protocol by which p2pd nodes find a swarm (ADD_PROVIDER,
GET_PROVIDERS, FIND_NODE), so that both kinds find each other. It asks neighbours only and keeps
records of its own swarm only: any node of a swarm leads to the others, and py-libp2p's own DHT
refreshes its table for a minute of CPU at 16 nodes and stores whatever a stranger sends.
Source: https://github.com/libp2p/specs/tree/master/kad-dht
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import anyio
from google.protobuf.message import DecodeError
from libp2p.kad_dht.pb.kademlia_pb2 import Message

from swarmnode.swarm import multiaddr
from swarmnode.swarm.host import HostError, Stream, StreamCut

PROTOCOL = "/ipfs/kad/1.0.0"
MAX_ANSWERED = 20  # peers in one answer, as in Kademlia (K)
_MAX_MESSAGE_BYTES = 64 * 1024  # 20 peers with a dozen addresses each are some 10 KB
_MAX_PROVIDERS = 1024  # records kept; the oldest goes
_RECORD_S = 600.0  # nodes of a swarm provide again every minute
_MAX_ADDRESSES = 16  # of one peer
_IDLE_S = 120.0  # for the next request on a stream; the Go daemon keeps its streams open
_SERVED_AT_ONCE, _SERVED_PER_PEER = 64, 4

Known = tuple[str, list[str]]  # peer id, its addresses without /p2p/


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a host knows now, from memory."""

    speakers: Callable[[], list[Known]]  # connected peers that speak this protocol
    members: Callable[[], list[Known]]  # connected peers that take part in the swarm
    addresses: Callable[[str], list[str]]  # of this node, or of any peer that was heard of
    now: Callable[[], float]  # seconds


class Providers:
    """The provider records of `key`, a CID's multihash, and answers to questions about peers."""

    def __init__(self, key: bytes, around: Surroundings) -> None:
        self._key = key
        self._around = around
        self._records: OrderedDict[str, tuple[list[str], float]] = OrderedDict()

    def answer(self, peer: str, request: Message) -> Message | None:
        """What is to be sent back, None for nothing; keeps what `peer` provides."""
        answer = Message(type=request.type, key=request.key)
        match request.type:
            case Message.PING:
                return answer
            case Message.FIND_NODE:
                answer.closerPeers.extend(self._closer(peer, request.key))
                return answer
            case Message.GET_PROVIDERS:
                if request.key == self._key:
                    # Who takes part provides, whether it could say so to this node or not.
                    known = dict(self.stored()) | dict(self._around.members())
                    known.pop(peer, None)
                    answer.providerPeers.extend(map(_entry, list(known.items())[:MAX_ANSWERED]))
                answer.closerPeers.extend(self._closer(peer, request.key))
                return answer
            case Message.ADD_PROVIDER if request.key == self._key:
                self._keep(peer, peers_in(request.providerPeers))
        return None  # values: nobody of a swarm stores any

    def stored(self) -> list[Known]:
        """The providers that told this node, the newest first."""
        oldest = self._around.now() - _RECORD_S
        return [(id, known) for id, (known, at) in reversed(self._records.items()) if at > oldest]

    def _keep(self, peer: str, providers: list[Known]) -> None:
        for id, addresses in providers:
            if id == peer and addresses:  # for itself only, like go-libp2p
                self._records.pop(id, None)
                self._records[id] = addresses, self._around.now()
        while len(self._records) > _MAX_PROVIDERS:
            self._records.popitem(last=False)

    def _closer(self, asker: str, key: bytes) -> list[Message.Peer]:
        # Asked for itself a node names itself: go-libp2p takes no other into its table.
        known = {id: addresses for id, addresses in self._around.speakers() if id != asker}
        sought = multiaddr.peer_id_text(key) if len(key) <= multiaddr.MAX_PEER_ID_BYTES else ""
        addresses = self._around.addresses(sought) if sought != asker else []
        found = {sought: addresses} if addresses else {}
        return [_entry(entry) for entry in (found | known).items()][:MAX_ANSWERED]


class ProviderServer:
    """Answers the streams that peers open, a bounded number at once."""

    def __init__(self, providers: Providers) -> None:
        self._providers = providers
        self._serving: Counter[str] = Counter()

    async def serve(self, stream: Stream) -> None:
        """Answers one peer's requests until it stops asking."""
        peer = stream.peer
        if self._serving.total() >= _SERVED_AT_ONCE or self._serving[peer] >= _SERVED_PER_PEER:
            return
        self._serving[peer] += 1
        try:
            while True:
                with anyio.fail_after(_IDLE_S):
                    request = await read_message(stream)
                    answer = self._providers.answer(peer, request)
                    if answer is not None:
                        await write_message(stream, answer)
        except (StreamCut, HostError, TimeoutError):
            return  # the peer is through, or says something else
        finally:
            self._serving[peer] -= 1
            if not self._serving[peer]:
                del self._serving[peer]


def offer(key: bytes, own: Known) -> Message:
    """The request by which a node says that it provides `key`; it has no answer."""
    return Message(type=Message.ADD_PROVIDER, key=key, providerPeers=[_entry(own)])


def question(key: bytes) -> Message:
    """The request for who provides `key`."""
    return Message(type=Message.GET_PROVIDERS, key=key)


def search(peer: str) -> Message:
    """The request for a peer's addresses."""
    return Message(type=Message.FIND_NODE, key=multiaddr.peer_id_bytes(peer))


def peers_in(entries: Iterable[Message.Peer]) -> list[Known]:
    """The peers in a message whose ids make sense, with the addresses that do."""
    known = []
    for entry in entries:
        if 0 < len(entry.id) <= multiaddr.MAX_PEER_ID_BYTES:
            texts = [multiaddr.to_text(address) for address in entry.addrs[:_MAX_ADDRESSES]]
            known.append((multiaddr.peer_id_text(entry.id), [text for text in texts if text]))
    return known


async def read_message(stream: Stream) -> Message:
    """The next message; raises `HostError` for what is none, `StreamCut` at the end."""
    length = 0
    for shift in range(0, 35, 7):
        (byte,) = await stream.read_exactly(1)
        length |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
    if length > _MAX_MESSAGE_BYTES:
        raise HostError(f"a Kademlia message of {length} bytes")
    message = Message()
    try:
        message.ParseFromString(await stream.read_exactly(length))
    except DecodeError as error:
        raise HostError("no Kademlia message") from error
    return message


async def write_message(stream: Stream, message: Message) -> None:
    body = message.SerializeToString()
    await stream.write(multiaddr.varint(len(body)) + body)


def _entry(known: Known) -> Message.Peer:
    id, addresses = known
    binary = []
    for address in addresses[:_MAX_ADDRESSES]:
        binary.append(multiaddr.to_binary(address))
    return Message.Peer(
        id=multiaddr.peer_id_bytes(id), addrs=binary, connection=Message.CAN_CONNECT
    )
