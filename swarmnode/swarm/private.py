"""A private swarm's frames: encrypted on their way out, decrypted or dropped on their way in.

Wraps any transport, so that nothing else of the node knows whether its swarm is private. What the
key protects and what not: SPEC.md section 12.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from protocol import private
from protocol.errors import ProtocolError
from protocol.names import WHOLE, Shard
from swarmnode.errors import ConfigError
from swarmnode.swarm.transport import (
    Announced,
    AnyEvent,
    Fetched,
    FetchFailed,
    FetchProblem,
    Transport,
    TransportStatus,
    check_frame,
    check_held,
)

OVERHEAD_BYTES = private.OVERHEAD_BYTES


class PrivateTransport:
    """`Transport` over `inner`, which takes frames that are `OVERHEAD_BYTES` longer."""

    def __init__(self, inner: Transport, frame_key: bytes) -> None:
        self._inner = inner
        self._frame_key = frame_key
        self._unreadable = 0

    def open(self) -> None:
        self._inner.open()

    def listen(self, shards: Sequence[Shard]) -> None:
        self._inner.listen(shards)

    def publish(self, frame: bytes, shard: Shard = WHOLE) -> None:
        check_frame(frame)
        self._inner.publish(private.encrypt(frame, self._frame_key), shard)

    def hold(self, id: bytes, frame: bytes) -> None:
        check_held(id, frame)
        self._inner.hold(id, private.encrypt(frame, self._frame_key))

    def fetch(self, peer: str, ids: Sequence[bytes]) -> None:
        self._inner.fetch(peer, ids)

    def avoid(self, peer: str, seconds: float) -> None:
        self._inner.avoid(peer, seconds)

    def poll(self) -> list[AnyEvent]:
        return [event for event in map(self._decrypted, self._inner.poll()) if event is not None]

    def status(self) -> TransportStatus:
        status = self._inner.status()
        return replace(status, dropped={**status.dropped, "unreadable": self._unreadable})

    def close(self) -> None:
        self._inner.close()

    def _decrypted(self, event: AnyEvent) -> AnyEvent | None:
        """The event with its frame in clear. An announcement that no member made is dropped and
        counted; a fetched frame was asked for, so it fails."""
        try:
            match event:
                case Announced(peer, frame, shard):
                    return Announced(peer, private.decrypt(frame, self._frame_key), shard)
                case Fetched(peer, id, frame, address):
                    return Fetched(peer, id, private.decrypt(frame, self._frame_key), address)
        except ProtocolError as error:
            self._unreadable += 1
            if isinstance(event, Fetched):
                problem = FetchProblem.MALFORMED
                return FetchFailed(event.peer, (event.id,), problem, error.detail)
            return None
        return event


def membership(key_file: str, manifest_id: bytes) -> bytes:
    """The id of the swarm with this manifest: with a key file, of the private one."""
    return private.swarm_id(load_key(Path(key_file)), manifest_id) if key_file else manifest_id


def load_key(path: Path) -> bytes:
    """The pre-shared key in `path`.

    Raises `ConfigError` when it is missing, malformed, or can be read by other users.
    """
    try:
        mode = path.stat().st_mode
        text = path.read_bytes()[:1000].decode("ascii")
    except FileNotFoundError as error:
        raise ConfigError(
            f"there is no swarm key {path}: make one with swarmnode keys swarm --out {path}, once "
            "for the whole swarm, or get it from a member"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the swarm key {path}: {error}") from error
    if mode & 0o077:
        raise ConfigError(
            f"swarm key {path} has mode {mode & 0o777:04o}, so other users can get at it: "
            f"chmod 600 {path}, and make a new one for the swarm if they may have"
        )
    try:
        return private.read_key_file(text)
    except ValueError as error:
        raise ConfigError(f"swarm key {path}: {error}") from error
