"""Writes `protocol/vectors/*.json`; run it after a change of the wire, with SPEC.md and version.

    python tests/protocol/make_vectors.py

Good vectors are made by `protocol` and checked by `reference_reader`. Bad bodies are written out by
hand, byte by byte, and signed validly where the refusal comes after the signature.

Compressed frames are not made by the library, whose bytes change with its release: they are written
by hand too (raw and run-length blocks), or were made once and are kept (`LIBZSTD`).
"""

import hashlib
import json
from pathlib import Path

import msgpack
from nacl.secret import Aead
from nacl.signing import SigningKey

from protocol import codec, names, private
from protocol.envelope import COMPRESSED_ROLLOUT, seal, signed_bytes
from protocol.limits import (
    MAX_ANNOUNCEMENT_BYTES,
    MAX_FRAME_BYTES,
    MAX_HELLO_BYTES,
    MAX_ROLLOUT_BODY_BYTES,
)
from protocol.messages import Announcement, Hello, Item, Kind, Rollout

FOLDER = Path(__file__).parents[2] / "protocol" / "vectors"
# RFC 8032 section 7.1, test 1 and test 2: secret keys with published public keys.
KEY = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
OTHER_KEY = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
SWARM = names.swarm_id(b"vectors")
OTHER_SWARM = names.swarm_id(b"another swarm")
DIGEST = names.task_digest(b"chain_sum")

# A valid rollout's body, field by field; bad ones replace one field.
ROLLOUT = [
    bytes((0xC4, 4)) + DIGEST,  # task_digest: bin 8
    b"\x01",  # seed 1
    b"\xce\x6a\x18\x4c\x80",  # created: u32
    b"\x07",  # policy_version 7
    b"\x64",  # temperature 1.00
    b"\xa4demo",  # model_label
    bytes((0xC4, 5, 0x02, 0xDB, 0x00, 0x05, 0x01)),  # stats: −0.731, 5 tokens, ended
    b"\x91\xa242",  # texts: ["42"]
]
# A text whose body a run-length block makes smaller, and nothing else.
RUN = b"a" * 300
RUN_TEXT = b"\x91\xda\x01\x2c" + RUN
# Bodies of good vectors as libzstd 1.5.7 compressed them at level 3.
LIBZSTD = {
    "largest integers": (
        "28b52ffd20e67d0300340598c404266a3e22ceffffffffcd03e8b05177656e322e352d302e35422d"
        "496e73c421000000010001000200fa00ff03e801002e7c1000fffefffe0bb80009b298b23c616e73"
        "7765723e303c2f313233343536370b00a010e01df018f00478073c06bcd82c404b067f6535b64207"
    ),
    "unicode": (
        "28b52ffd608c00c50200d40498c404266a3e2200000000a0c41901f400010096a0b25ac3bc726963"
        "6820e2809320343220e282acabe695b0e5ada620f09fa7aead746162096c696e650d0a656e64a6e2"
        "80ae72746cda012c6102008b8253a1691706"
    ),
}
ITEM = bytes(range(32)) + DIGEST + bytes((0, 0, 0, 1)) + bytes((0, 0, 1, 0))
ANNOUNCEMENT = [b"\x03", b"\xce\x6a\x18\x4c\x80", b"\x07", b"\xa4demo", b"\xc4\x2c" + ITEM]
ANNOUNCEMENT += [b"\xc4\x04held"]


def rollout_body(head: bytes = b"\x98", tail: bytes = b"", **fields: bytes) -> bytes:
    """The valid rollout's bytes with some fields (f0 … f7) replaced."""
    parts = [fields.get(f"f{index}", part) for index, part in enumerate(ROLLOUT)]
    return head + b"".join(parts) + tail


def announcement_body(**fields: bytes) -> bytes:
    parts = [fields.get(f"f{index}", part) for index, part in enumerate(ANNOUNCEMENT)]
    return b"\x96" + b"".join(parts)


def frame(body: bytes, kind: Kind = Kind.ROLLOUT, swarm_id: bytes = SWARM) -> bytes:
    """Any body in a validly signed frame, uncompressed."""
    return _signed(kind, kind, swarm_id, body, body)


