"""What the node asks of a network: announce, hold, fetch, poll; nothing here waits for a peer.

Two implementations keep this contract: `memory` (one process, deterministic, for tests and
simulation) and `network_transport` (the real network, over one of two libraries). They move
opaque frames: what a frame means, whether it is signed and whether it is wanted is decided by the
caller.
"""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from protocol.limits import HASH_BYTES, MAX_ANNOUNCEMENT_BYTES, MAX_FETCH_IDS, MAX_FRAME_BYTES
from protocol.names import WHOLE, Shard, public_key_of


class FetchProblem(enum.StrEnum):
    """Why a fetch brought nothing: a closed set, so that it can be a metric label."""

    ABSENT = "absent"  # the peer answered that it does not hold the frame (any more)
    UNREACHABLE = "unreachable"  # no connection, or the peer does not speak this swarm's protocol
    TIMEOUT = "timeout"  # connected, but the answer was not complete in time, or was cut short
    BUSY = "busy"  # the peer ended the stream before the first frame: over its limits
    BUDGET = "budget"  # not asked: this node is over its --max-download
    MALFORMED = "malformed"  # the answer broke the framing or a size limit
    OVERLOAD = "overload"  # dropped on this side: too many fetches at once, or a network restart


# The events are msgspec structs and not dataclasses because they also cross the pipe between the
# network process and the node; like dataclasses they are frozen and compare by value.
class Event(msgspec.Struct, frozen=True, tag=True, array_like=True, forbid_unknown_fields=True):
    """Something that arrived since the last `poll`."""


class Announced(Event, frozen=True, tag=True):
    """A frame gossiped by `peer`, its original publisher: the network checked that signature.

    Whoever passed it on is not known. The frame's own signature is still the caller's to check, and
    whether `shard`, on whose topic it came, is its author's.
    """

    peer: str
    frame: bytes
    shard: Shard = WHOLE


class Fetched(Event, frozen=True, tag=True):
    """One frame that `peer` sent for `id`. Nothing says yet that the frame hashes to `id`.

    `address` is the multiaddress the bytes came from ("" when unknown or in memory), so that the
    caller can keep budgets per network and not only per key.
    """

    peer: str
    id: bytes
    frame: bytes
    address: str = ""


class FetchFailed(Event, frozen=True, tag=True):
    """`peer` did not deliver `ids`. `detail` is one line for a person and bounded in size."""

    peer: str
    ids: tuple[bytes, ...]
    problem: FetchProblem
    detail: str = ""


class PeerNote(Event, frozen=True, tag=True):
    """One line about `peer` that a person may act on: another swarm, another protocol version."""

    peer: str
    text: str


AnyEvent = Announced | Fetched | FetchFailed | PeerNote

# What arrived between two polls. A round takes seconds to minutes; 1,000 nodes announce once a
# round each, and a round fetches tens of frames. More than this is a flood: the oldest goes.
MAX_EVENTS = 4096
MAX_EVENT_BYTES = 32 * 2**20

# Frames served to peers. A node makes about ten a round of 2-20 KB, and peers refuse rollouts
# older than some minutes: this is hours of them. Fewer means peers fetch in vain.
MAX_HELD_FRAMES = 1024
MAX_HELD_BYTES = 32 * 2**20


@dataclass(frozen=True, slots=True)
class TransportStatus:
    """A snapshot of the network, as last reported; reading it never waits.

    `addresses` are complete: each can be given to another node's `--peer`. `peers` are the ids
    connected now, of this swarm or not. `bytes_in` and `bytes_out` count payload: announcements
    once per distinct message, fetch requests and answers in both roles; encryption, gossip
    duplicates and discovery are not in it. `foreign_peers` counts those that greeted this node and
    are of another swarm or protocol version, each once. `dropped` counts lost items by queue name
    (closed set, see `QUEUES`). `relayed` are the peers, of this swarm or not, that are connected
    through a relay only, where the library tells (hivemind). `state` is one line for a person; when
    no peer is connected it says why, and `alone` says it in one word of `alone.Alone`. `tasks` run
    in the network process: a number that grows without end is a leak.
    """

    peer_id: str
    running: bool
    state: str
    addresses: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()
    bytes_in: int = 0
    bytes_out: int = 0
    foreign_peers: int = 0
    restarts: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    alone: str = ""
    relayed: tuple[str, ...] = ()
    tasks: int = 0


