"""Bombs: small or lying inputs that would cost a careless reader time or memory.

    python tests/adversary/bombs.py        a table of every bomb

Each is refused, in less than 10 ms of processor time and with less than 4 times its bytes on the
wire plus 1 MiB. Time is the best of a few tries without tracing; memory is the peak that
`tracemalloc` sees, which counts what Python and zstandard's Python objects allocate, and, for the
decompressor's own memory, the growth of the process's peak resident size in a process that does
nothing else (`--resident NAME`).
"""

import resource
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgpack
import zstandard
from figures import Figure, figure, show
from nacl.signing import SigningKey

from protocol import codec, envelope, private
from protocol.compression import compress
from protocol.envelope import COMPRESSED_ROLLOUT, open_frame
from protocol.errors import ProtocolError
from protocol.limits import (
    BLOCK_HEADER_BYTES,
    HEADER_BYTES,
    MAX_ANNOUNCEMENT_BYTES,
    MAX_FETCH_RESPONSE_BYTES,
    MAX_FRAME_BYTES,
    MAX_HELLO_BYTES,
    MAX_PEERS_BYTES,
    MAX_ROLLOUT_BODY_BYTES,
    PROTOCOL_VERSION,
)
from protocol.messages import Kind
from swarmnode.swarm import mdns, multiaddr
from swarmnode.tasks import answer, compare

MAX_MS = 10.0
SWARM = bytes(range(32))
_KEY = SigningKey(bytes([3]) * 32)
_AUTHOR = bytes(_KEY.verify_key)
_MAGIC = b"\x28\xb5\x2f\xfd"
_BODY_BYTES = MAX_FRAME_BYTES - HEADER_BYTES


class Taken(AssertionError):
    """A bomb that was taken for a message."""


@dataclass(frozen=True)
class Bomb:
    """Bytes, and who reads them: raises `ProtocolError` or returns None, which is a refusal."""

    data: bytes
    reader: Callable[[bytes], object]


def bombs() -> dict[str, Bomb]:
    """Every bomb by its name."""
    made = {name: Bomb(data, _frame) for name, data in _frames().items()}
    made |= {f"body: {name}": Bomb(_signed(body), _frame) for name, body in _bodies().items()}
    made |= {f"zstd: {name}": Bomb(_zstd(body), _frame) for name, body in _compressed().items()}
    for name, body in _bodies().items():
        if (smaller := compress(body)) is not None:
            made[f"zstd, signed: {name}"] = Bomb(_compressed_frame(_signed(body), smaller), _frame)
    return made | _streams() | _texts()


def measure(short: bool) -> list[Figure]:
    """The slowest bomb and the hungriest, as a ratio to what it may use."""
    tries = 3 if short else 9
    made = bombs()
    costs = {name: _cost(bomb, tries) for name, bomb in made.items()}
    if not short:
        names = [name for name in made if name.startswith("zstd")]
        for name in names:
            ms, used = costs[name]
            costs[name] = ms, max(used, _resident(name))
    slowest = max(ms for ms, _ in costs.values())
    hungriest = max(used / _allowed(made[name]) for name, (_, used) in costs.items())
    return [
        figure("bombs refused", len(costs), f"of {len(made)}", "==", len(made)),
        figure("slowest bomb", slowest, "ms", "<", MAX_MS),
        figure("memory of the hungriest bomb", hungriest, "of 4 × wire + 1 MiB", "<", 1.0),
    ]


def table(tries: int = 9) -> str:
    """Every bomb: its bytes, time, memory and what it may use."""
    lines = ["| bomb | wire bytes | ms | peak bytes | allowed bytes |", "|" + "---|" * 5]
    for name, bomb in bombs().items():
        ms, used = _cost(bomb, tries)
        if name.startswith("zstd"):
            used = max(used, _resident(name))
        lines.append(f"| {name} | {len(bomb.data):,} | {ms:.2f} | {used:,} | {_allowed(bomb):,} |")
    return "\n".join(lines)


def _allowed(bomb: Bomb) -> int:
    return 4 * len(bomb.data) + 2**20


def _cost(bomb: Bomb, tries: int) -> tuple[float, int]:
    """Milliseconds of the best try, and the peak of traced bytes; raises `Taken`."""
    refuse(bomb)  # what is loaded at the first use is not the bomb's
    times = []
    for _ in range(tries):
        started = time.thread_time()
        refuse(bomb)
        times.append(time.thread_time() - started)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    refuse(bomb)
    peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    return min(times) * 1000, peak


def refuse(bomb: Bomb) -> None:
    """Has it read and refused."""
    try:
        taken = bomb.reader(bomb.data)
    except (ProtocolError, ValueError):
        return
    if taken is not None and taken is not False:
        raise Taken(f"taken as {type(taken).__name__}")


def _resident(name: str) -> int:
    """Bytes by which the peak resident size of a process grew that only had this bomb read."""
    command = [sys.executable, __file__, "--resident", name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout)


