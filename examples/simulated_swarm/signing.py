"""In place of Ed25519: a hash that anyone could make, and each frame read once for all nodes.

Frames have their real size, body and id; opening one checks the hash. Only for simulations, where
the same frame is opened by a hundred nodes and 60 µs of each would be most of the work.
"""

import hashlib

from protocol import envelope
from protocol.codec import encode, kind_of
from protocol.compression import compress
from protocol.envelope import COMPRESSED_ROLLOUT, Opened, Sealed
from protocol.errors import ProtocolError, Reason
from protocol.limits import HEADER_BYTES, PROTOCOL_VERSION
from protocol.messages import Announcement, Kind, Rollout
from swarmnode.swarm.admission import Offer, offers_of

_MAX_OPENED = 400_000


def public_key(seed: bytes) -> bytes:
    """The 32 bytes that stand for the public key of a secret seed."""
    return hashlib.sha256(b"key" + seed).digest()


class StandIn:
    """`seal` and `open_frame` of `protocol.envelope`, with hashes for signatures."""

    def __init__(self) -> None:
        self.signed = 0
        self.verified = 0
        self._opened: dict[bytes, Opened] = {}
        self._older: dict[bytes, Opened] = {}
        self._offers: dict[int, tuple[Opened, tuple[Offer, ...]]] = {}  # by object

    def seal(self, message: Announcement | Rollout, seed: bytes, swarm_id: bytes) -> Sealed:
        kind, body = kind_of(message), encode(message)
        author = public_key(seed)
        signed = envelope.signed_bytes(kind, swarm_id, author, body)
        compressed = compress(body) if kind is Kind.ROLLOUT else None
        kind_byte = kind if compressed is None else COMPRESSED_ROLLOUT
        self.signed += 1
        header = bytes((PROTOCOL_VERSION, kind_byte)) + author + _signature(signed)
        return Sealed(hashlib.sha256(signed).digest(), header + (compressed or body))

    def open_frame(self, frame: bytes, swarm_id: bytes) -> Opened:
        self.verified += 1
        opened = self._opened.get(frame) or self._older.get(frame)
        if opened is None:
            opened = self._open(frame, swarm_id)
            if len(self._opened) >= _MAX_OPENED:
                self._older, self._opened = self._opened, {}
            self._opened[frame] = opened
        return opened

    def read_offers(self, opened: Opened) -> tuple[Offer, ...]:
        """As `admission.offers_of`."""
        known = self._offers.get(id(opened))
        if known is None:
            if len(self._offers) >= _MAX_OPENED // 8:
                self._offers.clear()
            known = self._offers[id(opened)] = opened, offers_of(opened)
        return known[1]

    def _open(self, frame: bytes, swarm_id: bytes) -> Opened:
        author, message = envelope.read_unverified(frame)
        signed = envelope.signed_bytes(kind_of(message), swarm_id, author, encode(message))
        if frame[HEADER_BYTES - 64 : HEADER_BYTES] != _signature(signed):
            raise ProtocolError(Reason.BAD_SIGNATURE, "not signed by its author for this swarm")
        return Opened(hashlib.sha256(signed).digest(), author, message)


def _signature(signed: bytes) -> bytes:
    return hashlib.sha512(signed).digest()
