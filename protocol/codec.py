"""Messages to canonical bytes and back, and what streams carry (SPEC.md sections 5 and 7).

Pure functions over bytes. A stream adapter reads blocks: BLOCK_HEADER_BYTES of header, then
`block_length(header, limit)` bytes. A fetch is one block of request and, per requested id, one
block of response, so the adapter never holds more than one frame that it has not asked for.

    hello     →  encode_block(encode_hello(ours))        ←  the same from the other side
    peers     →  encode_block(b"")                       ←  encode_block(encode_peers(addresses))
    fetch     →  encode_block(encode_fetch_request(ids))
              ←  len(ids) blocks, each a frame or empty ("not held")
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import Meta

from protocol.errors import ProtocolError, Reason
from protocol.limits import (
    BLOCK_HEADER_BYTES,
    HASH_BYTES,
    MAX_ADDRESS_BYTES,
    MAX_FETCH_IDS,
    MAX_FETCH_REQUEST_BYTES,
    MAX_FETCH_RESPONSE_BYTES,
    MAX_FRAME_BYTES,
    MAX_HELLO_BYTES,
    MAX_PEER_ADDRESSES,
    MAX_PEERS_BYTES,
)
from protocol.messages import Announcement, Hello, Kind, M, Rollout, violation

T = TypeVar("T")

_ENCODE: Final = msgspec.msgpack.Encoder().encode
_DECODE_HELLO: Final = msgspec.msgpack.Decoder(Hello).decode
_DECODE_PEERS: Final = msgspec.msgpack.Decoder(
    Annotated[
        list[Annotated[str, Meta(max_length=MAX_ADDRESS_BYTES)]],
        Meta(max_length=MAX_PEER_ADDRESSES),
    ]
).decode
_DECODE: Final[dict[Kind, Callable[[bytes], Rollout | Announcement]]] = {
    Kind.ROLLOUT: msgspec.msgpack.Decoder(Rollout).decode,
    Kind.ANNOUNCEMENT: msgspec.msgpack.Decoder(Announcement).decode,
}


def kind_of(message: Rollout | Announcement) -> Kind:
    """The kind byte of a message that travels in a frame."""
    return Kind.ROLLOUT if type(message) is Rollout else Kind.ANNOUNCEMENT


def encode(message: Rollout | Announcement) -> bytes:
    """The one canonical body of a message: shortest forms, fields in order."""
    return _ENCODE(message)


def decode(kind: Kind, body: bytes) -> Rollout | Announcement:
    """The message in a body whose signature and size the caller has checked.

    Raises `ProtocolError`: malformed, then not_canonical, then out_of_bounds.
    """
    message = _parse(_DECODE[kind], body)
    if encode(message) != body:
        raise ProtocolError(Reason.NOT_CANONICAL, "re-encoding gives other bytes")
    return _within_bounds(message)


def encode_hello(hello: Hello) -> bytes:
    """The greeting, without the block's length in front."""
    return _ENCODE(hello)


def decode_hello(data: bytes) -> Hello:
    """The peer's greeting; fields that a later version appended are skipped.

    Raises `ProtocolError`: too_large, malformed, out_of_bounds. Canonical form is not asked for:
    a greeting is neither signed nor hashed.
    """
    if len(data) > MAX_HELLO_BYTES:
        raise ProtocolError(Reason.TOO_LARGE, f"greeting of {len(data)} bytes")
    return _within_bounds(_parse(_DECODE_HELLO, data))


def encode_peers(addresses: Sequence[str]) -> bytes:
    """An answer with these addresses; `ValueError` for more, or longer ones, than a peer takes."""
    answer = _ENCODE(list(addresses))
    try:
        decode_peers(answer)
    except ProtocolError as error:
        raise ValueError(f"no valid list of addresses: {error}") from error
    return answer


def decode_peers(data: bytes) -> tuple[str, ...]:
    """The addresses that a peer knows, as it wrote them; nothing says that they are addresses.

    Raises `ProtocolError`: too_large, malformed, out_of_bounds.
    """
    if len(data) > MAX_PEERS_BYTES:
        raise ProtocolError(Reason.TOO_LARGE, f"list of peers of {len(data)} bytes")
    addresses = _parse(_DECODE_PEERS, data)
    if any(not address.isascii() or not address.isprintable() for address in addresses):
        raise ProtocolError(Reason.OUT_OF_BOUNDS, "an address is not printable ASCII")
    return tuple(addresses)


