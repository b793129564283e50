"""A node's `Transport` in a process of its own, which may live in a network namespace.

    with RemoteNode(folder, namespace="swn1a", host="0.0.0.0", peers=[…]) as node:
        node.publish(b"…"); node.poll(); node.status()

Run as a program it is the other side: one JSON line in, one out.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import msgspec

from protocol.messages import Hello
from swarmnode import identity
from swarmnode.config import NetworkSettings
from swarmnode.swarm.network_transport import NetworkTransport
from swarmnode.swarm.transport import AnyEvent, TransportStatus

ROOT = Path(__file__).parents[2]
SWARM = bytes([7] * 32)
# Long: reachability probes take their time and the machine may be busy. A test that passes does
# not wait for it.
DEADLINE_S = 180.0
T = TypeVar("T")
_events = msgspec.json.Decoder(list[AnyEvent])
_status = msgspec.json.Decoder(TransportStatus)


def greeting() -> Hello:
    """What test nodes say of themselves."""
    return Hello.build(swarm_id=SWARM, swarm_name="chaos", software="test", model_label="none")


def until(
    condition: Callable[[], T],
    what: str,
    pause_s: float = 0.05,
    lacking: Callable[[], Sequence[str]] = tuple,
) -> T:
    """The first true value of `condition`, or a failure after the deadline, which tells what is
    `lacking` still."""
    deadline = time.monotonic() + DEADLINE_S
    while not (value := condition()):
        if time.monotonic() >= deadline:
            late = f"{what} did not come within {DEADLINE_S:.0f} s"
            raise AssertionError("; ".join((late, *lacking())))
        time.sleep(pause_s)
    return value


class RemoteNode:
    """Calls on the node in the other process; each waits for its answer."""

    def __init__(
        self, folder: Path, *, namespace: str = "", backend: str = "hivemind", **settings: Any
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        enter = ["ip", "netns", "exec", namespace] if namespace else []
        self._process = subprocess.Popen(
            [*enter, sys.executable, __file__, folder, backend, json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        self.peer_id: str = self._read()

    def publish(self, frame: bytes) -> None:
        self._call("publish", frame.hex())

    def hold(self, id: bytes, frame: bytes) -> None:
        self._call("hold", id.hex(), frame.hex())

    def fetch(self, peer: str, *ids: bytes) -> None:
        self._call("fetch", peer, [id.hex() for id in ids])

    def poll(self) -> list[AnyEvent]:
        return _events.decode(self._call("poll"))

    def status(self) -> TransportStatus:
        return _status.decode(self._call("status"))

    def address(self, contains: str = "/tcp/") -> str:
        """The first address of the node with `contains` in it."""
        return next(a for a in self.status().addresses if contains in a)

    def close(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(30)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def __enter__(self) -> "RemoteNode":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _call(self, *call: Any) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(call) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the remote node ended with code {self._process.wait(30)}")
        return json.loads(line)


def _serve(folder: Path, backend: str, settings: dict[str, Any]) -> None:
    me = identity.load_or_create(folder / "identity.key")
    chosen = msgspec.convert(settings, NetworkSettings)
    node = NetworkTransport(backend, folder / "identity.key", me.peer_id, greeting(), chosen)
    node.open()
    try:
        _say(me.peer_id)
        for line in sys.stdin:
            name, *arguments = json.loads(line)
            _say(_do(node, name, arguments))
    finally:
        node.close()


def _do(node: NetworkTransport, name: str, arguments: list[Any]) -> str | None:
    match name, arguments:
        case "publish", [frame]:
            node.publish(bytes.fromhex(frame))
        case "hold", [id, frame]:
            node.hold(bytes.fromhex(id), bytes.fromhex(frame))
        case "fetch", [peer, ids]:
            node.fetch(peer, [bytes.fromhex(id) for id in ids])
        case "poll", []:
            return msgspec.json.encode(node.poll()).decode()
        case "status", []:
            return msgspec.json.encode(node.status()).decode()
        case _:
            raise ValueError(name)
    return None


def _say(what: Any) -> None:
    print(json.dumps(what), flush=True)  # noqa: T201  to the process that drives this one


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]))
