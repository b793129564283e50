"""The node's side of the scorer process: one question's texts in, 0 or 1 for each out.

No text of a stranger is looked at in the node. The process lives long; when it does not answer in
time, dies, or answers anything but a 0 or 1 for each text, it and all it started are killed, this
rollout is lost (`ScoreFailed`), and the next one gets a fresh process.
"""

import json
import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from swarmnode.errors import SwarmNodeError
from swarmnode.rollout import Question
from swarmnode.tasks.answer import AnswerFormat
from swarmnode.tasks.scorer_process import LENGTH_BYTES, MAX_FRAME_BYTES

log = logging.getLogger(__name__)

# Twice what the longest completion a node may generate (32,768 tokens) usually has. A longer text
# scores 0 unread: it would only make requests large.
MAX_TEXT_CHARACTERS: Final = 262_144
# A list of 64 scores is 400 bytes, a probe 2 KB.
MAX_REPLY_BYTES: Final = 65_536
# Starting takes 0.1 s; a machine under load gets time, a broken installation an end.
START_LIMIT_S: Final = 30.0
_STDERR_CHARACTERS = 500

# -I -S: no environment, no user site, no site-packages; only our package's root is added.
_BOOT = (
    "import sys; sys.path.insert(0, sys.argv[1]); from swarmnode.tasks import scorer_process; "
    "scorer_process.main(int(sys.argv[2]), int(sys.argv[3]))"
)


# Layers of the sandbox that a kernel may lack; limits and the empty environment are always there.
LAYERS: Final = ("own_network", "no_new_privileges", "landlock", "system_calls")


class ScoreFailed(SwarmNodeError):
    """The scorer hung, died or lied on one rollout, which is lost. The scorer itself goes on."""


class _Broken(Exception):
    """What is wrong with the process; becomes `ScoreFailed`, or an error at the start."""


