"""What the transport tests share: real nodes on loopback, and waiting with a deadline."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import psutil

from protocol.limits import PROTOCOL_VERSION
from protocol.messages import Hello
from swarmnode import identity
from swarmnode.config import NetworkSettings
from swarmnode.swarm.network_transport import NetworkTransport
from swarmnode.swarm.transport import AnyEvent, Transport

T = TypeVar("T")
SWARM = bytes([7] * 32)
DEADLINE_S = 180.0  # long: the machine may be busy; a passing test does not wait for it


def until(condition: Callable[[], T], what: str = "the condition") -> T:
    """The first true value of `condition`, or a failure after the deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} did not come within {DEADLINE_S} s"
        time.sleep(0.01)
    return value


def meet(*nodes: Any) -> None:
    """Waits until each of them sees all others."""
    until(lambda: all(len(n.status().peers) == len(nodes) - 1 for n in nodes), "a full mesh")


class Collected:
    """Polls transports and keeps all events, so that tests may wait for one in any order."""

    def __init__(self) -> None:
        self._events: dict[int, list[AnyEvent]] = {}

    def of(self, transport: Transport) -> list[AnyEvent]:
        events = self._events.setdefault(id(transport), [])
        events.extend(transport.poll())
        return events


def greeting(**changes: Any) -> Hello:
    fields: dict[str, Any] = {
        "lowest_version": PROTOCOL_VERSION,
        "highest_version": PROTOCOL_VERSION,
        "swarm_id": SWARM,
        "swarm_name": "demo",
        "software": "swarmnode test",
        "model_label": "none",
    }
    return Hello(**(fields | changes))


def real_node(
    folder: Path,
    *peers: str,
    hello: Hello | None = None,
    port: int = 0,
    backend: str = "hivemind",
    overhead_bytes: int = 0,
    **more: Any,
) -> Any:
    """A `NetworkTransport` on loopback, not opened; the same folder is the same identity and the
    same book of peers. `more` are settings of the network."""
    path = folder / "identity.key"
    me = identity.load_or_create(path)
    settings = NetworkSettings(host="127.0.0.1", port=port, peers=peers, **more)
    return NetworkTransport(
        backend,
        path,
        me.peer_id,
        hello or greeting(),
        settings,
        book=folder / "peers.json",
        overhead_bytes=overhead_bytes,
    )


def address(transport: Transport) -> str:
    """The TCP address of an open node, as given to --peer."""
    return next(a for a in transport.status().addresses if "/tcp/" in a)


def network_process(transport: Any) -> psutil.Process:
    """The network process of an open real node: it, or its p2pd, listens on the node's port."""
    port = int(address(transport).split("/")[4])
    return next(
        child
        for child in psutil.Process().children()
        if any(_listens(p, port) for p in (child, *child.children()))
    )


def _listens(process: psutil.Process, port: int) -> bool:
    connections = process.net_connections("tcp")
    return any(c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in connections)


def p2pd_of(process: psutil.Process) -> psutil.Process:
    return next(child for child in process.children() if child.name() == "p2pd")


def folder_of(p2pd: psutil.Process) -> Path:
    listen = next(part for part in p2pd.cmdline() if part.startswith("-listen=/unix"))
    return Path(listen.removeprefix("-listen=/unix")).parent


def is_gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