def compressed_frame(body: bytes, content: bytes, swarm_id: bytes = SWARM) -> bytes:
    """A frame that says it holds a compressed rollout: `content`, with the signature of `body`."""
    return _signed(COMPRESSED_ROLLOUT, Kind.ROLLOUT, swarm_id, body, content)


def _signed(kind_byte: int, kind: Kind, swarm_id: bytes, body: bytes, content: bytes) -> bytes:
    key = SigningKey(KEY)
    author = bytes(key.verify_key)
    signature = key.sign(signed_bytes(kind, swarm_id, author, body)).signature
    return bytes((1, kind_byte)) + author + signature + content


def zstd(*blocks: bytes, size: int | None, window: int | None = None, dictionary: int = 0) -> bytes:
    """A Zstandard frame by hand (RFC 8878, section 3.1.1); `window` is the byte that describes it.

    Without `window` it is a single segment, whose window is the content.
    """
    descriptor = (0x80 if size is not None else 0) | (0x20 if window is None else 0)
    header = bytes((descriptor | (1 if dictionary else 0),))
    header += b"" if window is None else bytes((window,))
    header += bytes((dictionary,)) if dictionary else b""
    header += b"" if size is None else size.to_bytes(4, "little")
    return b"\x28\xb5\x2f\xfd" + header + b"".join(blocks)


def raw_block(data: bytes, last: bool = False) -> bytes:
    return (len(data) << 3 | last).to_bytes(3, "little") + data


def run_block(byte: bytes, count: int, last: bool = False) -> bytes:
    return (count << 3 | 1 << 1 | last).to_bytes(3, "little") + byte


def with_run(body: bytes) -> bytes:
    """A body that ends in RUN, as a raw block and a run-length block."""
    head = body.removesuffix(RUN)
    assert head != body
    return zstd(raw_block(head), run_block(RUN[:1], len(RUN), last=True), size=len(body))


def rollouts() -> list[dict]:
    one = {
        "task_digest": DIGEST.hex(),
        "seed": 1,
        "created": 1_780_000_000,
        "policy_version": 7,
        "temperature": 1.0,
        "model_label": "demo",
        "texts": ["42"],
        "mean_logps": [-0.731],
        "token_counts": [5],
        "ended": [True],
    }
    eight = {
        "seed": 4_294_967_295,
        "created": 4_294_967_295,
        "policy_version": 4_294_967_295,
        "temperature": 10.0,
        "model_label": "Qwen2.5-0.5B-Ins",
        "texts": [f"<answer>{n}</answer>" for n in range(8)],
        "mean_logps": [0.0, -0.001, -0.25, -1.0, -11.9, -65.534, -65.535, -3.0],
        "token_counts": [1, 2, 255, 256, 4096, 65534, 65535, 9],
        "ended": [False, True, False, False, True, True, False, True],
    }
    texts = ["", "Zürich – 42 €", "数学 🧮", "tab\tline\r\nend", "‮rtl", "a" * 300]
    unicode = {
        "seed": 0,
        "created": 0,
        "policy_version": 0,
        "temperature": 0.0,
        "model_label": "",
        "texts": texts,
        "mean_logps": [-0.5] * len(texts),
        "token_counts": [1] * len(texts),
        "ended": [False] * len(texts),
    }
    cases = {"one text": one, "largest integers": one | eight, "unicode": one | unicode}
    return [_good(name, "rollout", fields) for name, fields in cases.items()]


def announcements() -> list[dict]:
    items = [
        {
            "rollout_id": bytes([n] * 32).hex(),
            "task_digest": DIGEST.hex(),
            "seed": n,
            "frame_bytes": 300 + n,
        }
        for n in range(8)
    ]
    fields = {
        "round": 3,
        "created": 1_780_000_000,
        "policy_version": 7,
        "model_label": "demo",
        "items": items,
        "held": [],
    }
    held = [bytes([n] * 4).hex() for n in range(16)]
    cases = {
        "eight items": fields,
        "no items": fields | {"items": []},
        "sixteen held": fields | {"held": held},
    }
    return [_good(name, "announcement", fields) for name, fields in cases.items()]


