"""One target under one engine, in a process that may crash: `fuzz.py` starts it.

    fuzz_worker.py TARGET EXECUTIONS atheris|mutation SEED RESULT [--keep]

RESULT gets the executions done, the slowest of them and the processor time, also if the process
dies. With --keep, inputs that reached new code are added to the corpus (atheris only).
"""

import json
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
# Bytes of an input. Frames near the largest are tried in tests and by the bombs.
MAX_INPUT_BYTES = 4096
# How often the result is written: losing the last few thousand counts of a crash is no matter.
EVERY = 2000


class Counted:
    """A target that counts its executions and keeps the slowest."""

    def __init__(self, target, executions: int, result: Path) -> None:  # type: ignore[no-untyped-def]
        self._target = target
        self._executions = executions
        self._result = result
        self.count = 0
        self._slowest_s = 0.0

    def __call__(self, data: bytes) -> None:
        started = time.thread_time()
        self._target(data)
        self._slowest_s = max(self._slowest_s, time.thread_time() - started)
        self.count += 1
        if self.count % EVERY == 0 or self.count >= self._executions:
            self.write()

    def write(self) -> None:
        record = {
            "executions": self.count,
            "slowest_ms": self._slowest_s * 1000,
            "cpu_s": time.process_time(),
        }
        self._result.write_text(json.dumps(record))


def with_atheris(name: str, executions: int, seed: int, result: Path, keep: bool) -> None:
    """Does not return: libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=["protocol", "swarmnode", "fuzz_targets"]):
        import fuzz_targets
    target = Counted(fuzz_targets.targets(name)[name], executions, result)
    with tempfile.TemporaryDirectory() as folder:
        found = CORPUS / name if keep else Path(folder)
        options = [
            sys.argv[0],
            str(found),
            str(CORPUS / name),
            f"-runs={executions}",
            f"-seed={seed}",
            f"-max_len={MAX_INPUT_BYTES}",
            "-timeout=3600",  # wall clock, and the process may be stopped: `slowest_ms` tells
            "-rss_limit_mb=3000",
            f"-artifact_prefix={tempfile.gettempdir()}/swarmnode-fuzz-{name}-",
        ]
        atheris.Setup(options, target)
        atheris.Fuzz()


def with_mutation(name: str, executions: int, seed: int, result: Path) -> None:
    """Every input of the corpus as it is, then changed ones, with nothing to guide the changes."""
    import fuzz_targets

    target = Counted(fuzz_targets.targets(name)[name], executions, result)
    rng = random.Random(seed)
    corpus = [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]
    for data in corpus[:executions]:
        target(data)
    while target.count < executions:
        target(mutated(corpus, rng))
    target.write()


def mutated(corpus: Sequence[bytes], rng: random.Random) -> bytes:
    """One of the inputs with a few bytes changed, cut out, doubled, or taken from another one."""
    data = bytearray(rng.choice(corpus))
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        at, size = rng.randint(0, len(data)), rng.choice((0, 1, 2, 4, 16))
        match rng.randrange(5):
            case 0:
                data[at : at + 1] = bytes((rng.randrange(256),))
            case 1:
                data[at : at + size] = b""
            case 2:
                data[at:at] = rng.choice(_INTERESTING)
            case 3:
                other = rng.choice(corpus)
                start = rng.randint(0, len(other))
                data[at : at + size] = other[start : start + rng.choice((1, 4, 32))]
            case _:
                data[at:at] = data[at : at + size] * rng.choice((1, 1, 8))
    return bytes(data[:MAX_INPUT_BYTES])


_INTERESTING = (
    *(b"\x00", b"\xff", b"\x7f", b"\x80", b"\xc0", b"\xc1", b"\x90", b"\xdc\xff\xff"),
    *(b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"\x81\xa0\xa0"),
    *(b"\x91" * 64, b"\xce\x00\x00\x00\x01", b"\xcb\x7f\xf8\0\0\0\0\0\0", b"\xd6\xff\0\0\0\0"),
    *(b"\xed\xa0\x80", b"\xf4\x90\x80\x80", "\u202e\u200b".encode(), b"<|im_end|>", b"</s>"),
)


if __name__ == "__main__":
    name, executions, engine, seed, result = sys.argv[1:6]
    if engine == "atheris":
        with_atheris(name, int(executions), int(seed), Path(result), "--keep" in sys.argv)
    with_mutation(name, int(executions), int(seed), Path(result))