def _grow(name: str) -> int:
    bomb = bombs()[name]
    refuse(Bomb(_zstd(_valid_zstd(1000)), _frame))  # the library's own first use
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refuse(bomb)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024


def _frame(data: bytes) -> object:
    return open_frame(data, SWARM)


def _signed(body: bytes, kind: Kind = Kind.ROLLOUT) -> bytes:
    signature = _KEY.sign(envelope.signed_bytes(kind, SWARM, _AUTHOR, body)).signature
    return bytes((PROTOCOL_VERSION, kind)) + _AUTHOR + signature + body


def _compressed_frame(signed: bytes, smaller: bytes) -> bytes:
    """The signed frame with its body compressed."""
    return bytes((PROTOCOL_VERSION, COMPRESSED_ROLLOUT)) + signed[2:HEADER_BYTES] + smaller


def _zstd(body: bytes) -> bytes:
    return bytes((PROTOCOL_VERSION, COMPRESSED_ROLLOUT)) + _AUTHOR + bytes(64) + body


def _frames() -> dict[str, bytes]:
    head = bytes((PROTOCOL_VERSION, Kind.ROLLOUT)) + _AUTHOR + bytes(64)
    return {
        "frame: 16 MiB": head + bytes(2**24),
        "frame: one byte too many": head + bytes(MAX_FRAME_BYTES - 97),
        "frame: largest, unsigned": head + bytes(_BODY_BYTES),
        "frame: announcement as large as a rollout": bytes((PROTOCOL_VERSION, Kind.ANNOUNCEMENT))
        + bytes(MAX_ANNOUNCEMENT_BYTES),
        "frame: empty": b"",
    }


def _bodies() -> dict[str, bytes]:
    """MessagePack, well signed, and larger or deeper than it says."""
    fields = [b"task", 1, 1, 1, 100, "x", b"\0\1\0\1\1"]
    head = msgpack.packb([*fields, None])[:-1]
    return {
        "600 arrays deep": b"\x91" * 600,
        "arrays all the way down": b"\x91" * _BODY_BYTES,
        "maps all the way down": b"\x81\xa0" * (_BODY_BYTES // 2),
        "arrays all the way down in texts": head + b"\x91" * (_BODY_BYTES - len(head)),
        "2^32 elements": b"\xdd\xff\xff\xff\xff",
        "2^32 texts": head + b"\xdd\xff\xff\xff\xff",
        "2^32 pairs": b"\xdf\xff\xff\xff\xff",
        "text of 2^32": head + b"\x91\xdb\xff\xff\xff\xff",
        "binary of 2^32": b"\x98\xc6\xff\xff\xff\xff",
        "extension of 2^32": b"\x98\xc9\xff\xff\xff\xff\x01",
        "as many empty texts as fit": head
        + b"\xdd"
        + (_BODY_BYTES - len(head) - 5).to_bytes(4)
        + b"\xa0" * (_BODY_BYTES - len(head) - 5),
        "as many nested empties as fit": b"\xdd"
        + (_BODY_BYTES - 5).to_bytes(4)
        + b"\x90" * (_BODY_BYTES - 5),
        "one text as long as fits": head + msgpack.packb(["x" * (_BODY_BYTES - 200)]),
        "one text of the widest characters": head + msgpack.packb(["😀" * 32_768]),
        "eight texts of control characters": head[:-6]
        + msgpack.packb(b"\0\1\0\1" * 8 + b"\xff")
        + msgpack.packb(["\x01" * 32_700] * 8),
        "integers of nine bytes": b"\x98" + b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff" * 29_000,
        "broken UTF-8": head + b"\x91\xda\x7f\xff" + b"\xed\xa0\x80" * 10_922 + b"\xff",
        "nested timestamps": b"\x98" + b"\xd6\xff\0\0\0\0" * 40_000,
    }


def _compressed() -> dict[str, bytes]:
    """Zstandard that swells, or says that it does not."""
    huge = 2**27
    stream = zstandard.ZstdCompressor(level=19).compressobj()
    unknown = stream.compress(bytes(huge)) + stream.flush()
    windowed = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters(window_log=27, enable_ldm=True)
    ).compressobj(size=MAX_ROLLOUT_BODY_BYTES)
    wide = windowed.compress(bytes(MAX_ROLLOUT_BODY_BYTES)) + windowed.flush()
    stated = zstandard.ZstdCompressor(level=19).compress(bytes(huge))
    return {
        "128 MiB of zeros": stated,
        "128 MiB, size not stated": unknown,
        "128 MiB, stated as 1 KiB": _restated(stated, 1024),
        "1 KiB, stated as 2^63": _restated(_valid_zstd(1024), 2**63),
        "window of 128 MiB": wide,
        "largest body, one byte less stated": _restated(
            _valid_zstd(MAX_ROLLOUT_BODY_BYTES), MAX_ROLLOUT_BODY_BYTES - 1
        ),
        "largest body of zeros": _valid_zstd(MAX_ROLLOUT_BODY_BYTES),
        "10,000 skippable frames": b"\x50\x2a\x4d\x18\0\0\0\0" * 10_000,
        "a frame behind the frame": _valid_zstd(1024) + _valid_zstd(MAX_ROLLOUT_BODY_BYTES),
        "compressed again": _valid_zstd(0, zstandard.compress(stated, 19) + bytes(4096)),
        "a dictionary asked for": _MAGIC + b"\x23\x01\x02\x03\x04\x80\x80",
        "blocks of nothing": _MAGIC + b"\xa0\0\0\4\0" + b"\0\0\0" * 50_000,
        "one byte repeated for ever": _MAGIC + b"\xa0\0\0\4\0" + b"\x02\0\x10a" * 60_000,
    }


