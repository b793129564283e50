"""The node's side of the engine process (`engine_process.py`): starts it, feeds it, kills it.

Whatever goes wrong with it (it dies, says nothing for too long, answers with an error or with
something else than asked) becomes `EngineFailed`, and the process and all it started are gone by
then. When to start another is for the caller (`vllm.py`).
"""

import json
import mmap
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Final

import torch
from torch import Tensor

from swarmnode.generate.engine import Batch, EngineFailed, Sampled
from swarmnode.generate.engine_process import LENGTH_BYTES, frame_of

# Loading vLLM, making the model, compiling on a GPU: 20 s to some minutes on a busy machine.
START_LIMIT_S: Final = 1800.0
# Weights travel through a window of at least so many bytes, whole tensors at a time: larger needs
# more memory, smaller more round trips.
WINDOW_BYTES: Final = 64 * 2**20
_ALIGNMENT = 64  # of a tensor in the window; what the widest vector load wants
# 512 sequences of 32,768 tokens, in JSON with their log-probabilities.
MAX_REPLY_BYTES: Final = 2**30
_STDERR_BYTES = 2000
_DYING_S: Final = 5.0

# The package may be run from a source tree: its root is added as the parent's was.
_BOOT = (
    "import sys; sys.path.insert(0, sys.argv[1]); from swarmnode.generate import engine_process; "
    "engine_process.main(*map(int, sys.argv[2:]))"
)


