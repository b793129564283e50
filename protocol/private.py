"""Private swarms (SPEC.md section 12): what a pre-shared key changes, and nothing else.

From the key and the manifest's swarm id follow the id that frames are signed for, the id that
names topics and streams, which any neighbour sees, and the key that every frame is encrypted with.
Who has no key cannot compute where the swarm meets, reads noise, and makes no frame that opens.
"""

import hmac
import secrets
from dataclasses import dataclass, field
from typing import Final

from nacl.exceptions import CryptoError
from nacl.secret import Aead

from protocol.errors import ProtocolError, Reason
from protocol.limits import PROTOCOL_VERSION

KEY_BYTES: Final = 32
# XChaCha20-Poly1305: 24 bytes of nonce in front, 16 of authentication behind. Random nonces of 24
# bytes do not repeat.
OVERHEAD_BYTES: Final = 40
_NONCE_BYTES: Final = 24
_DOMAIN: Final = f"swarmnode/{PROTOCOL_VERSION}/private\0".encode()
# The file format of libp2p's own pre-shared keys, https://github.com/libp2p/specs/tree/master/pnet
_FILE_HEAD: Final = "/key/swarm/psk/1.0.0/\n/base16/\n"


@dataclass(frozen=True, slots=True)
class Names:
    """`network_id` stands in topics and stream names in the swarm id's place, so every node that is
    dialled shows it. `frame_key` stays among the members, like the private swarm id itself."""

    network_id: bytes
    frame_key: bytes = field(repr=False)


def swarm_id(key: bytes, manifest_id: bytes) -> bytes:
    """The id that frames of the private swarm are signed for, from its manifest's swarm id."""
    if len(key) != KEY_BYTES:
        raise ValueError(f"a swarm key has {KEY_BYTES} bytes, not {len(key)}")
    return _derived(key, "id", manifest_id)


def names(key: bytes, swarm_id: bytes) -> Names:
    """What else the members compute, from the private swarm id."""
    return Names(_derived(key, "network", swarm_id), _derived(key, "frames", swarm_id))


def encrypt(frame: bytes, frame_key: bytes) -> bytes:
    """The frame as it travels in a private swarm, OVERHEAD_BYTES longer; different each time."""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return bytes(Aead(frame_key).encrypt(frame, _DOMAIN, nonce))


def decrypt(data: bytes, frame_key: bytes) -> bytes:
    """Inverse of `encrypt`; raises `ProtocolError` bad_signature for what no member made."""
    try:
        return Aead(frame_key).decrypt(data, _DOMAIN)
    except (CryptoError, ValueError) as error:
        raise ProtocolError(Reason.BAD_SIGNATURE, "not encrypted with the swarm's key") from error


def new_key_file() -> str:
    """The text of a file with a new random key."""
    return f"{_FILE_HEAD}{secrets.token_hex(KEY_BYTES)}\n"


def read_key_file(text: str) -> bytes:
    """The key in a file's text; raises `ValueError`, without any of the text in it."""
    head, _, digits = text.rstrip().rpartition("\n")
    if f"{head}\n" != _FILE_HEAD or len(digits) != 2 * KEY_BYTES:
        raise ValueError("it is no swarm key (lines: /key/swarm/psk/1.0.0/, /base16/, 64 digits)")
    try:
        return bytes.fromhex(digits)
    except ValueError:
        raise ValueError("its last line is not hexadecimal") from None


def _derived(key: bytes, purpose: str, id: bytes) -> bytes:
    return hmac.digest(key, f"swarmnode/private/{purpose}\0".encode() + id, "sha256")