# The keys of `TransportStatus.dropped`; metric labels.
QUEUES = (
    "publish",  # announcements not handed to the network: it was stuck or restarting
    "fetch",  # fetches not handed to the network for the same reason
    "hold",  # held frames pushed out by newer ones: normal ageing of the outbox
    "events",  # arrived, but not polled in time
    "oversized",  # gossip messages above the protocol's limit
    "flood",  # announcements of a publisher who sends far too many
    "upload",  # fetches of peers not served: this node is over its --max-upload
    "streams",  # peers turned away because too many were being served
    "unreadable",  # frames not encrypted with the private swarm's key
    "malformed",  # gossip that broke its format or signature (libp2p; p2pd counts none)
)


class Transport(Protocol):
    """A node's connection to its swarm. All calls come from one thread and return at once."""

    def open(self) -> None:
        """Starts the network and returns when it listens, at most after a fixed time.

        Waits for nothing but programs on this machine. Raises `ConfigError` when the chosen port
        is taken or an address is malformed, `SwarmNodeError` when the network does not start.
        """
        ...

    def listen(self, shards: Sequence[Shard]) -> None:
        """Hears the announcements of these shards from now on, and of no others; those to the whole
        swarm are always heard. Raises `ValueError` for what is no shard."""
        ...

    def publish(self, frame: bytes, shard: Shard = WHOLE) -> None:
        """Gossips one frame to those who listen to `shard`, at first the whole swarm. This node
        does not hear it.

        Frames may overtake one another; one published before a peer joined does not reach it, but
        for the newest one of a node that was alone. Of a burst of more than some 30 the libraries
        drop the rest.
        Raises `ValueError` for a frame above the protocol's limit for announcements.
        """
        ...

    def hold(self, id: bytes, frame: bytes) -> None:
        """Serves `frame` to whoever asks for `id`, until newer frames push it out.

        Raises `ValueError` for a frame above the protocol's limit.
        """
        ...

    def fetch(self, peer: str, ids: Sequence[bytes]) -> None:
        """Asks one peer for frames, connected or not.

        Each id ends in exactly one `Fetched` or `FetchFailed`, unless the event queue overflows;
        asking again before that is the same fetch. Raises `ValueError` for no id, more than
        `MAX_FETCH_IDS` or a repeated one, and for a peer id that is no Ed25519 key's.
        """
        ...

    def avoid(self, peer: str, seconds: float) -> None:
        """Disconnects `peer`, and for so long hears nothing of it, serves it nothing and dials it
        not, as far as the library can refuse; what others pass on of it is dropped."""
        ...

    def poll(self) -> list[AnyEvent]:
        """Everything that arrived since the last call, oldest first."""
        ...

    def status(self) -> TransportStatus:
        """The last known state of the network."""
        ...

    def close(self) -> None:
        """Stops the network and frees the port. May be called twice, or without `open`."""
        ...


def check_frame(frame: bytes, overhead_bytes: int = 0) -> None:
    """Raises `ValueError` for an announcement that no peer would accept: a bug of the caller."""
    limit = MAX_ANNOUNCEMENT_BYTES + overhead_bytes
    if not 0 < len(frame) <= limit:
        raise ValueError(f"announcement of {len(frame)} bytes, allowed 1-{limit}")


def check_fetch(peer: str, ids: Sequence[bytes]) -> None:
    """Raises `ValueError` for a fetch that cannot be put on the wire: a bug of the caller."""
    public_key_of(peer)  # raises ValueError
    if not 0 < len(ids) <= MAX_FETCH_IDS or len(set(ids)) < len(ids):
        raise ValueError(f"fetch of {len(ids)} ids, allowed 1-{MAX_FETCH_IDS} distinct ones")
    for id in ids:
        check_id(id)


def check_id(id: bytes) -> None:
    if len(id) != HASH_BYTES:
        raise ValueError(f"id of {len(id)} bytes, not {HASH_BYTES}")


def check_held(id: bytes, frame: bytes, overhead_bytes: int = 0) -> None:
    """Raises `ValueError` for a frame that no peer would take: a bug of the caller."""
    check_id(id)
    limit = MAX_FRAME_BYTES + overhead_bytes
    if not 0 < len(frame) <= limit:
        raise ValueError(f"frame of {len(frame)} bytes, allowed 1-{limit}")


def event_bytes(event: AnyEvent) -> int:
    """Roughly what an event occupies, for the bounds of queues."""
    match event:
        case Announced(frame=frame) | Fetched(frame=frame):
            return 256 + len(frame)
        case FetchFailed(ids=ids):
            return 256 + sum(len(id) for id in ids)
        case PeerNote(text=text):
            return 256 + len(text)
