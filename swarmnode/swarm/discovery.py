"""How a node meets its swarm: it dials the peers that the user gave, for ever, and greets them.

In the background of the network process. No bootstrap is special: any one peer of the swarm leads
to the others (`seeking.py`), and a node without any waits to be found.
"""

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import anyio

from protocol.errors import ProtocolError
from protocol.messages import Hello
from swarmnode.swarm import multiaddr
from swarmnode.swarm.bounded import Budget, RecentIds
from swarmnode.swarm.fetching import greet, short_reason
from swarmnode.swarm.host import Host, HostError
from swarmnode.swarm.transport import AnyEvent, PeerNote

# Between dials of one address that fails. With the dial itself, who comes back is joined again
# within half a minute.
_FIRST_PAUSE_S, _MAX_PAUSE_S = 1.0, 15.0
_PROBE_S = 4.0
_GREETINGS, _GREETING_PAUSE_S = 3, 1.0  # attempts before a person hears of no answer
_CONNECT_S = 8
_CHECK_S = 1.0  # between looks whether a dialled peer is still connected; no traffic


# Notes of strangers that greet, in a window of seconds: a person needs one, and keys cost nothing.
NOTES, _NOTES_WINDOW_S = 5, 600.0
_MAX_STRANGERS = 1024  # remembered, to note each once


@dataclass
class Neighbours:
    """Who is connected now, as the network process last saw it."""

    connected: frozenset[str] = frozenset()
    members: tuple[str, ...] = ()  # those of them that take part in this swarm
    relayed: tuple[str, ...] = ()  # those that are connected through a relay only
    avoided: dict[str, float] = field(default_factory=dict)  # until when, monotonic seconds

    def avoids(self, peer: str) -> bool:
        """Whether nothing is to be had to do with `peer` now."""
        return self.avoided.get(peer, 0.0) > time.monotonic()