def _valid_zstd(size: int, content: bytes = b"") -> bytes:
    return zstandard.ZstdCompressor(level=19).compress(content or bytes(size))


def _restated(frame: bytes, size: int) -> bytes:
    """The frame's blocks behind a header that states another size, in eight bytes."""
    blocks = frame[zstandard.frame_header_size(frame) :]
    return _MAGIC + b"\xe0" + size.to_bytes(8, "little") + blocks


def _streams() -> dict[str, Bomb]:
    """What arrives on streams and on the local network."""
    hello = msgpack.packb([1, 1, bytes(32), "a", "b", "c"])
    pointers = b"".join(b"\xc0" + bytes((12 + 2 * i,)) for i in range(60))
    return {
        "block: 4 GiB": Bomb(b"\xff" * BLOCK_HEADER_BYTES, _block),
        "hello: largest, nested": Bomb(b"\x91" * MAX_HELLO_BYTES, codec.decode_hello),
        "hello: 1 MiB": Bomb(hello + bytes(2**20), codec.decode_hello),
        "hello: later fields nested": Bomb(
            b"\x97" + hello[1:] + b"\x91" * (MAX_HELLO_BYTES - len(hello)), codec.decode_hello
        ),
        "peers: as many as fit": Bomb(
            b"\xdc" + (MAX_PEERS_BYTES - 3).to_bytes(2) + b"\xa0" * (MAX_PEERS_BYTES - 3),
            codec.decode_peers,
        ),
        "peers: 2^32": Bomb(b"\xdd\xff\xff\xff\xff", codec.decode_peers),
        "fetch: 1 MiB of ids": Bomb(bytes(2**20), codec.decode_fetch_request),
        "fetch: one id eight times": Bomb(bytes(256), codec.decode_fetch_request),
        "response: too long": Bomb(
            bytes(MAX_FETCH_RESPONSE_BYTES + 1), lambda data: codec.decode_fetch_response(data, 8)
        ),
        "response: frames of 4 GiB": Bomb(
            b"\xff" * 64, lambda data: codec.decode_fetch_response(data, 8)
        ),
        "private: largest": Bomb(
            bytes(MAX_FRAME_BYTES + 40), lambda data: private.decrypt(data, bytes(32))
        ),
        "mdns: pointers in a circle": Bomb(
            b"\0\0\0\0\0\x01" + bytes(6) + b"\xc0\x0c\0\x0c\0\x01", _packet
        ),
        "mdns: 65,535 records": Bomb(b"\0\0\x84\0" + b"\xff" * 8 + bytes(8900), _packet),
        "mdns: a chain of pointers": Bomb(b"\0\0\0\0\0\x20" + bytes(6) + pointers, _packet),
        "address: 16 KiB": Bomb(b"/ip4" * 4096, lambda data: multiaddr.to_binary(data.decode())),
        "address: a value of 2^63": Bomb(b"\x36" + b"\xff" * 8 + b"\x7f", multiaddr.to_text),
    }


def _texts() -> dict[str, Bomb]:
    """Answers that a careless reader would read in quadratic time, or never finish."""
    texts = {
        "digits": "9" * 262_144,
        "spaces": " " * 131_072 + "x" + " " * 131_000,
        "tags": "<answer>" * 16_384 + "</answer>" * 14_000,
        "commas": "1" + ",111" * 65_000,
        "fractions": "1/" * 131_000,
        "lines": "\n" * 262_144,
        "exponent": "1e999999999",
        "power": "9**9**9**9",
    }
    return {f"answer: {name}": Bomb(text.encode(), _answer) for name, text in texts.items()}


def _answer(data: bytes) -> object:
    """False if it is right by no rule in neither format, as an answer of 12."""
    text = data.decode()
    for rule in compare.RULES:
        expected = {"fraction": "1/2"}.get(rule, "12")
        for form in ("whole", "tag"):
            given = answer.extract(text, form)
            if given is not None and compare.is_right(given, expected, {"compare": rule}):
                return True
    return False


def _block(data: bytes) -> object:
    return codec.block_length(data, MAX_FRAME_BYTES)


def _packet(data: bytes) -> object:
    return mdns.parse(data, "_p2p-0._udp.local")


if __name__ == "__main__":
    sys.path.append(str(Path(__file__).parent))
    if sys.argv[1:2] == ["--resident"]:
        print(_grow(sys.argv[2]))
    else:
        print(table())
        sys.exit(show(measure(short=False)) > 0)
