"""Hashes and names that nodes agree on without asking (SPEC.md sections 4 and 8).

Every hash is SHA-256 over a domain string that ends in NUL, so no two uses share an input.
What does not name a version is the same in all versions: nodes of different versions must find
each other to be able to say that they differ.
"""

import functools
import hashlib
from typing import Final, NamedTuple

from protocol.limits import (
    HASH_BYTES,
    PROTOCOL_VERSION,
    PUBLIC_KEY_BYTES,
    TASK_DIGEST_BYTES,
    U32_MAX,
)

HELLO_PROTOCOL: Final = "/swarmnode/hello"

# Shards of the announcements: 1 below some hundred nodes, else a power of two up to this, which
# serves a million nodes. More would only let a liar about the swarm's size isolate nodes further.
MAX_SHARDS: Final = 2**16

_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
# Identity multihash (code 0, length 36) of the protobuf PublicKey{Type: Ed25519, Data: 32 bytes}.
_PEER_ID_PREFIX = bytes((0x00, 0x24, 0x08, 0x01, 0x12, 0x20))
_PEER_ID_BYTES = len(_PEER_ID_PREFIX) + PUBLIC_KEY_BYTES
_PEER_ID_CHARACTERS = 52  # base58 of 38 bytes that start with 0x00 0x24
# Enough to tell swarms apart, and short enough for a DNS label (63 bytes).
_FINGERPRINT_BYTES = 16
# CID version 1, raw codec, SHA-256 multihash of 32 bytes.
_CID_PREFIX = bytes((0x01, 0x55, 0x12, 0x20))


class Shard(NamedTuple):
    """One of `of` parts of the swarm's authors, number 0 to of − 1."""

    of: int
    number: int


WHOLE: Final = Shard(1, 0)  # the only part of a small swarm


def swarm_id(manifest_canonical: bytes) -> bytes:
    """32 bytes that name a swarm: the hash of what its nodes share."""
    return _hash(b"swarmnode/swarm\0", manifest_canonical)


def task_digest(canonical: bytes) -> bytes:
    """4 bytes that name a task: `canonical` holds its name, configuration, generator version."""
    return _hash(b"swarmnode/task\0", canonical)[:TASK_DIGEST_BYTES]


def question_seed(swarm_id: bytes, author: bytes, task_digest: bytes, seed: int) -> int:
    """The generator's seed, 0 to 2**32 − 1, of question number `seed` of `author`.

    Mixed with the author's key, so no author can pick another's question, nor have its own
    question turn up in another's rollouts. It can still skip numbers: SPEC.md section 4.
    """
    _check_length("swarm_id", swarm_id, HASH_BYTES)
    _check_length("author", author, PUBLIC_KEY_BYTES)
    _check_length("task_digest", task_digest, TASK_DIGEST_BYTES)
    if not 0 <= seed <= U32_MAX:
        raise ValueError(f"seed must be 0 to {U32_MAX}, not {seed}")
    number = seed.to_bytes(4, "big")
    digest = _hash(b"swarmnode/question\0", swarm_id + author + task_digest + number)
    return int.from_bytes(digest[:4], "big")


# Authors recur: a node hears the same few hundred every round, at most 1,024, and base58 costs
# 10 µs. More would fill with peers long gone, for weeks.
@functools.lru_cache(maxsize=2**11)
def peer_id(public_key: bytes) -> str:
    """The libp2p peer id ("12D3KooW…") of an Ed25519 public key."""
    _check_length("public_key", public_key, PUBLIC_KEY_BYTES)
    return _base58_encode(_PEER_ID_PREFIX + public_key)


@functools.lru_cache(maxsize=2**11)
def public_key_of(peer_id: str) -> bytes:
    """The Ed25519 public key in a libp2p peer id; `ValueError` if it holds none (RSA, CID form).

    The key is not checked to be a point on the curve: verifying a signature does that.
    """
    if len(peer_id) != _PEER_ID_CHARACTERS:
        raise ValueError("not a base58 peer id of an Ed25519 key")
    raw = _base58_decode(peer_id)
    if len(raw) != _PEER_ID_BYTES or not raw.startswith(_PEER_ID_PREFIX):
        raise ValueError("not a base58 peer id of an Ed25519 key")
    return raw[len(_PEER_ID_PREFIX) :]


def announcement_topic(swarm_id: bytes, shard: Shard = WHOLE) -> str:
    """The GossipSub topic of the announcements of a shard's authors, or of the whole swarm.

    Raises `ValueError` for what is no shard.
    """
    check_shard(shard)
    topic = f"{_swarm_path(swarm_id)}/announcements"
    return topic if shard == WHOLE else f"{topic}/{shard.of}/{shard.number}"