def build(kind: str, fields: dict) -> Rollout | Announcement:
    """The message of a vector's readable fields."""
    if kind == "rollout":
        return Rollout.build(**fields | {"task_digest": bytes.fromhex(fields["task_digest"])})
    items = [
        Item(
            bytes.fromhex(item["rollout_id"]),
            bytes.fromhex(item["task_digest"]),
            item["seed"],
            item["frame_bytes"],
        )
        for item in fields["items"]
    ]
    held = [bytes.fromhex(begin) for begin in fields["held"]]
    return Announcement.build(**fields | {"items": items, "held": held})


def _good(name: str, kind: str, fields: dict) -> dict:
    message = build(kind, fields)
    body = codec.encode(message)
    author = bytes(SigningKey(KEY).verify_key)
    signed = signed_bytes(Kind[kind.upper()], SWARM, author, body)
    contents = [bytes.fromhex(LIBZSTD[name])] if name in LIBZSTD else []
    contents += [with_run(body)] if body.endswith(RUN) else []
    return {
        "name": name,
        "kind": kind,
        "fields": fields,
        "key_seed": KEY.hex(),
        "swarm_id": SWARM.hex(),
        "author": author.hex(),
        "signed": signed.hex(),
        "id": hashlib.sha256(signed).hexdigest(),
        "frame": frame(body, Kind[kind.upper()]).hex(),
        "compressed_frames": [compressed_frame(body, content).hex() for content in contents],
    }


def refused_frames() -> list[dict]:
    groups = {
        "too_large": _too_large(),
        "wrong_version": _wrong_version(),
        "unknown_kind": _unknown_kind(),
        "bad_compression": _bad_compression(),
        "bad_signature": _bad_signature(),
        "malformed": _malformed(),
        "not_canonical": _not_canonical(),
        "out_of_bounds": _out_of_bounds(),
    }
    return [
        {"name": name, "swarm_id": SWARM.hex(), "reason": reason} | _hex(data)
        for reason, cases in groups.items()
        for name, data in cases.items()
    ]


def _hex(data: bytes) -> dict:
    """The frame in hex; one that ends in many zero bytes without them, and its length."""
    if len(data) < 1000:
        return {"frame": data.hex()}
    return {"frame": data.rstrip(b"\0").hex(), "zero_padded_to_bytes": len(data)}


def _too_large() -> dict[str, bytes]:
    return {
        "frame one byte above the limit": b"\x01\x01".ljust(MAX_FRAME_BYTES + 1, b"\0"),
        "size is checked before version": b"\x09\x01".ljust(MAX_FRAME_BYTES + 1, b"\0"),
        "announcement one byte above its limit": b"\x01\x02".ljust(
            MAX_ANNOUNCEMENT_BYTES + 1, b"\0"
        ),
    }


def _wrong_version() -> dict[str, bytes]:
    good = frame(rollout_body())
    return {
        "version 0": b"\x00" + good[1:],
        "version 2": b"\x02" + good[1:],
        "version 2 in two bytes": b"\x02\x01",
    }


def _unknown_kind() -> dict[str, bytes]:
    good = frame(rollout_body())
    return {
        "kind 0": good[:1] + b"\x00" + good[2:],
        "kind 4": good[:1] + b"\x04" + good[2:],
        "kind 129": good[:1] + b"\x81" + good[2:],
        "kind 255 without header": b"\x01\xff",
    }


