"""Multicast DNS packets, as far as finding peers on a local network needs them. Pure.

Asks for a service and answers with addresses in TXT records, by libp2p's convention. A packet comes
from anyone on the network: sizes, counts and pointers are bounded, and what does not parse is
nothing.
Source: RFC 1035 section 4, RFC 6762, https://github.com/libp2p/specs/blob/master/discovery/mdns.md
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass

GROUP, PORT = "224.0.0.251", 5353
MAX_PACKET_BYTES = 9000  # RFC 6762 section 17
_MAX_RECORDS = 64
_MAX_NAME_BYTES = 255
_MAX_JUMPS = 16  # of compression pointers in one name
_MAX_ADDRESSES = 8
_PTR, _TXT, _ANY = 12, 16, 255
_IN = 1
_TOP_BIT = 0x8000  # in a class: unicast answer wanted (question), cache flush (record)
_RESPONSE = 0x8400  # flags: an authoritative answer
_TTL_S = 120
_HEADER = struct.Struct("!6H")
_FIXED = struct.Struct("!HHIH")  # of a record: type, class, TTL, length of the data
_KEY = b"dnsaddr="


@dataclass(frozen=True, slots=True)
class Asked:
    """Somebody looks for the service."""


@dataclass(frozen=True, slots=True)
class Told:
    """Somebody has the service: multiaddresses, as written."""

    addresses: tuple[str, ...]


def question(service: str) -> bytes:
    """The packet that asks who has `service`."""
    return _HEADER.pack(0, 0, 1, 0, 0, 0) + _name(service) + struct.pack("!HH", _PTR, _IN)


def answer(service: str, instance: str, addresses: Iterable[str]) -> bytes:
    """The packet that says that `instance`, a label of ours, has it at these multiaddresses."""
    full = _name(f"{instance}.{service}")
    texts = [_KEY + address.encode() for address in addresses][:_MAX_ADDRESSES]
    data = b"".join(bytes((len(text),)) + text for text in texts if len(text) < 256)
    records = _record(_name(service), _PTR, full) + _record(full, _TXT, data)
    return _HEADER.pack(0, _RESPONSE, 0, 1, 0, 1) + records


def parse(packet: bytes, service: str) -> Asked | Told | None:
    """What a packet says about `service`; None when nothing, or when it is malformed."""
    if len(packet) > MAX_PACKET_BYTES:
        return None
    try:
        return _parse(packet, _folded(_name(service)))
    except (struct.error, IndexError, ValueError):
        return None


def _parse(packet: bytes, service: bytes) -> Asked | Told | None:
    _, flags, questions, *counts = _HEADER.unpack_from(packet)
    if questions + sum(counts) > _MAX_RECORDS:
        return None
    at, asks = _HEADER.size, False
    for _ in range(questions):
        name, at = _read_name(packet, at)
        kind, of_class = struct.unpack_from("!HH", packet, at)
        at += 4
        asks |= name == service and kind in (_PTR, _ANY) and of_class & ~_TOP_BIT == _IN
    if not flags & 0x8000:
        return Asked() if asks else None
    texts: list[str] = []
    for _ in range(sum(counts)):
        name, at = _read_name(packet, at)
        kind, _, _, length = _FIXED.unpack_from(packet, at)
        at += _FIXED.size
        if at + length > len(packet):
            return None
        if kind == _TXT and name.endswith(service) and name != service:
            texts += _addresses(packet[at : at + length])
        at += length
    return Told(tuple(texts[:_MAX_ADDRESSES])) if texts else None


def _addresses(data: bytes) -> list[str]:
    found = []
    while data:
        text, data = data[1 : 1 + data[0]], data[1 + data[0] :]
        if text.startswith(_KEY):
            found.append(text.removeprefix(_KEY).decode("ascii"))
    return found


def _record(name: bytes, kind: int, data: bytes) -> bytes:
    return name + _FIXED.pack(kind, _IN, _TTL_S, len(data)) + data


def _name(text: str) -> bytes:
    labels = [label.encode("ascii") for label in text.split(".")]
    if any(not 0 < len(label) < 64 for label in labels):
        raise ValueError(f"{text!r} is no domain name")
    return b"".join(bytes((len(label),)) + label for label in labels) + b"\0"


def _read_name(packet: bytes, at: int) -> tuple[bytes, int]:
    """(the name at `at` without pointers, in lower case; where what follows begins)."""
    name, after, jumps = b"", 0, 0
    while True:
        length = packet[at]
        if length >= 0xC0:
            after = after or at + 2
            at = int.from_bytes(packet[at : at + 2]) & 0x3FFF
            jumps += 1
        elif length >= 0x40:
            raise ValueError("a label of a kind that nobody uses")
        else:
            name += packet[at : at + 1 + length]
            at += 1 + length
        if jumps > _MAX_JUMPS or len(name) > _MAX_NAME_BYTES:
            raise ValueError("a name without end")
        if length == 0:
            return _folded(name), after or at


def _folded(name: bytes) -> bytes:
    """ASCII letters in lower case, as DNS compares names; lengths, below 64, are no letters."""
    return name.lower()
