"""A scorer process that starts well and then misbehaves in the way its argument names."""

import json
import os
import sys
import time
from typing import Any

FRAMES: dict[str, Any] = {
    "too_few": [1.0],
    "not_a_list": {"scores": [1.0, 1.0]},
    "partial": [1.0, 0.5],
    "nan": [1.0, float("nan")],
    "integers": [1, 1],
    "booleans": [True, True],
    "honest": [1.0, 0.0],
}
RAW: dict[str, tuple[bytes, int | None]] = {
    "huge": (b"[", 2**31),
    "not_json": (b"[1.0, ", None),
    "nested": (b"[" * 60_000, None),
    "half": (b"[1.0", 10),
}


def write(payload: bytes, length: int | None = None) -> None:
    header = (len(payload) if length is None else length).to_bytes(4, "big")
    sys.stdout.buffer.write(header + payload)
    sys.stdout.buffer.flush()


def main(manner: str) -> None:
    if manner == "dies_at_start":
        sys.exit("no memory for\n\x1b[31mred")
    write(b"{}")
    if manner == "locked_down_not":
        probe_unlocked()
        return
    header = sys.stdin.buffer.read(4)
    sys.stdin.buffer.read(int.from_bytes(header, "big"))
    if manner == "crashes":
        os.abort()
    if manner in RAW:
        write(*RAW[manner])
    elif manner in FRAMES:
        write(json.dumps(FRAMES[manner]).encode())
    else:
        hang(manner)
    sys.stdin.buffer.read()


def probe_unlocked() -> None:
    from swarmnode.tasks import scorer_process

    scorer_process._read(sys.stdin.buffer)
    write(json.dumps(scorer_process._probe({})).encode())


def hang(manner: str) -> None:
    if manner == "starts_a_child_and_hangs" and os.fork() == 0:
        sys.stderr.write(f"child {os.getpid()}")
        sys.stderr.flush()
    while True:
        time.sleep(60)


if __name__ == "__main__":
    main(sys.argv[1])