def _bad_compression() -> dict[str, bytes]:
    body = rollout_body(f7=RUN_TEXT)
    good, size = with_run(body), len(body)
    run = run_block(b"a", 128 * 1024)
    bomb = run * 200 + run_block(b"a", 1, last=True)  # 26 MB
    skippable = b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"
    blocks = good[9:]  # after magic number, descriptor and four bytes of size
    raw = raw_block(body, last=True)
    contents = {
        "not compressed": body,
        "one byte": b"\x28",
        "magic number alone": good[:4],
        "magic number of version 0.7": b"\x27" + good[1:],
        "gzip": b"\x1f\x8b\x08\x00" + bytes(20),
        "reserved bit of the descriptor": good[:4] + b"\xa8" + good[5:],
        "size not stated": zstd(blocks, size=None, window=0x40),
        "size zero": zstd(raw_block(b"", last=True), size=0),
        "size one byte above the limit": zstd(
            run, run, run_block(b"a", 103, last=True), size=MAX_ROLLOUT_BODY_BYTES + 1
        ),
        "size two gigabytes": zstd(bomb, size=2**31),
        "size one byte too small": zstd(blocks, size=size - 1),
        "size one byte too large": zstd(blocks, size=size + 1),
        "bomb that does not state its size": zstd(bomb, size=None, window=0x58),
        "bomb that states its size": zstd(bomb, size=200 * 128 * 1024 + 1),
        "bomb that states the limit": zstd(bomb, size=MAX_ROLLOUT_BODY_BYTES),
        "window above the limit": zstd(blocks, size=size, window=0x48),
        "window of two terabytes": zstd(blocks, size=size, window=0xF8),
        "dictionary": zstd(blocks, size=size, dictionary=1),
        "trailing byte": good + b"\x00",
        "a second frame": good + good,
        "skippable frame alone": skippable,
        "skippable frame before": skippable + good,
        "skippable frame after": good + skippable,
        "cut short": good[:-1],
        "no last block": zstd(raw_block(body[:-300]), run_block(b"a", 300), size=size),
        "reserved type of block": zstd(bytes((7, 0, 0)), size=size),
        "wrong checksum": good[:4] + b"\xa4" + good[5:] + bytes(4),
        "larger than the body": zstd(raw, size=size),
        "as large as the body": zstd(raw_block(body[:-16]), run_block(b"a", 16, True), size=size),
    }
    return {name: compressed_frame(body, content) for name, content in contents.items()}


def _bad_signature() -> dict[str, bytes]:
    good = frame(rollout_body())
    other = bytes(SigningKey(OTHER_KEY).verify_key)
    run = rollout_body(f7=RUN_TEXT)
    return {
        "last bit of the signature": good[:97] + bytes((good[97] ^ 1,)) + good[98:],
        "last bit of the body": good[:-1] + bytes((good[-1] ^ 1,)),
        "another author": good[:2] + other + good[34:],
        "another swarm": frame(rollout_body(), swarm_id=OTHER_SWARM),
        "a rollout called announcement": good[:1] + b"\x02" + good[2:],
        "trailing byte": good + b"\x00",
        "key and nonce of order 1": b"\x01\x01"
        + b"\x01".ljust(32, b"\0") * 2
        + bytes(32)
        + good[98:],
        "signature is checked before the body": good[:98] + b"\xc1",
        "a compressed rollout of another swarm": compressed_frame(run, with_run(run), OTHER_SWARM),
        "a compressed rollout of another body": compressed_frame(run + b"b", with_run(run)),
        "signed as it was compressed": compressed_frame(with_run(run), with_run(run)),
    }


