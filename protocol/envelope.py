"""Signed frames (SPEC.md section 6): what is sealed here can be opened only in the same swarm.

    version u8 | kind u8 | author 32 bytes | signature 64 bytes | body

The signature covers domain ‖ swarm id ‖ author ‖ body, where the domain names version and kind; the
id is the SHA-256 of those bytes. So a frame of another swarm, kind or version does not verify, and
whoever signs the same body twice makes one id. A rollout's body may travel compressed, which a kind
byte of its own says; signature and id are made from the body before that, so they do not depend on
the compressor. A frame is stored and passed on as it was received: nothing is encoded again.
"""

import hashlib
from dataclasses import dataclass
from typing import Final

from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from protocol.codec import decode, encode, kind_of
from protocol.compression import compress, decompress
from protocol.errors import ProtocolError, Reason
from protocol.limits import (
    HASH_BYTES,
    HEADER_BYTES,
    MAX_ANNOUNCEMENT_BYTES,
    MAX_FRAME_BYTES,
    MAX_ROLLOUT_BODY_BYTES,
    PROTOCOL_VERSION,
    PUBLIC_KEY_BYTES,
    SIGNATURE_BYTES,
)
from protocol.messages import Announcement, Kind, Rollout

_MAX_BYTES: Final = {Kind.ROLLOUT: MAX_FRAME_BYTES, Kind.ANNOUNCEMENT: MAX_ANNOUNCEMENT_BYTES}
# The second byte of a frame that holds a rollout with a compressed body; else it is the `Kind`.
COMPRESSED_ROLLOUT: Final = 3
AUTHOR: Final = slice(2, 2 + PUBLIC_KEY_BYTES)
_SIGNATURE: Final = slice(2 + PUBLIC_KEY_BYTES, HEADER_BYTES)


@dataclass(frozen=True, slots=True)
class Sealed:
    """A frame of our own, ready to be announced and sent."""

    id: bytes
    frame: bytes


@dataclass(frozen=True, slots=True)
class Opened:
    """A peer's frame that passed every check that needs no knowledge beyond its bytes."""

    id: bytes
    author: bytes
    message: Announcement | Rollout


def seal(message: Announcement | Rollout, signing_key: bytes, swarm_id: bytes) -> Sealed:
    """The frame of `message`, signed with the 32-byte Ed25519 seed `signing_key`.

    A rollout's body is compressed where that pays. The id is the same either way; the frame's
    bytes can differ from one release of the compressor to another.

    Raises `ValueError` for a message that peers would refuse; `Rollout.build` and
    `Announcement.build` make none.
    """
    kind, body = kind_of(message), encode(message)
    try:
        decode(kind, body)
    except ProtocolError as error:
        raise ValueError(f"peers would refuse this message: {error}") from error
    key = SigningKey(signing_key)
    author = bytes(key.verify_key)
    signed = signed_bytes(kind, swarm_id, author, body)
    compressed = compress(body) if kind is Kind.ROLLOUT else None
    kind_byte = kind if compressed is None else COMPRESSED_ROLLOUT
    header = bytes((PROTOCOL_VERSION, kind_byte)) + author + key.sign(signed).signature
    return Sealed(hashlib.sha256(signed).digest(), header + (compressed or body))


def open_frame(frame: bytes, swarm_id: bytes) -> Opened:
    """The message in a frame, its author and id. Cheap checks first; raises only `ProtocolError`.

    In order: size, version, kind, decompress, signature, decode, canonical form, bounds.
    """
    kind, author, body = _parts(frame)
    # As the library wants it, so that it makes no copy of its own: 130 bytes can swell to the
    # largest body, and every copy of that counts.
    signed = frame[_SIGNATURE] + signed_bytes(kind, swarm_id, author, body)
    try:
        VerifyKey(author).verify(signed)
    except BadSignatureError as error:
        raise ProtocolError(
            Reason.BAD_SIGNATURE, "not signed by its author for this swarm"
        ) from error
    id = hashlib.sha256(memoryview(signed)[SIGNATURE_BYTES:]).digest()
    return Opened(id, author, decode(kind, body))


def read_unverified(frame: bytes) -> tuple[bytes, Announcement | Rollout]:
    """Who a frame says wrote it, and its message; the signature is *not* checked, which takes the
    swarm. To show a frame to a person, never to act on it. Raises only `ProtocolError`.
    """
    kind, author, body = _parts(frame)
    return author, decode(kind, body)


def signed_bytes(kind: Kind, swarm_id: bytes, author: bytes, body: bytes) -> bytes:
    """The bytes under the signature, whose SHA-256 is the id."""
    if len(swarm_id) != HASH_BYTES:
        raise ValueError(f"swarm_id must be {HASH_BYTES} bytes, not {len(swarm_id)}")
    # The NUL ends the domain, so none is the beginning of another.
    domain = f"swarmnode/{PROTOCOL_VERSION}/{kind.name.lower()}\0".encode()
    return domain + swarm_id + author + body


def _parts(frame: bytes) -> tuple[Kind, bytes, bytes]:
    """Kind, author and body, the body as it was signed."""
    kind, body = _check_header(frame), frame[HEADER_BYTES:]
    if frame[1] == COMPRESSED_ROLLOUT:
        body = decompress(body, MAX_ROLLOUT_BODY_BYTES)
    return kind, frame[AUTHOR], body


def _check_header(frame: bytes) -> Kind:
    """What the frame holds, after all checks that need only its header and size."""
    if len(frame) > MAX_FRAME_BYTES:
        raise ProtocolError(Reason.TOO_LARGE, f"frame of {len(frame)} bytes")
    if len(frame) < 2:
        raise ProtocolError(Reason.MALFORMED, "frame without version and kind")
    version, kind_byte = frame[0], frame[1]
    if version != PROTOCOL_VERSION:  # before the length: another version has another header
        raise ProtocolError(Reason.WRONG_VERSION, f"version {version}, not {PROTOCOL_VERSION}")
    if kind_byte != COMPRESSED_ROLLOUT and kind_byte not in Kind._value2member_map_:
        raise ProtocolError(Reason.UNKNOWN_KIND, f"kind {kind_byte}")
    kind = Kind.ROLLOUT if kind_byte == COMPRESSED_ROLLOUT else Kind(kind_byte)
    if len(frame) > _MAX_BYTES[kind]:
        raise ProtocolError(Reason.TOO_LARGE, f"{kind.name.lower()} of {len(frame)} bytes")
    if len(frame) <= HEADER_BYTES:
        raise ProtocolError(Reason.MALFORMED, "frame without a body")
    return kind