class Dialler:
    """Keeps one user-given peer connected; says what it thinks of its greeting, once.

    `met` is told of each connection: peer id and address.
    """

    def __init__(
        self,
        address: str,
        host: Host,
        hello: Hello,
        hello_bytes: bytes,
        neighbours: Neighbours,
        emit: Callable[[AnyEvent], None],
        rng: random.Random,
        met: Callable[[str, str], None] = lambda peer, address: None,
    ) -> None:
        self.address = address
        self._where, self._peer = multiaddr.split_peer(address)
        self._host = host
        self._hello = hello
        self._hello_bytes = hello_bytes
        self._neighbours = neighbours
        self._emit = emit
        self._rng = rng
        self._met = met
        self._problem = ""
        self._next_try = 0.0
        self._said = ""

    def problem(self) -> str:
        """Why the peer is not connected, in one line; "" when it is, or was not tried yet."""
        if not self._problem:
            return ""
        wait_s = max(0.0, self._next_try - time.monotonic())
        return f"dialing {self.address} failed: {self._problem}, next try in {wait_s:.0f} s"

    async def run(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                await self._connect()
            except HostError as error:
                self._problem = short_reason(str(error)) or "unknown"
                wait_s = pause_s * self._rng.uniform(0.75, 1.25)
                self._next_try = time.monotonic() + wait_s
                await anyio.sleep(wait_s)
                pause_s = min(2 * pause_s, _MAX_PAUSE_S)
                continue
            self._problem, pause_s = "", _FIRST_PAUSE_S
            self._met(self._peer, self._where)
            await self._greet()
            await self._until_lost()

    async def _connect(self) -> None:
        if self._neighbours.avoids(self._peer):
            raise HostError("it lied or flooded and is avoided for some minutes")
        endpoint = multiaddr.tcp_endpoint(self._where)
        if endpoint is not None and self._peer not in self._neighbours.connected:
            # Asked of the host, each failure would lengthen the back-off it keeps per address
            # (up to five minutes); a plain connection fails with a clearer word and no memory.
            await _probe(*endpoint)
        await self._host.connect(self._peer, [self._where], _CONNECT_S)

    async def _greet(self) -> None:
        try:
            note = mismatch(self._hello, await self._their_hello())
        except HostError as error:
            why = short_reason(str(error))
            note = f"does not answer the greeting of swarmnode ({why}): is it another program?"
        except ProtocolError as error:
            note = f"sent a malformed greeting ({error.detail}): is it another program?"
        if note and note != self._said:
            self._said = note
            self._emit(PeerNote(self._peer, f"{self.address} {note}"))

    async def _their_hello(self) -> Hello:
        """The peer's greeting. Asked for again a few times: a node that has just started is
        reachable a moment before it answers."""
        for _ in range(_GREETINGS - 1):
            try:
                return await greet(self._host, self._peer, self._hello_bytes)
            except HostError:
                await anyio.sleep(_GREETING_PAUSE_S)
        return await greet(self._host, self._peer, self._hello_bytes)

    async def _until_lost(self) -> None:
        await anyio.sleep(2 * _CHECK_S)  # the list of neighbours is that old
        while self._peer in self._neighbours.connected:
            await anyio.sleep(_CHECK_S)


class Strangers:
    """Peers that greeted this node and cannot take part: counted and noted, each once.

    Above `_MAX_STRANGERS` the longest forgotten count again. `count` is of this process.
    """

    def __init__(self, hello: Hello, emit: Callable[[AnyEvent], None]) -> None:
        self.count = 0
        self._hello = hello
        self._emit = emit
        self._known = RecentIds(_MAX_STRANGERS, math.inf)
        self._budget = Budget(NOTES, _NOTES_WINDOW_S)

    def greet(self, peer: str, address: str, theirs: Hello, now: float) -> None:
        """Takes a greeting of `peer` at `now` (seconds)."""
        problem = mismatch(self._hello, theirs)
        if not problem or peer.encode() in self._known:
            return
        self._known.add(peer.encode(), now)
        self.count += 1
        if self._budget.allows("everyone", now):
            self._emit(PeerNote(peer, f"{peer} at {address} {problem}"))


def mismatch(ours: Hello, theirs: Hello) -> str:
    """What keeps two nodes apart and what to do about it; "" when nothing does.

    >>> a = Hello(1, 1, bytes(32), "demo", "swarmnode", "m")
    >>> mismatch(a, Hello(1, 1, bytes([31] * 32), "other", "swarmnode", "m"))
    "is in swarm 'other' (1f1f1f1f), this node is in 'demo' (00000000): start both with the \
same --swarm"
    """
    if theirs.lowest_version > ours.highest_version or theirs.highest_version < ours.lowest_version:
        newer = theirs.lowest_version > ours.highest_version
        return (
            f"speaks protocol version {_versions(theirs)}, this node {_versions(ours)}: "
            f"upgrade {'this node' if newer else 'that node'}"
        )
    if theirs.swarm_id != ours.swarm_id:
        return (
            f"is in swarm {theirs.swarm_name!r} ({theirs.swarm_id[:4].hex()}), this node is in "
            f"{ours.swarm_name!r} ({ours.swarm_id[:4].hex()}): start both with the same --swarm"
            f"{' and --swarm-key' if 'private' in (ours.swarm_name, theirs.swarm_name) else ''}"
        )
    return ""


async def _probe(host: str, port: int) -> None:
    try:
        with anyio.fail_after(_PROBE_S):
            stream = await anyio.connect_tcp(host, port)
    except TimeoutError as error:
        raise HostError(f"no answer within {_PROBE_S:.0f} s") from error
    except OSError as error:
        raise HostError(_plain(error)) from error
    await stream.aclose()


def _plain(error: OSError) -> str:
    if isinstance(error.__cause__, OSError):
        error = error.__cause__  # anyio's own says that all attempts failed
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    return (error.strerror or str(error)).lower()


def _versions(hello: Hello) -> str:
    low, high = hello.lowest_version, hello.highest_version
    return f"{low}" if low == high else f"{low} to {high}"