def _malformed() -> dict[str, bytes]:
    bodies = {
        "a map": b"\x80",
        "nil": b"\xc0",
        "unused type c1": b"\xc1",
        "seven fields": b"\x97" + rollout_body()[1:-4],
        "nine fields": rollout_body(head=b"\x99", tail=b"\x00"),
        "trailing byte": rollout_body(tail=b"\x00"),
        "cut short": rollout_body()[:-1],
        "digest of three bytes": rollout_body(f0=b"\xc4\x03abc"),
        "digest as str": rollout_body(f0=b"\xa4abcd"),
        "seed true": rollout_body(f1=b"\xc3"),
        "seed -1": rollout_body(f1=b"\xff"),
        "seed 2**32": rollout_body(f1=b"\xcf\x00\x00\x00\x01\x00\x00\x00\x00"),
        "seed NaN": rollout_body(f1=b"\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00"),
        "seed 1.0": rollout_body(f1=b"\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00"),
        "seed nil": rollout_body(f1=b"\xc0"),
        "created as timestamp": rollout_body(f2=b"\xd6\xff\x6a\x18\x4c\x80"),
        "created as extension type": rollout_body(f2=b"\xd6\x05\x6a\x18\x4c\x80"),
        "temperature 65536": rollout_body(f4=b"\xce\x00\x01\x00\x00"),
        "label of 17 bytes": rollout_body(f5=b"\xb1" + b"x" * 17),
        "label as bin": rollout_body(f5=b"\xc4\x04demo"),
        "no stats": rollout_body(f6=b"\xc4\x00"),
        "stats without ended": rollout_body(f6=b"\xc4\x04" + b"\x00\x01" * 2),
        "stats for nine texts": rollout_body(f6=b"\xc4\x25" + b"\x00\x01" * 18 + b"\x00"),
        "no text": rollout_body(f7=b"\x90"),
        "nine texts": rollout_body(f7=b"\x99" + b"\xa11" * 9),
        "text as bin": rollout_body(f7=b"\x91\xc4\x0242"),
        "text with broken UTF-8": rollout_body(f7=b"\x91\xa2\xc3\x28"),
        "text with overlong UTF-8": rollout_body(f7=b"\x91\xa2\xc0\xaf"),
        "text with a surrogate": rollout_body(f7=b"\x91\xa3\xed\xa0\x80"),
        "texts as a map": rollout_body(f7=b"\x81\xa142\xa142"),
        "arrays nested 600 deep": rollout_body(f7=b"\x91" * 600),
        "four billion texts": rollout_body(f7=b"\xdd\xff\xff\xff\xff"),
        "text of four billion bytes": rollout_body(f7=b"\x91\xdb\xff\xff\xff\xff"),
    }
    cases = {name: frame(body) for name, body in bodies.items()}
    items = announcement_body(f4=b"\xc5\x0b\x01" + bytes(64 * 44 + 1))
    header_only = frame(b"")
    nested = with_run(rollout_body(f7=RUN_TEXT)) + RUN  # compressed twice
    return cases | {
        "empty": b"",
        "one byte": b"\x01",
        "shorter than the header": header_only[:97],
        "header without body": header_only,
        "a rollout's body in an announcement": frame(rollout_body(), Kind.ANNOUNCEMENT),
        "compressed twice": compressed_frame(nested, with_run(nested)),
        "compressed array of nine": _compressed(rollout_body(head=b"\x99", f7=b"\x00" + RUN_TEXT)),
        "items as array": frame(announcement_body(f4=b"\x90"), Kind.ANNOUNCEMENT),
        "2,817 bytes of items": frame(items, Kind.ANNOUNCEMENT),
        "68 bytes of held ids": frame(
            announcement_body(f5=b"\xc4\x44" + bytes(range(68))), Kind.ANNOUNCEMENT
        ),
        "no held ids": frame(b"\x95" + b"".join(ANNOUNCEMENT[:5]), Kind.ANNOUNCEMENT),
    }


def _not_canonical() -> dict[str, bytes]:
    bodies = {
        "seed 1 as u8": rollout_body(f1=b"\xcc\x01"),
        "seed 1 as u16": rollout_body(f1=b"\xcd\x00\x01"),
        "seed 1 as u32": rollout_body(f1=b"\xce\x00\x00\x00\x01"),
        "seed 1 as u64": rollout_body(f1=b"\xcf" + b"\x00" * 7 + b"\x01"),
        "seed 1 as i8": rollout_body(f1=b"\xd0\x01"),
        "seed 1 as i64": rollout_body(f1=b"\xd3" + b"\x00" * 7 + b"\x01"),
        "label as str 8": rollout_body(f5=b"\xd9\x04demo"),
        "label as str 32": rollout_body(f5=b"\xdb\x00\x00\x00\x04demo"),
        "digest as bin 16": rollout_body(f0=b"\xc5\x00\x04" + DIGEST),
        "array 16": rollout_body(head=b"\xdc\x00\x08"),
        "texts as array 32": rollout_body(f7=b"\xdd\x00\x00\x00\x01\xa242"),
    }
    cases = {name: frame(body) for name, body in bodies.items()}
    return cases | {"compressed": _compressed(rollout_body(f1=b"\xcc\x01", f7=RUN_TEXT))}


def _compressed(body: bytes) -> bytes:
    return compressed_frame(body, with_run(body))


