"""A second reader of the wire format, written from SPEC.md with struct, hashlib, `msgpack`.

It shares no code with `protocol`, so that the codec is not tested against itself; only the library
that decompresses is the same. It reads only what is valid: the good vectors. Ed25519 is verified in
plain Python after RFC 8032 section 5.1.7 (slow; it also serves to show what a verifier without
libsodium's checks accepts).
"""

import hashlib
import struct

import msgpack
import zstandard

KINDS = {1: "rollout", 2: "announcement", 3: "rollout"}

Point = tuple[int, int, int, int]  # extended coordinates X, Y, Z, T
P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P


def read_frame(frame: bytes, swarm_id: bytes) -> dict:
    """Everything in a valid frame under plain names."""
    version, kind, author, signature = struct.unpack_from(">BB32s64s", frame)
    body = frame[98:] if kind < 3 else zstandard.ZstdDecompressor().decompress(frame[98:])
    domain = b"swarmnode/%d/%s\0" % (version, KINDS[kind].encode())
    signed = domain + swarm_id + author + body
    fields = msgpack.unpackb(body, strict_map_key=True)
    read = _read_rollout if KINDS[kind] == "rollout" else _read_announcement
    return {
        "version": version,
        "kind": KINDS[kind],
        "author": author.hex(),
        "verifies": verify(author, signed, signature),
        "signed": signed.hex(),
        "id": hashlib.sha256(signed).hexdigest(),
        "fields": read(fields),
    }


def read_hello(data: bytes) -> dict:
    lowest, highest, swarm_id, name, software, label, *_ = msgpack.unpackb(data)
    return {
        "lowest_version": lowest,
        "highest_version": highest,
        "swarm_id": swarm_id.hex(),
        "swarm_name": name,
        "software": software,
        "model_label": label,
    }


def read_blocks(data: bytes) -> list[bytes]:
    blocks, at = [], 0
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        blocks.append(data[at + 4 : at + 4 + length])
        at += 4 + length
    assert at == len(data)
    return blocks


def _read_rollout(fields: list) -> dict:
    digest, seed, created, policy_version, temperature, label, stats, texts = fields
    columns = list(struct.iter_unpack(">HH", stats[:-1]))
    return {
        "task_digest": digest.hex(),
        "seed": seed,
        "created": created,
        "policy_version": policy_version,
        "temperature": temperature / 100,
        "model_label": label,
        "mean_logps": [-logp / 1000 for logp, _ in columns],
        "token_counts": [count for _, count in columns],
        "ended": [stats[-1] & 2**index != 0 for index in range(len(texts))],
        "texts": texts,
    }


def _read_announcement(fields: list) -> dict:
    round_number, created, policy_version, label, items, held = fields
    return {
        "round": round_number,
        "created": created,
        "policy_version": policy_version,
        "model_label": label,
        "items": [
            {
                "rollout_id": rollout_id.hex(),
                "task_digest": digest.hex(),
                "seed": seed,
                "frame_bytes": size,
            }
            for rollout_id, digest, seed, size in struct.iter_unpack(">32s4sII", items)
        ],
        "held": [begin.hex() for (begin,) in struct.iter_unpack(">4s", held)],
    }


def verify(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """RFC 8032's equation s·B = R + h·A and nothing more: small orders are not refused."""
    a, r = _decompress(public_key), _decompress(signature[:32])
    s = int.from_bytes(signature[32:], "little")
    if a is None or r is None or s >= L:
        return False
    digest = hashlib.sha512(signature[:32] + public_key + message).digest()
    h = int.from_bytes(digest, "little") % L
    base = _decompress((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))
    assert base is not None
    x1, y1, z1, _ = _multiply(s, base)
    x2, y2, z2, _ = _add(r, _multiply(h, a))
    return (x1 * z2 - x2 * z1) % P == 0 and (y1 * z2 - y2 * z1) % P == 0


def _add(p: Point, q: Point) -> Point:
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % P, (p[1] + p[0]) * (q[1] + q[0]) % P
    c, d = 2 * p[3] * q[3] * D % P, 2 * p[2] * q[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def _multiply(scalar: int, point: Point) -> Point:
    result: Point = (0, 1, 1, 0)
    while scalar:
        if scalar & 1:
            result = _add(result, point)
        point = _add(point, point)
        scalar >>= 1
    return result


def _decompress(encoded: bytes) -> Point | None:
    y = int.from_bytes(encoded, "little")
    sign, y = y >> 255, y & (2**255 - 1)
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    if (x * x - square) % P:
        return None
    if x & 1 != sign:
        x = P - x
    return (x, y, 1, x * y % P)
