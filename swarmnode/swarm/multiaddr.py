"""libp2p addresses and peer ids, text to binary and back: the daemon speaks binary, people text.

Only what nodes of a swarm use is known here (IP, DNS, TCP, QUIC, relays); an address with any
other part is not an error of its sender but unusable, and callers skip it.
Source: the multiaddr specification and its protocol table, https://github.com/multiformats/multiaddr
"""

import ipaddress
from collections.abc import Callable
from pathlib import Path

from swarmnode.errors import ConfigError

_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"  # base58, Bitcoin's order
_Encode = Callable[[str], bytes]
_Decode = Callable[[bytes], str]
_MAX_TEXT = 512  # characters; a relayed address with DNS name and two peer ids has about 250
MAX_PEER_ID_BYTES = 42  # the longest that libp2p allows: an inlined key or a SHA-256 multihash


def peer_id_text(raw: bytes) -> str:
    """Base58 text of a binary peer id, as people see it (`12D3KooW…`)."""
    number = int.from_bytes(raw)
    digits = []
    while number:
        number, digit = divmod(number, 58)
        digits.append(_ALPHABET[digit])
    zeros = len(raw) - len(raw.lstrip(b"\0"))
    return "1" * zeros + "".join(reversed(digits))


def peer_id_bytes(text: str) -> bytes:
    """Inverse of `peer_id_text`; raises `ValueError` for what cannot be a peer id."""
    if not 0 < len(text) <= 64:
        raise ValueError("a peer id has 1-64 characters")
    number = 0
    for character in text:
        digit = _ALPHABET.find(character)
        if digit < 0:
            raise ValueError(f"{character!r} cannot be part of a peer id")
        number = number * 58 + digit
    zeros = len(text) - len(text.lstrip("1"))
    return _checked_id(b"\0" * zeros + number.to_bytes((number.bit_length() + 7) // 8))


def to_binary(text: str) -> bytes:
    """Binary form of a textual address; raises `ValueError` naming the part that is wrong."""
    if len(text) > _MAX_TEXT or not text.startswith("/"):
        raise ValueError("an address starts with / and has at most 512 characters")
    parts = iter(text[1:].split("/"))
    binary = bytearray()
    for name in parts:
        if name not in _PARTS:
            raise ValueError(f"unknown part /{name}")
        code, length, encode, _ = _PARTS[name]
        binary += varint(code)
        if length == 0:
            continue
        try:
            value = encode(next(parts))
        except StopIteration:
            raise ValueError(f"/{name} needs a value") from None
        binary += (varint(len(value)) if length < 0 else b"") + value
    return bytes(binary)


def to_text(binary: bytes) -> str | None:
    """Text of a binary address, or None for one that this node has no use for."""
    text, position = "", 0
    try:
        while position < len(binary):
            code, position = read_varint(binary, position)
            name = _NAMES[code]
            _, length, _, decode = _PARTS[name]
            if length < 0:
                length, position = read_varint(binary, position)
            value = binary[position : position + length]
            if len(value) < length:
                return None
            position += length
            text += f"/{name}" + (f"/{decode(value)}" if length else "")
    except (KeyError, ValueError):
        return None
    return text if len(text) <= _MAX_TEXT else None


def unix_to_binary(path: Path) -> bytes:
    """Binary address of a Unix socket, /unix/<path>, which only a daemon on this machine sees."""
    value = str(path).encode()
    return varint(400) + varint(len(value)) + value


def split_peer(text: str, name: str = "peer") -> tuple[str, str]:
    """A user's peer address as (address without its end, peer id).

    Raises `ConfigError` with one line that says what is wrong with it; `name` is where the user
    wrote it.
    """
    address, found, peer = text.rpartition("/p2p/")
    example = "/ip4/203.0.113.7/tcp/4001/p2p/12D3KooW…"
    if not found or not address:
        raise ConfigError(
            f"{name} {text[:200]!r} does not end in /p2p/<peer id>: write it as {example}"
        )
    try:
        peer_id_bytes(peer)
        to_binary(address)
    except ValueError as error:
        raise ConfigError(f"{name} {text[:200]!r}: {error}: write it as {example}") from error
    return address, peer


def check_announced(text: str, name: str = "announce") -> None:
    """Raises `ConfigError` for what a user cannot have peers told, with one line on why; `name` is
    where the user wrote it."""
    try:
        if "/p2p/" in text:
            raise ValueError("it is told without /p2p/")
        to_binary(text)
    except ValueError as error:
        raise ConfigError(
            f"{name} {text[:200]!r}: {error}: write it as /ip4/203.0.113.7/tcp/4001"
        ) from error


def tcp_endpoint(address: str) -> tuple[str, int] | None:
    """(host, port) when `address` is plain TCP, else None."""
    parts = address.split("/")
    if len(parts) == 5 and parts[1] in ("ip4", "ip6", "dns", "dns4", "dns6") and parts[3] == "tcp":
        return parts[2], int(parts[4])
    return None


def with_quic(addresses: list[str]) -> list[str]:
    """The addresses, each plain TCP one followed by QUIC's on the same port, where nodes on p2pd
    listen, too. Not on loopback, where TCP costs less and there is no NAT.

    >>> with_quic(["/ip4/1.2.3.4/tcp/5", "/ip4/127.0.0.1/tcp/5"])
    ['/ip4/1.2.3.4/tcp/5', '/ip4/1.2.3.4/udp/5/quic-v1', '/ip4/127.0.0.1/tcp/5']
    """
    found: list[str] = []
    for address in addresses:
        found.append(address)
        endpoint = tcp_endpoint(address)
        if endpoint is not None and not endpoint[0].startswith(("127.", "::1", "localhost")):
            found.append(address.replace("/tcp/", "/udp/") + "/quic-v1")
    return list(dict.fromkeys(found))


def varint(number: int) -> bytes:
    """Unsigned LEB128, seven bits a byte, as multiaddr and protobuf use it."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def read_varint(data: bytes, position: int) -> tuple[int, int]:
    """(number, position after it); raises `ValueError` when cut short or above 35 bits."""
    number = 0
    for shift in range(0, 35, 7):
        if position >= len(data):
            raise ValueError("varint cut short")
        byte = data[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, position
    raise ValueError("varint too long")


def _checked_id(raw: bytes) -> bytes:
    # An inlined Ed25519 key (0x00) or a SHA-256 multihash (0x12), each followed by its length.
    if not 3 <= len(raw) <= MAX_PEER_ID_BYTES or raw[0] not in (0, 0x12) or raw[1] != len(raw) - 2:
        raise ValueError("this is no libp2p peer id")
    return raw


def _encode_port(text: str) -> bytes:
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise ValueError(f"{text!r} is no port")
    return int(text).to_bytes(2)


def _encode_dns(text: str) -> bytes:
    if not text:
        raise ValueError("empty host name")
    return text.encode("idna")


def _decode_dns(value: bytes) -> str:
    name = value.decode("ascii")
    if not name or not all(c.isalnum() or c in ".-_" for c in name):
        raise ValueError("not a host name")
    return name


def _ip(kind: type[ipaddress.IPv4Address] | type[ipaddress.IPv6Address]) -> tuple[_Encode, _Decode]:
    return (lambda text: kind(text).packed, lambda value: str(kind(value)))


def _decode_port(value: bytes) -> str:
    return str(int.from_bytes(value))


_DNS = (_encode_dns, _decode_dns)
_PORT = (_encode_port, _decode_port)
_NONE = (lambda text: b"", lambda value: "")
# name: (code in the protocol table, bytes of the value or -1 for length-prefixed, encode, decode)
_PARTS: dict[str, tuple[int, int, _Encode, _Decode]] = {
    "ip4": (4, 4, *_ip(ipaddress.IPv4Address)),
    "ip6": (41, 16, *_ip(ipaddress.IPv6Address)),
    "dns": (53, -1, *_DNS),
    "dns4": (54, -1, *_DNS),
    "dns6": (55, -1, *_DNS),
    "dnsaddr": (56, -1, *_DNS),
    "tcp": (6, 2, *_PORT),
    "udp": (273, 2, *_PORT),
    "quic-v1": (461, 0, *_NONE),
    "p2p": (421, -1, peer_id_bytes, lambda value: peer_id_text(_checked_id(value))),
    "p2p-circuit": (290, 0, *_NONE),
}
_NAMES = {code: name for name, (code, *_) in _PARTS.items()}