def _out_of_bounds() -> dict[str, bytes]:
    twice = b"\xc4\x58" + ITEM * 2
    no_size, too_large = ITEM[:40] + bytes(4), ITEM[:40] + (MAX_FRAME_BYTES + 1).to_bytes(4, "big")
    rollout_bodies = {
        "temperature 10.01": rollout_body(f4=b"\xcd\x03\xe9"),
        "label with a line feed": rollout_body(f5=b"\xa2a\n"),
        "label beyond ASCII": rollout_body(f5=b"\xa2\xc3\xbc"),
        "stats for two texts": rollout_body(f6=b"\xc4\x09" + b"\x00\x01" * 4 + b"\x00"),
        "stats of eight bytes": rollout_body(f6=b"\xc4\x08" + b"\x00\x01" * 4),
        "no token": rollout_body(f6=b"\xc4\x05\x00\x01\x00\x00\x01"),
        "a second text ended of one": rollout_body(f6=b"\xc4\x05\x00\x01\x00\x01\x02"),
        "an eighth text ended of one": rollout_body(f6=b"\xc4\x05\x00\x01\x00\x01\x81"),
        "text with NUL": rollout_body(f7=b"\x91\xa1\x00"),
        "text with escape": rollout_body(f7=b"\x91\xa4\x1b[2J"),
        "text with delete": rollout_body(f7=b"\x91\xa1\x7f"),
        "text with U+009B": rollout_body(f7=b"\x91\xa2\xc2\x9b"),
    }
    announcement_bodies = {
        "items of 43 bytes": announcement_body(f4=b"\xc4\x2b" + ITEM[:-1]),
        "an id twice": announcement_body(f4=twice),
        "held ids of 5 bytes": announcement_body(f5=b"\xc4\x05heldx"),
        "an id held twice": announcement_body(f5=b"\xc4\x08heldheld"),
        "frame size 0": announcement_body(f4=b"\xc4\x2c" + no_size),
        "frame size above the limit": announcement_body(f4=b"\xc4\x2c" + too_large),
    }
    cases = {name: frame(body) for name, body in rollout_bodies.items()}
    for name, body in announcement_bodies.items():
        cases[name] = frame(body, Kind.ANNOUNCEMENT)
    return cases | {"compressed": _compressed(rollout_body(f4=b"\xcd\x03\xe9", f7=RUN_TEXT))}


def hellos() -> list[dict]:
    ours = codec.encode_hello(
        Hello.build(
            swarm_id=SWARM, swarm_name="vectors", software="swarmnode 0.1.0", model_label="demo"
        )
    )
    later = [2, 5, OTHER_SWARM, "later", "x 9", "m", {"new": [1.5, None]}, True]
    long = [1, 1, SWARM, "", "", "", bytes(MAX_HELLO_BYTES)]
    cases: dict[str, tuple[bytes, str | None]] = {
        "version 1": (ours, None),
        "a later version with more fields": (msgpack.packb(later), None),
        "more bytes than any version may send": (msgpack.packb(long), "too_large"),
        "five fields": (msgpack.packb([1, 1, SWARM, "", ""]), "malformed"),
        "a swarm id of 31 bytes": (msgpack.packb([1, 1, SWARM[:31], "", "", ""]), "malformed"),
        "version 256": (msgpack.packb([1, 256, SWARM, "", "", ""]), "malformed"),
        "trailing byte": (ours + b"\x00", "malformed"),
        "lowest above highest": (msgpack.packb([2, 1, SWARM, "", "", ""]), "out_of_bounds"),
        "name with an escape": (msgpack.packb([1, 1, SWARM, "\x1b[2J", "", ""]), "out_of_bounds"),
    }
    return [
        {"name": name, "hello": data.hex(), "reason": reason}
        for name, (data, reason) in cases.items()
    ]


def fetches() -> list[dict]:
    sealed = seal(build("rollout", rollouts()[0]["fields"]), KEY, SWARM)
    ids = [sealed.id, bytes(32)]
    return [
        {
            "name": "one held, one not",
            "ids": [rollout_id.hex() for rollout_id in ids],
            "frames": [sealed.frame.hex(), None],
            "request_stream": codec.encode_block(codec.encode_fetch_request(ids)).hex(),
            "response_stream": codec.encode_fetch_response([sealed.frame, None]).hex(),
        }
    ]


