"""The gate between strangers' gossip and py-libp2p: it gets only what it can take.

py-libp2p 0.8.1 lets a message that is no protobuf, has a made-up publisher or an unreadable key
raise out of its loops, which ends the host; it keeps state for topics that only a stranger names,
dials whom a stranger tells it to (peer exchange), answers a repeated id with as many copies, and
drops bursts above 32 between itself and its user without counting. So each RPC is parsed and
checked here, and what is understood is written anew; all else does not pass.

Who sent something that no honest node passes on is told apart (`Malformed`) from what an honest
one cannot help passing on: messages that are too large, too many, or of another topic.
Source: https://github.com/libp2p/specs/blob/master/pubsub/README.md
"""

from collections import OrderedDict
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from google.protobuf.message import DecodeError
from libp2p.peer.id import ID
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.rpc_queue import RpcQueue
from libp2p.pubsub.validators import signature_validator

from protocol.names import public_key_of, shard_of_topic
from swarmnode.swarm.bounded import Budget, RecentIds
from swarmnode.swarm.host import Admits
from swarmnode.swarm.multiaddr import peer_id_text

# Bytes of one RPC: go-libp2p's own limit, so no honest node sends more.
MAX_RPC_BYTES = 2**20
# Seconds for which a message is known again. GossipSub repeats it for 5 s; a loop of slow links
# takes longer. The newest 65,536 are 500 a second for that time.
_SEEN_S, _MAX_SEEN = 120.0, 65_536
# New messages that one neighbour may bring, of any publishers: each costs a signature check of
# 0.2 ms. 1,000 nodes announce 330 times in 10 s.
_PER_LINK, _WINDOW_S = 3000, 10.0
_SEQUENCE_BYTES = 8
_PUBLISHER_BYTES = 38  # the peer id of an Ed25519 key
_ID_BYTES = _PUBLISHER_BYTES + _SEQUENCE_BYTES
_MAX_CONTROL_IDS = 5000  # go-libp2p's limit for one IHAVE
# Topics of one neighbour that are remembered, and neighbours. An honest one has 20 at most; which
# they are must be known when this node comes to listen to one of them.
_MAX_TOPICS, _MAX_LINKS = 64, 1024


class Queues(dict[ID, RpcQueue]):
    """py-libp2p's queues of what goes to each neighbour; one that is replaced is closed.

    Two connections made at once make two queues, and the task that waits on the first would wait
    until the host ends.
    """

    def __setitem__(self, peer: ID, queue: RpcQueue) -> None:
        replaced = self.get(peer)
        super().__setitem__(peer, queue)
        if replaced is not None:
            replaced.close()


