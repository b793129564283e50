"""The scorer process: reads strangers' answers, says 0 or 1, and can do nothing else.

Started by `scorer.py` with `-I -S`, an empty environment and the standard library only, it locks
itself down before it reads the first request: it dies with the node (`PR_SET_PDEATHSIG`) and at the
end of its input, ignores SIGINT, and gives up what `sandbox.py` lists. It sees no key, no model and
no answer but the question's own.

Frames both ways: 4 bytes of length, big endian, and JSON. Requests: `{"answer", "metadata",
"format", "texts"}` → a list of 0.0 and 1.0; `{"probe": true}` → what the lock-down achieved.
"""

import ctypes
import json
import os
import signal
import socket
import sys
from typing import Any, BinaryIO, Final

from swarmnode.tasks import answer, compare, sandbox

# A request holds one question's completions: 64 of `scorer.MAX_TEXT_CHARACTERS`, as plain text.
MAX_FRAME_BYTES: Final = 32 * 1024 * 1024
LENGTH_BYTES: Final = 4

_PR_SET_PDEATHSIG = 1


def main(memory_bytes: int, parent: int) -> None:
    """Locks the process down, says so, and answers requests until its input ends."""
    report = _lock_down(memory_bytes, parent)
    reader, writer = sys.stdin.buffer, sys.stdout.buffer
    _write(writer, report)
    while True:
        request = _read(reader)
        if request is None:
            return
        _write(writer, _probe(report) if "probe" in request else _scores(request))


def _scores(request: dict[str, Any]) -> list[float]:
    scores = []
    for text in request["texts"]:
        given = answer.extract(text, request["format"])
        right = given is not None and compare.is_right(
            given, request["answer"], request["metadata"]
        )
        scores.append(1.0 if right else 0.0)
    return scores


def _lock_down(memory_bytes: int, parent: int) -> dict[str, Any]:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.clear()  # the interpreter itself adds LC_CTYPE to an empty environment
    libc = ctypes.CDLL(None, use_errno=True)
    dies_with_parent = libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) == 0
    if os.getppid() != parent:  # it died before prctl could take effect
        sys.exit(1)
    own_network = sandbox.network()
    no_new_privileges = sandbox.no_new_privileges()
    landlock = sandbox.landlock()  # takes a descriptor for a moment
    sandbox.limits(memory_bytes)
    return {
        "dies_with_parent": dies_with_parent,
        "own_network": own_network,
        "no_new_privileges": no_new_privileges,
        "landlock": landlock,
        "system_calls": sandbox.system_calls(),
        "memory_bytes": memory_bytes,
    }


def _probe(report: dict[str, Any]) -> dict[str, Any]:
    """What a text that took this process over could reach; each item is tried, not looked up."""
    return report | {
        "environment": sorted(os.environ),
        "can_open_file": _succeeds(lambda: os.close(os.open(sys.executable, os.O_RDONLY))),
        "can_open_socket": _succeeds(lambda: socket.socket().close()),
        "can_start_process": _succeeds(_start_process),
        "can_allocate_limit": _succeeds(lambda: bytearray(report.get("memory_bytes", 0))),
        "modules": sorted({name.partition(".")[0] for name in sys.modules}),
    }


def _succeeds(attempt: Any) -> bool:
    try:
        attempt()
    except (OSError, MemoryError):
        return False
    return True


def _start_process() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


def _read(reader: BinaryIO) -> dict[str, Any] | None:
    header = reader.read(LENGTH_BYTES)
    length = int.from_bytes(header, "big")
    if len(header) < LENGTH_BYTES or length > MAX_FRAME_BYTES:
        return None
    request: dict[str, Any] = json.loads(reader.read(length))
    return request


def _write(writer: BinaryIO, value: Any) -> None:
    payload = json.dumps(value).encode()
    writer.write(len(payload).to_bytes(LENGTH_BYTES, "big") + payload)
    writer.flush()