def peers() -> list[dict]:
    me = names.peer_id(bytes(SigningKey(KEY).verify_key))
    long = "/dns4/" + "a" * 238 + "/tcp/4001"
    assert len(long) == 253
    lists = {
        "nobody": [],
        "own, then another's": [
            f"/ip4/192.0.2.1/tcp/4001/p2p/{me}",
            f"/ip6/::1/udp/1/quic-v1/p2p/{me}",
        ],
        "as many as there may be, as long": [f"{long}{number:02}" for number in range(32)],
        "no addresses, but for the reader to find out": ["", "x"],
    }
    good = [
        {"name": name, "peers": codec.encode_peers(addresses).hex(), "addresses": addresses,
         "reason": None}
        for name, addresses in lists.items()
    ]  # fmt: skip
    bad = {
        "more than there may be": (b"\xdc\x00\x21" + 33 * b"\xa0", "malformed"),
        "a longer one": (b"\x91\xda\x01\x00" + 256 * b"a", "malformed"),
        "not a list": (b"\xa1x", "malformed"),
        "not text": (b"\x91\xc4\x01x", "malformed"),
        "cut short": (b"\x92\xa1x", "malformed"),
        "bytes after it": (b"\x90\x90", "malformed"),
        "a control character": (b"\x91\xa1\x1b", "out_of_bounds"),
        "not ASCII": (b"\x91\xa2\xc3\xa9", "out_of_bounds"),
        "larger than its limit": (bytes(8228), "too_large"),
    }
    return good + [
        {"name": name, "peers": body.hex(), "addresses": None, "reason": reason}
        for name, (body, reason) in bad.items()
    ]


def private_swarm() -> dict:
    key = bytes(range(32))
    secret_id = private.swarm_id(key, SWARM)
    members = private.names(key, secret_id)
    frame = bytes.fromhex(rollouts()[0]["frame"])
    nonce = bytes(range(24))
    encrypted = bytes(Aead(members.frame_key).encrypt(frame, b"swarmnode/1/private\0", nonce))
    return {
        "key_file": f"/key/swarm/psk/1.0.0/\n/base16/\n{key.hex()}\n",
        "manifest_swarm_id": SWARM.hex(),
        "swarm_id": secret_id.hex(),
        "network_id": members.network_id.hex(),
        "frame_key": members.frame_key.hex(),
        "frame": frame.hex(),
        "encrypted": encrypted.hex(),
    }


def named() -> dict:
    author = bytes(SigningKey(KEY).verify_key)
    return {
        "manifest": b"vectors".hex(),
        "swarm_id": SWARM.hex(),
        "task": b"chain_sum".hex(),
        "task_digest": DIGEST.hex(),
        "author": author.hex(),
        "peer_id": names.peer_id(author),
        "question_number": 7,
        "question_seed": names.question_seed(SWARM, author, DIGEST, 7),
        "announcement_topic": names.announcement_topic(SWARM),
        "shard_of_8": names.shard_of(author, 8).number,
        "shard_of_65536": names.shard_of(author, 65536).number,
        "rank_times_2_48": int(names.rank_of(author) * 2**48),
        "shard_topic": names.announcement_topic(SWARM, names.shard_of(author, 8)),
        "shard_discovery_key": names.discovery_key(SWARM, names.shard_of(author, 8)).hex(),
        "fetch_protocol": names.fetch_protocol(SWARM),
        "peers_protocol": names.peers_protocol(SWARM),
        "lan_service": names.lan_service(SWARM),
        "hello_protocol": names.HELLO_PROTOCOL,
        "discovery_key": names.discovery_key(SWARM).hex(),
        "discovery_cid": names.discovery_cid(SWARM).hex(),
    }


def vectors() -> dict[str, str]:
    """File name → contents."""
    files = {
        "rollouts.json": rollouts(),
        "announcements.json": announcements(),
        "refused_frames.json": refused_frames(),
        "hellos.json": hellos(),
        "fetches.json": fetches(),
        "peers.json": peers(),
        "private.json": private_swarm(),
        "names.json": named(),
    }
    return {
        name: json.dumps(value, indent=1, ensure_ascii=True) + "\n" for name, value in files.items()
    }


if __name__ == "__main__":
    for name, text in vectors().items():
        (FOLDER / name).write_text(text)