class EngineProcess:
    """An `Engine`. `options` are vLLM's arguments, `environment` is laid over this process's own.

    `silence_s`: how long a running engine may say nothing before it counts as hung. `command`
    replaces the process's program; four numbers are appended to it.
    """

    def __init__(
        self,
        options: Mapping[str, Any],
        environment: Mapping[str, str],
        stop_ids: Sequence[int],
        silence_s: float,
        *,
        command: Sequence[str] = (),
    ) -> None:
        self._options = dict(options)
        self._environment = dict(environment)
        self._stop_ids = sorted(stop_ids)
        self._silence_s = silence_s
        root = str(Path(__file__).resolve().parents[2])
        self._command = tuple(command) or (sys.executable, "-c", _BOOT, root)
        self._process: subprocess.Popen[bytes] | None = None
        self._requests = self._replies = -1
        self._said: IO[bytes] | None = None
        self._window: _Window | None = None
        self._expected = 0

    @property
    def runs(self) -> bool:
        """Whether there is a process."""
        return self._process is not None

    @property
    def pid(self) -> int | None:
        """Its id while there is one."""
        return self._process.pid if self._process is not None else None

    def start(self, context: int) -> None:
        """See `Engine`."""
        self.kill()
        if self._window is None:
            self._window = _Window()
        try:
            self._spawn(self._window.descriptor)
        except OSError as error:
            self.kill()
            raise EngineFailed(f"the engine's process cannot be started: {error}") from error
        options = self._options | {"max_model_len": context}
        self._ask({"do": "start", "options": options}, START_LIMIT_S)

    def load(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """See `Engine`."""
        assert self._window is not None
        self._ask({"do": "begin"}, self._silence_s)
        for described in self._window.filled(weights):
            self._ask({"do": "weights", "tensors": described}, self._silence_s)
        self._ask({"do": "finish", "version": version}, self._silence_s)

    def send(self, batch: Batch) -> None:
        """See `Engine`."""
        self._expected = len(batch.requests)
        request = {
            "do": "answer",
            "requests": [[one.prompt, one.seed, one.max_new_tokens] for one in batch.requests],
            "temperature": batch.temperature or 0.0,
            "stop_ids": self._stop_ids,
        }
        self._send(request, self._silence_s)

    def receive(self) -> Sequence[Sampled]:
        """See `Engine`."""
        answers = self._receive(self._silence_s)
        try:
            sampled = [Sampled(list(map(int, i)), list(map(float, p))) for i, p in answers]
        except (TypeError, ValueError) as error:
            raise self._failed("did not answer with ids and log-probabilities") from error
        if len(sampled) != self._expected or not all(
            one.ids and len(one.ids) == len(one.logps) for one in sampled
        ):
            raise self._failed("did not answer every request in full")
        return sampled

    def sleep(self) -> None:
        """See `Engine`."""
        self._ask({"do": "sleep"}, self._silence_s)

    def wake(self) -> None:
        """See `Engine`."""
        self._ask({"do": "wake"}, self._silence_s)

    def kill(self) -> None:
        """See `Engine`."""
        self._end()

    def close(self) -> None:
        """Ends the process and gives the shared memory back. Idempotent."""
        self._end()
        if self._window is not None:
            self._window.close()
            self._window = None

    # --- the process ---

    def _spawn(self, memory: int) -> None:
        theirs_in, self._requests = os.pipe()
        self._replies, theirs_out = os.pipe()
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  closed by `_end`
        arguments = (theirs_in, theirs_out, memory, os.getpid())
        try:
            self._process = subprocess.Popen(  # noqa: S603  our own program
                [*self._command, *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=self._said,
                stderr=self._said,
                env=os.environ | self._environment,
                pass_fds=(theirs_in, theirs_out, memory),
                start_new_session=True,  # Ctrl-C is the node's; and all it starts dies with it
            )
        finally:
            os.close(theirs_in)
            os.close(theirs_out)
        os.set_blocking(self._requests, False)
        os.set_blocking(self._replies, False)

    def _end(self) -> str:
        """Kills the process and its session; returns the last of what it said."""
        process, self._process = self._process, None
        if process is not None:
            with suppress(ProcessLookupError):  # not reaped yet: its id is not reused
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for descriptor in (self._requests, self._replies):
            if descriptor >= 0:
                os.close(descriptor)
        self._requests = self._replies = -1
        if self._said is None:
            return ""
        with self._said as said:
            self._said = None
            said.seek(max(0, said.seek(0, os.SEEK_END) - _STDERR_BYTES))
            lines = said.read().decode(errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else ""

    def _died(self) -> EngineFailed:
        assert self._process is not None
        with suppress(subprocess.TimeoutExpired):  # its pipes close a moment before it is gone
            return self._failed(f"died, exit code {self._process.wait(_DYING_S)}")
        return self._failed("closed its pipes")

    def _failed(self, what: str) -> EngineFailed:
        said = self._end()
        last = f"; its last words: {said}" if said else ""
        return EngineFailed(f"the engine {what}{last}")

    # --- frames ---

    def _ask(self, request: dict[str, Any], silence_s: float) -> Any:
        self._send(request, silence_s)
        return self._receive(silence_s)

    def _send(self, request: dict[str, Any], silence_s: float) -> None:
        if self._process is None:
            raise EngineFailed("the engine is not running")
        view = memoryview(frame_of(request))
        while view:
            self._wait(self._requests, select.POLLOUT, silence_s)
            try:
                view = view[os.write(self._requests, view) :]
            except BrokenPipeError as error:
                raise self._died() from error

    def _receive(self, silence_s: float) -> Any:
        """What a request came to; each sign of life gives it `silence_s` more."""
        while True:
            length = int.from_bytes(self._receive_exactly(LENGTH_BYTES, silence_s), "big")
            if length > MAX_REPLY_BYTES:
                raise self._failed(f"sent a reply of {length} bytes")
            try:
                reply = json.loads(self._receive_exactly(length, silence_s))
            except ValueError as error:
                raise self._failed("did not reply in JSON") from error
            if "alive" in reply:
                continue
            if "done" not in reply:
                raise self._failed(f"failed: {reply.get('error')}")
            return reply["done"]

    def _receive_exactly(self, length: int, silence_s: float) -> bytes:
        parts: list[bytes] = []
        while length:
            self._wait(self._replies, select.POLLIN, silence_s)
            part = os.read(self._replies, min(length, 2**20))
            if not part:
                raise self._died()
            parts.append(part)
            length -= len(part)
        return b"".join(parts)

    def _wait(self, pipe: int, event: int, silence_s: float) -> None:
        """Until the pipe can be read or written, or its other end is closed."""
        if self._process is None:
            raise EngineFailed("the engine is not running")
        poll = select.poll()
        poll.register(pipe, event)
        if not poll.poll(silence_s * 1000):
            raise self._failed(f"said nothing for {silence_s:g} s")


class _Window:
    """Memory that the node writes and the engine's process reads, without a name or a file."""

    def __init__(self) -> None:
        self.descriptor = os.memfd_create("swarmnode-weights")
        self._mapped: mmap.mmap | None = None

    def filled(self, weights: Iterable[tuple[str, Tensor]]) -> Iterator[list[list[Any]]]:
        """Writes tensors until the window is full, yields [name, dtype, shape, offset] of each,
        and goes on when it is resumed: the reader must have copied by then."""
        described: list[list[Any]] = []
        end = 0
        for name, tensor in weights:
            size = tensor.numel() * tensor.element_size()
            if described and end + size > self._size:
                yield described
                described, end = [], 0
            self._make_room(size)
            self._write(tensor, end)
            kind = str(tensor.dtype).removeprefix("torch.")
            described.append([name, kind, list(tensor.shape), end])
            end += -(-size // _ALIGNMENT) * _ALIGNMENT
        if described:
            yield described

    def close(self) -> None:
        """Gives the memory back."""
        if self._mapped is not None:
            self._mapped.close()
            self._mapped = None
        os.close(self.descriptor)

    @property
    def _size(self) -> int:
        return len(self._mapped) if self._mapped is not None else 0

    def _make_room(self, size: int) -> None:
        """Only called where nothing written is still to be read."""
        wanted = max(size, WINDOW_BYTES)
        if self._mapped is None or len(self._mapped) < size:
            if self._mapped is not None:
                self._mapped.close()
            os.ftruncate(self.descriptor, wanted)
            self._mapped = mmap.mmap(self.descriptor, wanted)

    def _write(self, tensor: Tensor, offset: int) -> None:
        assert self._mapped is not None
        place = torch.frombuffer(
            self._mapped, dtype=tensor.dtype, count=tensor.numel(), offset=offset
        )
        place.view(tensor.shape).copy_(tensor.detach())