class Malformed(Exception):
    """Gossip that no honest node sends or passes on; the sender is at fault."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """A message that is new, signed by `publisher` and wanted."""

    publisher: str
    message: rpc_pb2.Message


class Gate:
    """What one node has seen of the topics of one swarm. `link` is the neighbour that something
    came from."""

    def __init__(self, swarm_id: bytes) -> None:
        self._swarm_id = swarm_id
        self._open: dict[str, Admits] = {}  # topics that this node listens to
        self._topics: OrderedDict[str, set[str]] = OrderedDict()  # link → what it subscribes to
        self._seen = RecentIds(_MAX_SEEN, _SEEN_S)
        self._links = Budget(_PER_LINK, _WINDOW_S)

    def open(self, topic: str, admits: Admits) -> None:
        """Takes messages of `topic` that `admits` takes, from now on."""
        self._open[topic] = admits

    def close(self, topic: str) -> None:
        """Takes no more messages of `topic`."""
        self._open.pop(topic, None)

    def topics_of(self, link: str) -> frozenset[str]:
        """The topics of the swarm that a neighbour said it subscribes to."""
        return frozenset(self._topics.get(link, ()))

    def forget_all_but(self, links: AbstractSet[str]) -> None:
        """Forgets what neighbours said that are connected no more."""
        for link in self._topics.keys() - links:
            del self._topics[link]

    def parse(self, body: bytes) -> rpc_pb2.RPC:
        """The RPC in `body`; raises `Malformed`."""
        rpc = rpc_pb2.RPC()
        try:
            rpc.ParseFromString(body)
        except DecodeError as error:
            raise Malformed("no pubsub protobuf") from error
        return rpc

    def admitted(self, link: str, message: rpc_pb2.Message, now: float) -> Admitted | None:
        """The message if it is to be taken and passed on; raises `Malformed`."""
        admits = self._open.get(message.topicIDs[0]) if len(message.topicIDs) == 1 else None
        if admits is None:
            return None
        id = message.from_id + message.seqno
        if id in self._seen or not self._links.allows(link, now):
            return None
        if not _is_signed(message):
            raise Malformed("a message without its publisher's signature")
        self._seen.add(id, now)
        publisher = _publisher(message)
        if publisher is None or not admits(publisher, message.data):
            return None
        return Admitted(publisher, message)

    def cleaned(self, link: str, rpc: rpc_pb2.RPC, admitted: Iterable[Admitted]) -> rpc_pb2.RPC:
        """A new RPC of `admitted` and what else in `rpc` concerns the swarm's topics."""
        clean = rpc_pb2.RPC(publish=[one.message for one in admitted])
        for change in rpc.subscriptions:
            if self._notes(link, change.topicid, subscribes=change.subscribe):
                clean.subscriptions.add(subscribe=change.subscribe, topicid=change.topicid)
        self._clean_control(rpc.control, clean)
        return clean

    def _notes(self, link: str, topic: str | bytes, *, subscribes: bool) -> bool:
        """Whether what a neighbour subscribes to, or does not any more, is to be known."""
        if type(topic) is not str:  # protobuf gives the bytes of what is no text
            return False
        try:
            shard_of_topic(self._swarm_id, topic)
        except ValueError:
            return False
        topics = self._topics.setdefault(link, set())
        self._topics.move_to_end(link)
        while len(self._topics) > _MAX_LINKS:
            self._topics.popitem(last=False)
        if not subscribes:
            topics.discard(topic)
        elif len(topics) < _MAX_TOPICS:
            topics.add(topic)
        return not subscribes or topic in topics

    def _clean_control(self, control: rpc_pb2.ControlMessage, clean: rpc_pb2.RPC) -> None:
        for topic in self._open:
            offered = _ids(i for entry in control.ihave if entry.topicID == topic
                           for i in entry.messageIDs)  # fmt: skip
            new = [id for id in offered if id not in self._seen]
            if new:
                clean.control.ihave.add(topicID=topic, messageIDs=new)
            if any(entry.topicID == topic for entry in control.graft):
                clean.control.graft.add(topicID=topic)
            pauses = [entry.backoff for entry in control.prune if entry.topicID == topic]
            if pauses:
                clean.control.prune.add(topicID=topic, backoff=pauses[0])
        asked = _ids(id for entry in control.iwant for id in entry.messageIDs)
        if asked:
            clean.control.iwant.add(messageIDs=asked)


def _ids(ids: Iterable[bytes]) -> list[bytes]:
    """Those that can be ids of messages of this swarm, each once, up to the limit."""
    return list(dict.fromkeys(id for id in ids if len(id) == _ID_BYTES))[:_MAX_CONTROL_IDS]


def _is_signed(message: rpc_pb2.Message) -> bool:
    try:
        return signature_validator(message)
    except Exception:  # noqa: BLE001  what an unreadable key raises depends on the key's type
        return False


def _publisher(message: rpc_pb2.Message) -> str | None:
    """The publisher, if its key can be a node's; the message is signed, so its sender is honest."""
    publisher = peer_id_text(message.from_id)
    try:
        public_key_of(publisher)
    except ValueError:
        return None
    return publisher if len(message.seqno) == _SEQUENCE_BYTES else None
