"""A node's one Ed25519 key: it signs rollouts and is the node's identity in the network.

The file holds libp2p's private key protobuf, as p2pd reads it: 0x08 0x01 (key type: Ed25519),
0x12 0x40 (64 bytes of data), then 32 bytes of seed and 32 of public key.
Source: https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md

Whoever has the file is the node; there is no password, as the node must start unattended.
"""

import os
import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path

from nacl.signing import SigningKey

from protocol.names import peer_id
from swarmnode.errors import ConfigError, SwarmNodeError

_PREFIX = bytes((0x08, 0x01, 0x12, 0x40))
_SEED_BYTES = 32
_FILE_BYTES = len(_PREFIX) + 2 * _SEED_BYTES


@dataclass(frozen=True, slots=True)
class Identity:
    """The key pair. `seed` is secret, 32 bytes, and stays out of `repr` and logs."""

    seed: bytes = field(repr=False)
    public_key: bytes
    peer_id: str


def from_seed(seed: bytes) -> Identity:
    """The identity of a 32-byte seed; `ValueError` for another length."""
    if len(seed) != _SEED_BYTES:
        raise ValueError(f"a seed has {_SEED_BYTES} bytes, not {len(seed)}")
    public_key = bytes(SigningKey(seed).verify_key)
    return Identity(seed, public_key, peer_id(public_key))


def load_or_create(path: Path) -> Identity:
    """The identity in `path`, made now when there is no file. Raises as `load` and `create`."""
    return load(path) if path.exists() or path.is_symlink() else create(path)


def create(path: Path) -> Identity:
    """A new identity, written to `path`; `ConfigError` when the file exists."""
    return _write(path, from_seed(secrets.token_bytes(_SEED_BYTES)))


def load(path: Path) -> Identity:
    """The identity in `path`.

    Raises `ConfigError` when it is missing, malformed, or can be read by other users.
    """
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            data = file.read(_FILE_BYTES + 1)
    except FileNotFoundError as error:
        raise ConfigError(
            f"there is no key file {path}: make one with swarmnode keys new"
        ) from error
    except OSError as error:
        raise ConfigError(f"cannot read the key file {path}: {error.strerror}") from error
    if mode & 0o077:
        raise ConfigError(
            f"key file {path} has mode {mode:04o}, so other users can get at it: "
            f"chmod 600 {path}, and make a new key if they may have"
        )
    return _decode(data, f"key file {path}")


def export(path: Path, out: Path) -> None:
    """Copies the key in `path` to the new file `out`, to keep or to move it. Raises as `load`."""
    _write(out, load(path))


def import_key(source: Path, path: Path) -> Identity:
    """Copies an exported key to the new file `path`. Raises as `load` and `create`."""
    return _write(path, load(source))


def _encode(identity: Identity) -> bytes:
    return _PREFIX + identity.seed + identity.public_key


def _decode(data: bytes, source: str) -> Identity:
    if len(data) != _FILE_BYTES or not data.startswith(_PREFIX):
        raise ConfigError(
            f"{source} is not an Ed25519 key in libp2p's format "
            f"({_FILE_BYTES} bytes): restore it from a copy or make a new one"
        )
    seed, public_key = data[len(_PREFIX) :][:_SEED_BYTES], data[-_SEED_BYTES:]
    identity = from_seed(seed)
    # Signing with one key and announcing another leaks the seed to whoever sees two signatures.
    if identity.public_key != public_key:
        raise ConfigError(f"{source} is damaged: its two halves do not belong together")
    return identity


def _write(path: Path, identity: Identity) -> Identity:
    write_secret(path, _encode(identity))
    return identity


def write_secret(path: Path, data: bytes) -> None:
    """Writes a secret to the new file `path`, readable by this user alone.

    First under a name of its own, then linked to `path`: a crash leaves no half key there, and an
    existing file or link is never replaced (`ConfigError`).
    """
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ConfigError(
            f"cannot write the key file {path}: {error.filename} is not a folder; choose another"
        ) from error
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        try:
            # O_EXCL with 0600: nobody else could read it at any moment.
            descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.link(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)
    except FileExistsError as error:
        raise ConfigError(f"{path} exists: choose another file or remove it first") from error
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> SwarmNodeError:
    return SwarmNodeError(f"cannot write the key file {path}: {error.strerror}")
