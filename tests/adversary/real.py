"""Real nodes on loopback for the attacks: a victim with its exchange, honest neighbours, memory."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from parts import SWARM, Stranger, Victim, item_of, rollout, victim

from protocol.limits import PROTOCOL_VERSION
from protocol.messages import Hello
from swarmnode import identity
from swarmnode.config import NetworkSettings, TrustSettings
from swarmnode.swarm.network_transport import NetworkTransport

HERE = Path(__file__).parent
BACKENDS = ("hivemind", "libp2p")


def node(folder: Path, backend: str, *peers: str, host: str = "127.0.0.1") -> NetworkTransport:
    """A node's network on loopback, open."""
    path = folder / "identity.key"
    me = identity.load_or_create(path)
    hello = Hello(PROTOCOL_VERSION, PROTOCOL_VERSION, SWARM, "demo", "swarmnode test", "none")
    settings = NetworkSettings(host=host, peers=peers)
    transport = NetworkTransport(backend, path, me.peer_id, hello, settings)
    transport.open()
    return transport


def author(folder: Path, backend: str, *peers: str) -> Stranger:
    """Somebody with a key and a real network."""
    transport = node(folder, backend, *peers)
    return Stranger(identity.load_or_create(folder / "identity.key"), transport)  # type: ignore[arg-type]


def address(transport: NetworkTransport) -> str:
    return next(a for a in transport.status().addresses if "/tcp/" in a)


def met(*transports: NetworkTransport, within_s: float = 120.0) -> None:
    """Waits until each has a peer."""
    until = time.monotonic() + within_s
    while not all(t.status().peers for t in transports):
        assert time.monotonic() < until, "the nodes did not meet"
        time.sleep(0.05)


def processes(transport: NetworkTransport) -> list[psutil.Process]:
    """The network process of a node of ours and what it started."""
    port = int(address(transport).split("/")[4])
    for child in psutil.Process().children():
        family = [child, *child.children()]
        if any(_listens(one, port) for one in family):
            return family
    raise AssertionError("no process listens on the node's port")


def memory_bytes(family: list[psutil.Process]) -> int:
    total = 0
    for one in family:
        with suppress(psutil.Error):
            total += one.memory_info().rss
    return total


def _listens(process: psutil.Process, port: int) -> bool:
    connections = process.net_connections("tcp")
    return any(c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in connections)


@contextmanager
def attacked(where: str, kind: str, *options: object) -> Iterator[subprocess.Popen[str]]:
    """Runs `stranger.py`; ends it after the block. It has begun when the block begins."""
    path = f"{HERE.parents[1]}{os.pathsep}{HERE}"
    program = [sys.executable, HERE / "stranger.py", where, kind, *map(str, options)]
    with subprocess.Popen(
        program, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": path}
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().strip() == "began"
            yield process
        finally:
            process.kill()


class Workload:
    """Honest rollouts at a steady pace, each announced by itself: published by the honest nodes in
    turn, fetched and admitted by the victim.

    Counts what arrives within `patience_s` of the last publication. The victim has some more honest
    neighbours, as in a swarm: GossipSub drops some of what comes while it is flooded, and passes on
    what came by another way. Each node publishes `per_s`; above 3 it would flood itself.
    """

    def __init__(
        self,
        folder: Path,
        backend: str,
        trust: TrustSettings | None = None,
        per_s: float = 2.0,
        neighbours: int = 0,
    ) -> None:
        self.backend = backend
        self.network = node(folder / "victim", backend)
        self.victim: Victim = victim(self.network, trust=trust)
        self.honest = author(folder / "honest", backend, address(self.network))
        known = address(self.network), address(self.honest.transport)  # type: ignore[arg-type]
        self.others = [author(folder / f"other {n}", backend, *known) for n in range(neighbours)]
        self.per_s = per_s * (1 + neighbours)
        self._number = 0

    def close(self) -> None:
        for transport in (self.network, *(one.transport for one in self.authors)):
            transport.close()

    @property
    def authors(self) -> list[Stranger]:
        """The honest ones."""
        return [self.honest, *self.others]

    def run(self, for_s: float, patience_s: float = 5.0) -> tuple[int, int]:
        """(published, admitted) in so many seconds."""
        began, published, admitted = time.monotonic(), 0, 0
        honest = {one.me.public_key for one in self.authors}
        while (passed_s := time.monotonic() - began) < for_s + patience_s:
            if passed_s < for_s and published < passed_s * self.per_s:
                self._publish()
                published += 1
            self.victim.now = time.time()
            arrivals = self.victim.round(24)
            admitted += sum(arrival.origin.author in honest for arrival in arrivals)
            if passed_s > for_s and admitted >= published:
                break
            time.sleep(0.05)
        return published, admitted

    def _publish(self) -> None:
        self._number += 1
        now = time.time()
        one = rollout(self._number, [f"{self._number} is right", "no"], created=now)
        who = self.authors[self._number % len(self.authors)]
        sealed = who.seal(one)
        who.transport.hold(sealed.id, sealed.frame)
        who.announce(item_of(sealed, one), created=now, round=self._number)
