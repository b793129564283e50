"""In place of Ed25519: a hash that anyone could make, and each frame read once for all nodes.

Frames have their real size, body and id; opening one checks the hash. Only for simulations, where
the same frame is opened by a hundred nodes and 60 µs of each would be most of the work. What was
sealed here is remembered as opened; one in `_READ_EVERY` is read back, and so is what was changed.
"""

import hashlib
from typing import Generic, TypeVar

from protocol import envelope
from protocol.codec import encode, kind_of
from protocol.compression import compress
from protocol.envelope import COMPRESSED_ROLLOUT, Opened, Sealed
from protocol.errors import ProtocolError, Reason
from protocol.limits import HEADER_BYTES, PROTOCOL_VERSION
from protocol.messages import Announcement, Kind, Rollout
from swarmnode.swarm.admission import Offer, offers_of

_READ_EVERY = 64

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """Remembers between one and two times `limit` of the newest values."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._newer: dict[K, V] = {}
        self._older: dict[K, V] = {}

    def get(self, key: K) -> V | None:
        return self._newer.get(key) or self._older.get(key)

    def put(self, key: K, value: V) -> None:
        if len(self._newer) >= self._limit:
            self._older, self._newer = self._newer, {}
        self._newer[key] = value


def public_key(seed: bytes) -> bytes:
    """The 32 bytes that stand for the public key of a secret seed."""
    return hashlib.sha256(b"key" + seed).digest()


class StandIn:
    """`seal` and `open_frame` of `protocol.envelope`, with hashes for signatures. So many frames
    are `remembered`, or up to twice as many; what is opened later is read anew."""

    def __init__(self, remembered: int = 1000) -> None:
        self.signed = 0
        self.verified = 0
        self._opened: Recent[bytes, Opened] = Recent(remembered)
        # By object, which the value keeps alive.
        self._offers: Recent[int, tuple[Opened, tuple[Offer, ...]]] = Recent(remembered // 2)

    def seal(self, message: Announcement | Rollout, seed: bytes, swarm_id: bytes) -> Sealed:
        kind, body = kind_of(message), encode(message)
        author = public_key(seed)
        signed = envelope.signed_bytes(kind, swarm_id, author, body)
        compressed = compress(body) if kind is Kind.ROLLOUT else None
        kind_byte = kind if compressed is None else COMPRESSED_ROLLOUT
        self.signed += 1
        header = bytes((PROTOCOL_VERSION, kind_byte)) + author + _signature(signed)
        sealed = Sealed(hashlib.sha256(signed).digest(), header + (compressed or body))
        opened = Opened(sealed.id, author, message)
        if self.signed % _READ_EVERY == 0 and self._open(sealed.frame, swarm_id) != opened:
            raise AssertionError("a frame does not read as it was sealed")
        self._opened.put(sealed.frame, opened)
        return sealed

    def open_frame(self, frame: bytes, swarm_id: bytes) -> Opened:
        self.verified += 1
        opened = self._opened.get(frame)
        if opened is None:
            opened = self._open(frame, swarm_id)
            self._opened.put(frame, opened)
        return opened

    def read_offers(self, opened: Opened) -> tuple[Offer, ...]:
        """As `admission.offers_of`."""
        known = self._offers.get(id(opened))
        if known is None:
            known = opened, offers_of(opened)
            self._offers.put(id(opened), known)
        return known[1]

    def _open(self, frame: bytes, swarm_id: bytes) -> Opened:
        author, message = envelope.read_unverified(frame)
        signed = envelope.signed_bytes(kind_of(message), swarm_id, author, encode(message))
        if frame[HEADER_BYTES - 64 : HEADER_BYTES] != _signature(signed):
            raise ProtocolError(Reason.BAD_SIGNATURE, "not signed by its author for this swarm")
        return Opened(hashlib.sha256(signed).digest(), author, message)


def _signature(signed: bytes) -> bytes:
    return hashlib.sha512(signed).digest()