def shard_of_topic(swarm_id: bytes, topic: str) -> Shard:
    """The inverse of `announcement_topic`; `ValueError` for any other text."""
    start = announcement_topic(swarm_id)
    if topic == start:
        return WHOLE
    parts = topic.removeprefix(start + "/").split("/")
    if len(parts) != 2 or not all(part.isdecimal() and len(part) <= 5 for part in parts):
        raise ValueError("not a topic of this swarm")
    shard = Shard(int(parts[0]), int(parts[1]))
    if announcement_topic(swarm_id, shard) != topic:
        raise ValueError("not a topic of this swarm")
    return shard


def check_shard(shard: Shard) -> None:
    """Raises `ValueError` for counts that are no power of two and numbers beyond them."""
    count, number = shard
    if not 1 <= count <= MAX_SHARDS or count & (count - 1) or not 0 <= number < count:
        raise ValueError(f"no shard: number {number} of {count}")


@functools.lru_cache(maxsize=2**11)
def shard_of(author: bytes, count: int) -> Shard:
    """The shard of an author's announcements among `count`, a power of two.

    By the first bits of a hash of its key, so each shard is the union of two of twice the count.
    """
    shard = Shard(count, int.from_bytes(_place(author)[:2], "big") * count >> 16)
    check_shard(shard)
    return shard


@functools.lru_cache(maxsize=2**11)
def rank_of(author: bytes) -> float:
    """Where an author stands among all, from 0 (first) to below 1: independent of its shard."""
    return int.from_bytes(_place(author)[2:8], "big") / 2**48


def fetch_protocol(swarm_id: bytes) -> str:
    """The stream protocol by which a peer's rollouts are fetched."""
    return f"{_swarm_path(swarm_id)}/fetch"


def peers_protocol(swarm_id: bytes) -> str:
    """The stream protocol by which a peer is asked whom else it knows."""
    return f"{_swarm_path(swarm_id)}/peers"


def lan_service(swarm_id: bytes) -> str:
    """The DNS-SD service under which the swarm's nodes find each other on a local network."""
    return f"_p2p-{discovery_key(swarm_id)[:_FINGERPRINT_BYTES].hex()}._udp.local"


def discovery_key(swarm_id: bytes, shard: Shard = WHOLE) -> bytes:
    """32 bytes under which the swarm's nodes provide themselves in a DHT, in any version, or those
    that listen to one shard of it."""
    _check_length("swarm_id", swarm_id, HASH_BYTES)
    check_shard(shard)
    part = b"" if shard == WHOLE else b"/%d/%d" % shard
    return _hash(b"swarmnode/discovery\0", swarm_id + part)


def discovery_cid(swarm_id: bytes, shard: Shard = WHOLE) -> bytes:
    """`discovery_key` as the binary CID that libp2p's content routing asks for (36 bytes)."""
    return _CID_PREFIX + discovery_key(swarm_id, shard)


def _swarm_path(swarm_id: bytes) -> str:
    _check_length("swarm_id", swarm_id, HASH_BYTES)
    return f"/swarmnode/{PROTOCOL_VERSION}/{swarm_id.hex()}"


@functools.lru_cache(maxsize=2**11)
def _place(author: bytes) -> bytes:
    _check_length("author", author, PUBLIC_KEY_BYTES)
    return _hash(b"swarmnode/shard\0", author)


def _hash(domain: bytes, data: bytes) -> bytes:
    return hashlib.sha256(domain + data).digest()


def _check_length(name: str, value: bytes, length: int) -> None:
    if len(value) != length:
        raise ValueError(f"{name} must be {length} bytes, not {len(value)}")


def _base58_encode(data: bytes) -> str:
    number = int.from_bytes(data, "big")
    digits = ""
    while number:
        number, digit = divmod(number, 58)
        digits = _BASE58[digit] + digits
    leading_zeros = len(data) - len(data.lstrip(b"\0"))
    return "1" * leading_zeros + digits


def _base58_decode(text: str) -> bytes:
    number = 0
    for character in text:
        digit = _BASE58.find(character)
        if digit < 0:
            raise ValueError("not base58")
        number = number * 58 + digit
    leading_zeros = len(text) - len(text.lstrip("1"))
    return bytes(leading_zeros) + number.to_bytes((number.bit_length() + 7) // 8, "big")
