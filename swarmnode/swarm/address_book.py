"""The peers that this node was connected to, kept on disk for its next start.

A book holds a bounded number of peers with a few addresses each. What it reads may have been
written by anyone: it is taken for a list of addresses worth dialling, and nothing more.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from protocol.limits import MAX_ADDRESS_BYTES
from swarmnode.swarm.reach import split

MAX_PEERS = 64  # a node looks for 16; the rest replaces those that left
MAX_ADDRESSES = 4  # of one peer
_MAX_FILE_BYTES = 256 * 1024  # 64 peers with four addresses of 255 bytes each are 70 KB
# Failed dials in a row after which a peer is forgotten: a quarter of an hour, so that the halves of
# a swarm that was cut in two still know each other. They count only while some other peer is
# connected: alone, it may be this node's own network that is down.
_MAX_FAILURES = 24
# Between dials of one peer that fails; the last bounds how long halves take to meet again.
_FIRST_PAUSE_S, _MAX_PAUSE_S, _LAST_PAUSE_S = 2.0, 15.0, 45.0
_FEW_FAILURES = 8  # above which the last pause is kept

_Address = Annotated[str, Meta(max_length=MAX_ADDRESS_BYTES)]


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    """`addresses` are without /p2p/; `seen` is when the peer was last connected, Unix seconds."""

    addresses: Annotated[list[_Address], Meta(min_length=1, max_length=MAX_ADDRESSES)]
    seen: Annotated[float, Meta(ge=0)]
    failures: Annotated[int, Meta(ge=0, le=1000)] = 0


class _File(msgspec.Struct, forbid_unknown_fields=True):
    version: Annotated[int, Meta(ge=1, le=1)]
    peers: dict[Annotated[str, Meta(max_length=64)], _Entry]


@dataclass(frozen=True, slots=True)
class Known:
    """A peer that was connected once, and where."""

    peer: str
    addresses: tuple[str, ...]


class AddressBook:
    """The book in `path`; without a path it is kept in memory only. Times are Unix seconds."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._entries: dict[str, _Entry] = {}
        self._next_try: dict[str, float] = {}
        self._is_changed = False

    def __len__(self) -> int:
        return len(self._entries)

    def load(self, now: float) -> str:
        """Reads the file; returns what was wrong with it in one line, "" when nothing was.

        What is wrong costs the file's content, never the start.
        """
        if self._path is None or not self._path.exists():
            return ""
        try:
            with self._path.open("rb") as file:
                data = file.read(_MAX_FILE_BYTES + 1)
            if len(data) > _MAX_FILE_BYTES:
                return f"{self._path} is larger than {_MAX_FILE_BYTES} bytes and is not used"
            found = msgspec.json.decode(data, type=_File)
        except OSError as error:
            return f"cannot read {self._path}: {error.strerror}"
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return f"{self._path} is damaged and is not used: {str(error)[:200]}"
        for peer, entry in found.peers.items():
            entry.addresses = [a for a in entry.addresses if split(f"{a}/p2p/{peer}")]
            entry.seen = min(entry.seen, now)
            if entry.addresses:
                self._entries[peer] = entry
        self._trim()
        return ""

    def save(self) -> str:
        """Replaces the file if there is something new; returns why it could not, else ""."""
        if self._path is None or not self._is_changed:
            return ""
        unfinished = self._path.with_name(f".{self._path.name}.new")
        try:
            descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.encode(_File(1, self._entries)))
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, self._path)
        except OSError as error:
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)
            return f"cannot write {self._path}: {error.strerror}"
        self._is_changed = False
        return ""

    def connected(self, peer: str, addresses: Sequence[str], now: float) -> None:
        """Notes that `peer` is connected and where it can be dialled; the newest addresses win."""
        known = self._entries.get(peer)
        fresh = [a for a in addresses if len(a) <= MAX_ADDRESS_BYTES]
        merged = list(dict.fromkeys([*fresh, *(known.addresses if known else ())]))[:MAX_ADDRESSES]
        if merged:
            self._entries[peer] = _Entry(merged, now)
            self._next_try.pop(peer, None)
            self._is_changed = True
            self._trim()

    def failed(self, peer: str, now: float, *, is_alone: bool) -> None:
        """Notes that `peer` could not be dialled."""
        entry = self._entries.get(peer)
        if entry is None:
            return
        entry.failures += not is_alone
        tries = entry.failures + (peer in self._next_try)
        most = _MAX_PAUSE_S if entry.failures <= _FEW_FAILURES else _LAST_PAUSE_S
        self._next_try[peer] = now + min(most, _FIRST_PAUSE_S * 2 ** min(tries, 16))
        self._is_changed = True
        if entry.failures >= _MAX_FAILURES:
            self._forget(peer)

    def due(self, now: float) -> list[Known]:
        """The peers that may be dialled now, those connected last first."""
        ready = [
            (entry.failures, -entry.seen, peer)
            for peer, entry in self._entries.items()
            if self._next_try.get(peer, 0.0) <= now
        ]
        return [Known(peer, tuple(self._entries[peer].addresses)) for _, _, peer in sorted(ready)]

    def addresses(self, peer: str) -> tuple[str, ...]:
        """Where the peer was last found."""
        entry = self._entries.get(peer)
        return tuple(entry.addresses) if entry else ()

    def _trim(self) -> None:
        """Forgets, above the limit, those that failed most, then those seen longest ago."""
        while len(self._entries) > MAX_PEERS:
            self._forget(min(self._entries, key=lambda p: (-self._entries[p].failures,
                                                           self._entries[p].seen)))  # fmt: skip

    def _forget(self, peer: str) -> None:
        del self._entries[peer]
        self._next_try.pop(peer, None)
        self._is_changed = True