def encode_block(data: bytes) -> bytes:
    """`data` with its length in front, as it goes onto a stream."""
    return len(data).to_bytes(BLOCK_HEADER_BYTES, "big") + data


def block_length(header: bytes, limit_bytes: int) -> int:
    """How many bytes follow the BLOCK_HEADER_BYTES of `header`.

    Raises `ProtocolError` too_large above `limit_bytes`, before a byte of the block is read.
    """
    if len(header) != BLOCK_HEADER_BYTES:
        raise ProtocolError(Reason.MALFORMED, "the stream ended inside a block's header")
    length = int.from_bytes(header, "big")
    if length > limit_bytes:
        raise ProtocolError(Reason.TOO_LARGE, f"block of {length} bytes, limit {limit_bytes}")
    return length


def encode_fetch_request(ids: Sequence[bytes]) -> bytes:
    """The ids of a request, one after the other; `ValueError` for what the peer would refuse."""
    request = b"".join(ids)
    try:
        decoded = decode_fetch_request(request)
    except ProtocolError as error:
        raise ValueError(f"no valid fetch request: {error}") from error
    if list(decoded) != list(ids):
        raise ValueError(f"an id is not {HASH_BYTES} bytes")
    return request


def decode_fetch_request(data: bytes) -> tuple[bytes, ...]:
    """The requested ids, 1 to MAX_FETCH_IDS, distinct, in the order of the answer.

    Raises `ProtocolError`: too_large, malformed, out_of_bounds.
    """
    if len(data) > MAX_FETCH_REQUEST_BYTES:
        raise ProtocolError(Reason.TOO_LARGE, f"request for more than {MAX_FETCH_IDS} ids")
    if not data or len(data) % HASH_BYTES:
        raise ProtocolError(Reason.MALFORMED, "request is not a list of ids")
    ids = tuple(data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES))
    if len(set(ids)) != len(ids):
        raise ProtocolError(Reason.OUT_OF_BOUNDS, "an id is requested twice")
    return ids


def encode_fetch_response(frames: Sequence[bytes | None]) -> bytes:
    """The blocks of a response: per requested id, in its order, the frame or None if not held."""
    return b"".join(encode_block(frame or b"") for frame in frames)


def decode_fetch_response(data: bytes, count: int) -> tuple[bytes | None, ...]:
    """The `count` frames of a whole response, None for each that the peer does not hold.

    For transports that hand over whole messages; on a stream use `block_length` with
    MAX_FRAME_BYTES. The frames are not opened. Raises `ProtocolError`: too_large, malformed.
    """
    if len(data) > MAX_FETCH_RESPONSE_BYTES:
        raise ProtocolError(Reason.TOO_LARGE, f"response of {len(data)} bytes")
    frames: list[bytes | None] = []
    at = 0
    for _ in range(count):
        length = block_length(data[at : at + BLOCK_HEADER_BYTES], MAX_FRAME_BYTES)
        at += BLOCK_HEADER_BYTES
        if at + length > len(data):
            raise ProtocolError(Reason.MALFORMED, "the response ended inside a frame")
        frames.append(data[at : at + length] or None)
        at += length
    if at != len(data):
        raise ProtocolError(Reason.MALFORMED, "bytes after the last frame")
    return tuple(frames)


def _parse(decoder: Callable[[bytes], T], data: bytes) -> T:
    """The only place where a stranger's bytes are parsed: whatever they cause becomes malformed."""
    try:
        return decoder(data)
    except (
        msgspec.DecodeError,  # includes ValidationError: wrong type, width, count
        UnicodeDecodeError,
        RecursionError,
        OverflowError,
        MemoryError,
    ) as error:
        # The decoder's words name types and places ("Expected `int`, got `str` - at `$[1]`").
        detail = str(error) if isinstance(error, msgspec.DecodeError) else type(error).__name__
        raise ProtocolError(Reason.MALFORMED, detail) from error


def _within_bounds(message: M) -> M:
    if problem := violation(message):
        raise ProtocolError(Reason.OUT_OF_BOUNDS, problem)
    return message
