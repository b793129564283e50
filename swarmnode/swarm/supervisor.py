"""Keeps one network process running: starts it, talks to it, restarts it when it ends or hangs.

Two daemon threads, so that the node's thread never waits: one starts the process and reads, one
writes. Neither holds a lock while it reads or writes.
"""

import contextlib
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

import swarmnode.swarm
from swarmnode.swarm import channel
from swarmnode.swarm.outgoing import Outgoing

# Seconds between the end of a network process and the next: doubles up to the maximum, so that a
# host that cannot start costs little, and a crash costs a round at most.
_FIRST_PAUSE_S, _MAX_PAUSE_S = 0.5, 30.0
_HEALTHY_S = 60.0  # a process that lived so long did not fail at its start: pauses begin anew
# Without a report for so long the process hangs (it sends one a second) and is replaced. Shorter
# would punish a machine whose cores are all busy training.
_SILENCE_S = 20.0
# Until its first word: importing py-libp2p takes 1.5 s of CPU, which cores that all train stretch
# to more than a minute. A process that ends says so at once; this is for one that hangs.
START_S = 180.0
_GOODBYE_S = 3.0  # what the process gets to close its host, which then tells its peers
_MAX_SOCKET_PATH = 80  # bytes of folder; a Unix socket's path ends at 107

# -P and this line, not -m: the node may run where its current folder is not on the path, or where
# it is and holds strange modules.
_BOOTSTRAP = """
import sys
root = sys.argv[1]
if root not in sys.path:
    sys.path.insert(0, root)
from swarmnode.swarm.network_process import main
main()
"""


class Supervisor:
    """`receive` gets each message, `lost` (why, seconds until the next try), both in a thread."""

    def __init__(
        self,
        start: channel.Start,
        outgoing: Outgoing,
        receive: Callable[[channel.Message], None],
        lost: Callable[[str, float], None],
    ) -> None:
        self._start = start
        self._outgoing = outgoing
        self._receive = receive
        self._lost = lost
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None

    def open(self) -> None:
        self._thread = threading.Thread(target=self._run, name="swarm-network", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the process and waits until it is gone, killing it after some seconds."""
        self._closing.set()
        with self._lock:
            if self._socket is not None:
                with contextlib.suppress(OSError):  # it may have ended by itself
                    self._socket.shutdown(socket.SHUT_RDWR)
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while not self._closing.is_set():
            began = time.monotonic()
            why = self._serve()
            if self._closing.is_set():
                return
            if time.monotonic() - began > _HEALTHY_S:
                pause_s = _FIRST_PAUSE_S
            self._lost(why, pause_s)
            self._closing.wait(pause_s)
            pause_s = min(2 * pause_s, _MAX_PAUSE_S)

    def _serve(self) -> str:
        """Runs one network process to its end and returns why it ended."""
        try:
            folder = _private_folder()
            ours, theirs = socket.socketpair()
        except OSError as error:
            return f"cannot prepare the network process: {error}"
        with ours:
            try:
                with theirs:
                    process = _spawn(theirs)
            except OSError as error:
                shutil.rmtree(folder, ignore_errors=True)
                return f"cannot start the network process: {error}"
            writer = threading.Thread(target=self._write, args=(ours,), daemon=True)
            ours.settimeout(START_S)
            with self._lock:
                self._socket = ours
            self._outgoing.begin()
            try:
                ours.sendall(
                    channel.encode(msgspec.structs.replace(self._start, folder=str(folder)))
                )
                writer.start()
                return self._read(ours)
            except OSError as error:
                return f"the network process ended: {error}"
            finally:
                with self._lock:
                    self._socket = None
                self._outgoing.end()
                with contextlib.suppress(OSError):  # wakes the writer, tells the process to end
                    ours.shutdown(socket.SHUT_RDWR)
                _end(process)
                if writer.ident is not None:
                    writer.join()
                shutil.rmtree(folder, ignore_errors=True)  # it removed it, unless it was killed

    def _read(self, source: socket.socket) -> str:
        # close() may have come before the socket was known to it
        while not self._closing.is_set():
            try:
                header = _read_exactly(source, channel.HEADER_BYTES)
                body = _read_exactly(source, channel.body_length(header))
                message = channel.decode_message(body)
            except TimeoutError:
                return f"the network process was silent for {source.gettimeout():.0f} s"
            except EOFError:
                return "the network process ended"
            except (ValueError, msgspec.DecodeError) as error:
                return f"the network process sent something unreadable: {error}"
            source.settimeout(_SILENCE_S)
            self._receive(message)
            if isinstance(message, channel.Failed):
                return message.text
        return "closed"

    def _write(self, target: socket.socket) -> None:
        while (command := self._outgoing.take()) is not None:
            try:
                target.sendall(channel.encode(command))
            except OSError:
                return  # the reader sees the same end and says why


def _private_folder() -> Path:
    """A new 0700 folder for the daemon's sockets, with a path short enough for one."""
    folder = tempfile.gettempdir()
    short = "/tmp"  # noqa: S108  mkdtemp makes a private folder inside it
    if len(folder.encode()) > _MAX_SOCKET_PATH - len("/swarmnode-xxxxxxxx"):
        folder = short
    return Path(tempfile.mkdtemp(prefix="swarmnode-", dir=folder))


def _spawn(channel_end: socket.socket) -> subprocess.Popen[bytes]:
    root = str(Path(swarmnode.swarm.__path__[0]).parents[1])
    return subprocess.Popen(  # noqa: S603  our own program
        [sys.executable, "-P", "-c", _BOOTSTRAP, root],
        stdin=channel_end.fileno(),
        stdout=subprocess.DEVNULL,
        # Its own session: Ctrl-C is for the node, which says goodbye before the network ends.
        start_new_session=True,
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    """Waits for the process, which saw its channel close; kills it when it does not end."""
    try:
        process.wait(_GOODBYE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _read_exactly(source: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        part = source.recv(count - len(data))
        if not part:
            raise EOFError
        data += part
    return bytes(data)