class Scorer:
    """Client of the scorer process. Open it on the thread that outlives it: on Linux the process
    dies with the thread that started it.

    `command` replaces the process's program and arguments; `restarts` counts the processes
    started beyond the first.
    """

    def __init__(
        self,
        answer_format: AnswerFormat,
        time_limit_s: float = 2.0,
        memory_bytes: int = 256 * 1024 * 1024,
        command: Sequence[str] = (),
    ) -> None:
        self._answer_format = answer_format
        self._time_limit_s = time_limit_s
        self._memory_bytes = memory_bytes
        self._command = tuple(command)
        self._process: subprocess.Popen[bytes] | None = None
        self._starts = 0
        self.missing: tuple[str, ...] = ()  # layers of the sandbox that this kernel lacks

    @property
    def pid(self) -> int | None:
        """The process's id while there is one."""
        return self._process.pid if self._process is not None else None

    @property
    def restarts(self) -> int:
        return max(self._starts - 1, 0)

    def open(self) -> None:
        """Starts the process and waits until it is locked down. Raises `SwarmNodeError` if it
        cannot be started. Does nothing if it runs."""
        if self._process is None:
            self._start()

    def close(self) -> None:
        """Kills the process, if there is one."""
        self._kill()

    def score(self, question: Question, texts: Sequence[str]) -> tuple[float, ...]:
        """1.0 for each text whose answer is right, else 0.0. Raises `ScoreFailed` when this rollout
        cannot be scored, `SwarmNodeError` when the process cannot be started again."""
        reply = self._ask(
            {
                "answer": question.answer,
                "metadata": dict(question.metadata),
                "format": self._answer_format,
                "texts": [text if len(text) <= MAX_TEXT_CHARACTERS else "" for text in texts],
            }
        )
        if (
            type(reply) is not list
            or len(reply) != len(texts)
            or not all(type(score) is float and score in (0.0, 1.0) for score in reply)
        ):
            self._kill()
            raise ScoreFailed("the scorer did not answer with a 0 or 1 for each text")
        return tuple(reply)

    def probe(self) -> dict[str, Any]:
        """What a text that took the process over could reach, tried from inside: a self-check."""
        reply = self._ask({"probe": True})
        if type(reply) is not dict:
            self._kill()
            raise ScoreFailed("the scorer did not answer its probe")
        return reply

    def _ask(self, request: dict[str, Any]) -> Any:
        payload = json.dumps(request).encode()
        if len(payload) > MAX_FRAME_BYTES:
            raise ScoreFailed(f"the texts are {len(payload)} bytes, more than the scorer takes")
        self.open()
        deadline = time.monotonic() + self._time_limit_s
        try:
            self._send(len(payload).to_bytes(LENGTH_BYTES, "big") + payload, deadline)
            return self._receive(deadline)
        except _Broken as error:
            reason = self._kill()
            raise ScoreFailed(f"the scorer {error}{reason}; it was killed") from error

    def _start(self) -> None:
        root = str(Path(__file__).resolve().parents[2])
        command = self._command or (
            *(sys.executable, "-I", "-S", "-c", _BOOT, root),
            *(str(self._memory_bytes), str(os.getpid())),
        )
        self._starts += 1
        try:
            self._process = subprocess.Popen(  # noqa: S603  our own program
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                env={},
                cwd="/",
                start_new_session=True,
            )
            for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
                assert pipe is not None
                os.set_blocking(pipe.fileno(), False)
            self._note(self._receive(time.monotonic() + START_LIMIT_S))
        except OSError as error:
            self._kill()
            raise SwarmNodeError(f"the scorer process cannot be started: {error}") from error
        except _Broken as error:
            reason = self._kill()
            raise SwarmNodeError(f"the scorer process {error} at its start{reason}") from error

    def _note(self, report: Any) -> None:
        """Keeps what the process says of its lock-down, and says once what this kernel lacks."""
        self.missing = missing_layers(report) if type(report) is dict else ()
        if self.missing and self._starts == 1:
            log.warning("event=scorer_sandbox missing=%s", ",".join(self.missing))

    def _send(self, frame: bytes, deadline: float) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        view, pipe = memoryview(frame), self._process.stdin.fileno()
        while view:
            _wait(pipe, select.POLLOUT, deadline)
            try:
                view = view[os.write(pipe, view) :]
            except OSError as error:
                raise _Broken("died") from error

    def _receive(self, deadline: float) -> Any:
        length = int.from_bytes(self._receive_exactly(LENGTH_BYTES, deadline), "big")
        if length > MAX_REPLY_BYTES:
            raise _Broken(f"sent a reply of {length} bytes")
        try:
            return json.loads(self._receive_exactly(length, deadline))
        except (ValueError, RecursionError) as error:
            raise _Broken("did not reply in JSON") from error

    def _receive_exactly(self, length: int, deadline: float) -> bytes:
        assert self._process is not None
        assert self._process.stdout is not None
        data, pipe = b"", self._process.stdout.fileno()
        while len(data) < length:
            _wait(pipe, select.POLLIN, deadline)
            part = os.read(pipe, length - len(data))
            if not part:
                raise _Broken("died")
            data += part
        return data

    def _kill(self) -> str:
        """Ends the process and all of its session. Returns what it last said on standard error, for
        a message; empty if nothing. Idempotent."""
        process, self._process = self._process, None
        if process is None:
            return ""
        with suppress(ProcessLookupError):  # the group's leader is not reaped: its id is not reused
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        said = ""
        for pipe in (process.stdin, process.stdout, process.stderr):
            assert pipe is not None
            if pipe is process.stderr:
                said = _last_words(pipe.fileno())
            pipe.close()
        if said:
            log.warning("event=scorer_killed pid=%d stderr=%r", process.pid, said)
        return f" ({said!r})" if said else ""


def missing_layers(report: Mapping[str, Any]) -> tuple[str, ...]:
    """The layers that the process's report at its start says it has not.

    >>> missing_layers({"own_network": True, "no_new_privileges": True, "landlock": 7})
    ('system_calls',)
    """
    return tuple(layer for layer in LAYERS if not report.get(layer))


def _wait(pipe: int, event: int, deadline: float) -> None:
    """Until the pipe can be read or written, or its other end is closed."""
    poll = select.poll()
    poll.register(pipe, event)
    left_s = deadline - time.monotonic()
    if left_s <= 0 or not poll.poll(left_s * 1000):
        raise _Broken("did not answer in time")


def _last_words(pipe: int) -> str:
    try:
        data = os.read(pipe, MAX_REPLY_BYTES)
    except BlockingIOError:
        return ""
    return data.decode(errors="replace")[-_STDERR_CHARACTERS:].strip()
