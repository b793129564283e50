"""What the node and its network process say to each other over one socket pair.

Length-prefixed MessagePack of typed structs; no pickle, because the network process is the one
that strangers can reach: whatever it is made to send, the node decodes only these.
"""

import hashlib
import math

import msgspec

from protocol.names import WHOLE, Shard
from swarmnode.swarm.transport import AnyEvent

HEADER_BYTES = 4
# Bytes of one message: a frame has at most 256 KiB, a report with 128 peers some 20 KB.
MAX_MESSAGE_BYTES = 2**20


class _Message(msgspec.Struct, frozen=True, tag=True, array_like=True, forbid_unknown_fields=True):
    """Anything below."""


class Start(_Message, frozen=True, tag=True):
    """First command. `folder` is private and removed at the end, `hello` the encoded greeting,
    `peers` and `announce` the user's addresses, checked. `backend` is "hivemind" or "libp2p".
    `book` is the file of the peers known before, "" for none; `mdns` whether the local network is
    asked. Frames may be `overhead_bytes` longer than the protocol's limits: a private swarm
    encrypts them. `max_upload` and `max_download` are bytes a second.
    """

    backend: str
    folder: str
    identity_path: str
    peer_id: str
    host: str
    port: int
    peers: tuple[str, ...]
    swarm_id: bytes
    hello: bytes
    book: str = ""
    lan_only: bool = False
    mdns: bool = False
    overhead_bytes: int = 0
    announce: tuple[str, ...] = ()
    upnp: bool = False
    max_upload: float = math.inf
    max_download: float = math.inf


class Listen(_Message, frozen=True, tag=True):
    """From now on to these shards, besides the whole swarm's topic."""

    shards: tuple[Shard, ...]


class Publish(_Message, frozen=True, tag=True):
    frame: bytes
    shard: Shard = WHOLE


class Hold(_Message, frozen=True, tag=True):
    id: bytes
    frame: bytes


class Fetch(_Message, frozen=True, tag=True):
    peer: str
    ids: tuple[bytes, ...]


class Avoid(_Message, frozen=True, tag=True):
    """Cut `peer` off, and keep it off for so many seconds."""

    peer: str
    seconds: float


class Listening(_Message, frozen=True, tag=True):
    """The host listens: the node may go on."""

    addresses: tuple[str, ...]


class Failed(_Message, frozen=True, tag=True):
    """The network process gives up and ends. `is_users_fault` makes it a `ConfigError`."""

    text: str
    is_users_fault: bool


class Notice(_Message, frozen=True, tag=True):
    """One line for the node's log."""

    text: str


class Report(_Message, frozen=True, tag=True):
    """The network's state, sent every `REPORT_S`; counts are since the process started. `alone` is
    one of `alone.Alone`, "" with peers. `said` is the `mark` of the last announcement that went to
    somebody, `tasks` how many run in the process now."""

    addresses: tuple[str, ...]
    peers: tuple[str, ...]
    state: str
    alone: str
    bytes_in: int
    bytes_out: int
    foreign_peers: int
    dropped: dict[str, int]
    said: bytes = b""
    relayed: tuple[str, ...] = ()
    tasks: int = 0


REPORT_S = 1.0  # also the heartbeat by which the node knows that the network process lives

Command = Start | Listen | Publish | Hold | Fetch | Avoid
Message = Listening | Failed | Notice | Report | AnyEvent

_encode = msgspec.msgpack.Encoder().encode
_commands: msgspec.msgpack.Decoder[Command] = msgspec.msgpack.Decoder(Command)
_messages: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


def encode(message: Command | Message) -> bytes:
    """The message with its length in front."""
    body = _encode(message)
    return len(body).to_bytes(HEADER_BYTES) + body


def body_length(header: bytes) -> int:
    """Bytes that follow `header`; raises `ValueError` above the limit."""
    length = int.from_bytes(header)
    if length > MAX_MESSAGE_BYTES:
        raise ValueError(f"message of {length} bytes on the channel")
    return length


def mark(frame: bytes) -> bytes:
    """Eight bytes to know a frame by."""
    return hashlib.sha256(frame).digest()[:8]


def decode_command(body: bytes) -> Command:
    return _commands.decode(body)


def decode_message(body: bytes) -> Message:
    """Raises `msgspec.DecodeError` for anything but a message of the network process."""
    return _messages.decode(body)
