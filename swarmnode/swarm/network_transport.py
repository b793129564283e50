"""The real network: `Transport` over a network process that runs one of two libp2p libraries.

    node's thread ── Outgoing ──> writer thread ══ socket pair ══> network process ── host ── peers
                  <── events ──── reader thread <═══════════════

The node's thread only ever takes a lock for microseconds. The rest lives in: `supervisor` (runs
and restarts the process), `channel` (what is said between them), `network_process` and `network`
(the other side), `fetching` and `discovery` (what it does), `hivemind_p2pd` and `libp2p_trio`
(the libraries, each as a `host.Host`).
"""

import ipaddress
import logging
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from protocol.codec import encode_hello
from protocol.messages import Hello
from protocol.names import WHOLE, Shard, check_shard
from swarmnode.config import NetworkSettings
from swarmnode.errors import ConfigError, SwarmNodeError
from swarmnode.swarm import channel
from swarmnode.swarm.alone import Alone, Surroundings, explain
from swarmnode.swarm.bounded import BoundedQueue
from swarmnode.swarm.budget import bytes_per_s
from swarmnode.swarm.interfaces import listening
from swarmnode.swarm.multiaddr import check_announced, split_peer
from swarmnode.swarm.outgoing import Outgoing
from swarmnode.swarm.ports import check_port_is_free, choose_port
from swarmnode.swarm.reach import Reach
from swarmnode.swarm.supervisor import START_S, Supervisor
from swarmnode.swarm.transport import (
    MAX_EVENT_BYTES,
    MAX_EVENTS,
    QUEUES,
    AnyEvent,
    Fetched,
    FetchFailed,
    FetchProblem,
    TransportStatus,
    check_fetch,
    check_frame,
    check_held,
    event_bytes,
)

# A fetch without any word from the network process is given up: it hangs, or lost the answer to
# a full queue. Its own limits are 25 s of waiting and 20 s of fetching.
_FORGOTTEN_S = 50.0
# Without a report for so long the node calls itself alone, before the supervisor calls the network
# process dead: a busy machine may only be slow.
_QUIET_S = 6.0

log = logging.getLogger(__name__)


class NetworkTransport:
    """`Transport` over `backend`, "hivemind" or "libp2p" (see `backends.choose`).

    `peer_id` is that of the key in `identity_path`; `hello` greets. `book` is the file in which the
    peers of the swarm are remembered for the next start. Frames may be `overhead_bytes` longer than
    the protocol's limits.
    """

    def __init__(
        self,
        backend: str,
        identity_path: Path,
        peer_id: str,
        hello: Hello,
        settings: NetworkSettings,
        *,
        book: Path | None = None,
        overhead_bytes: int = 0,
    ) -> None:
        self._backend = backend
        self._identity_path = identity_path
        self._peer_id = peer_id
        self._hello = hello
        self._settings = settings
        self._book = book
        self._overhead_bytes = overhead_bytes
        self._outgoing = Outgoing()
        self._supervisor: Supervisor | None = None
        self._answered = threading.Event()  # the first process listens, or failed
        self._lock = threading.Lock()  # guards all below
        self._events: BoundedQueue[AnyEvent] = BoundedQueue(MAX_EVENTS, MAX_EVENT_BYTES)
        self._pending: dict[tuple[str, bytes], float] = {}  # when asked, monotonic seconds
        self._failure: channel.Failed | None = None
        self._is_listening = False
        self._addresses: tuple[str, ...] = ()
        self._report: channel.Report | None = None
        self._earlier: Counter[str] = Counter()  # counts of network processes that are gone
        self._restarts = 0
        self._newest: tuple[bytes, Shard] | None = None  # the last announcement
        self._said = b""  # the mark of the last one that went to somebody, as far as is known
        self._state = "not started"
        self._heard_at = 0.0  # the last word of the network process, monotonic seconds
        self._trouble = f"no word from it within {START_S:.0f} s"  # why the last process ended

    def open(self) -> None:
        for peer in self._settings.peers:
            check_peer(peer, self._settings)
        for address in self._settings.announce:
            check_announced(address)
        host, port = self._settings.host, self._settings.port
        if port:
            check_port_is_free(host, port)
        listening(host, lan_only=self._settings.lan_only)
        start = channel.Start(
            backend=self._backend,
            folder="",  # a new one for each process
            identity_path=str(self._identity_path.resolve()),
            peer_id=self._peer_id,
            host=host,
            # Chosen once, so that the addresses peers know survive a restart of the process.
            port=port or choose_port(host),
            peers=self._settings.peers,
            swarm_id=self._hello.swarm_id,
            hello=encode_hello(self._hello),
            book=str(self._book.resolve()) if self._book else "",
            lan_only=self._settings.lan_only,
            mdns=wants_mdns(self._settings),
            overhead_bytes=self._overhead_bytes,
            announce=self._settings.announce,
            upnp=self._settings.upnp,
            max_upload=bytes_per_s(self._settings.max_upload),
            max_download=bytes_per_s(self._settings.max_download),
        )
        self._supervisor = Supervisor(start, self._outgoing, self._receive, self._lost)
        self._supervisor.open()
        self._answered.wait(START_S)
        with self._lock:
            is_listening, failure, trouble = self._is_listening, self._failure, self._trouble
        if not is_listening:
            self.close()
            if failure is not None and failure.is_users_fault:
                raise ConfigError(failure.text)
            raise SwarmNodeError(f"the network did not start: {trouble}")

    def listen(self, shards: Sequence[Shard]) -> None:
        for shard in shards:
            check_shard(shard)
        self._outgoing.listen(shards)

    def publish(self, frame: bytes, shard: Shard = WHOLE) -> None:
        check_frame(frame, self._overhead_bytes)
        check_shard(shard)
        self._newest = frame, shard
        self._outgoing.publish(frame, shard)

    def hold(self, id: bytes, frame: bytes) -> None:
        check_held(id, frame, self._overhead_bytes)
        self._outgoing.hold(id, frame)

    def fetch(self, peer: str, ids: Sequence[bytes]) -> None:
        check_fetch(peer, ids)
        now = time.monotonic()
        with self._lock:
            new = [id for id in ids if (peer, id) not in self._pending]
            self._pending.update({(peer, id): now for id in new})
            if new and not self._is_listening:
                self._fail(peer, new, "the network is not running")
                return
        if new:
            for lost in self._outgoing.fetch(peer, new):
                with self._lock:
                    self._fail(lost.peer, lost.ids, "too many fetches are waiting")

    def avoid(self, peer: str, seconds: float) -> None:
        self._outgoing.avoid(peer, seconds)

    def poll(self) -> list[AnyEvent]:
        oldest = time.monotonic() - _FORGOTTEN_S
        with self._lock:
            while self._pending:
                (peer, id), asked = next(iter(self._pending.items()))  # the oldest
                if asked > oldest:
                    break
                self._fail(peer, (id,), "the network process gave no answer")
            return self._events.take_all()

    def status(self) -> TransportStatus:
        dropped = Counter(self._outgoing.dropped())
        with self._lock:
            counts = self._earlier + _counts(self._report)
            dropped.update(events=self._events.dropped)
            dropped.update({name: counts[name] for name in QUEUES})
            alone, state, peers = self._seen()
            return TransportStatus(
                peer_id=self._peer_id,
                running=self._is_listening,
                state=state,
                addresses=self._addresses,
                peers=peers,
                alone=alone,
                bytes_in=counts["bytes_in"],
                bytes_out=counts["bytes_out"],
                foreign_peers=counts["foreign_peers"],
                restarts=self._restarts,
                dropped={name: dropped[name] for name in QUEUES},
                relayed=self._report.relayed if self._report else (),
                tasks=self._report.tasks if self._report else 0,
            )

    def _seen(self) -> tuple[str, str, tuple[str, ...]]:
        """(why this node is alone, the state, the peers). Call it with the lock held."""
        if self._report is None:
            return Alone.RESTARTING if self._restarts else Alone.SEARCHING, self._state, ()
        silent_s = time.monotonic() - self._heard_at
        if silent_s > _QUIET_S:
            alone, state = explain(Surroundings(0, silent_s=silent_s))
            return alone or "", state, ()
        return self._report.alone, self._state, self._report.peers

    def close(self) -> None:
        if self._supervisor is not None:
            self._supervisor.close()
            self._supervisor = None
        with self._lock:
            self._is_listening = False
            self._report, self._earlier = None, self._earlier + _counts(self._report)
            self._state = "closed"
            for peer, id in list(self._pending):
                self._fail(peer, (id,), "the network was closed")

    def _receive(self, message: channel.Message) -> None:
        """Takes one message of the network process; called in the supervisor's thread."""
        with self._lock:
            self._heard_at = time.monotonic()
            match message:
                case channel.Notice(text):
                    log.info("network: %s", text)
                case channel.Listening(addresses):
                    if self._restarts:
                        log.info("network back restarts=%d", self._restarts)
                    self._is_listening, self._failure = True, None
                    self._addresses = addresses
                    self._state = "listening"
                    self._answered.set()
                case channel.Failed():
                    self._failure = message
                case channel.Report(addresses=addresses, state=state):
                    self._say_if_changed(message)
                    self._addresses, self._state = addresses, state
                    self._report = message
                    self._said = message.said or self._said
                case Fetched(peer, id):
                    if self._pending.pop((peer, id), None) is not None:
                        self._events.put(message, event_bytes(message))
                case FetchFailed(peer, ids, problem, detail):
                    self._fail(peer, ids, detail, problem)
                case _:
                    self._events.put(message, event_bytes(message))

    def _say_if_changed(self, report: channel.Report) -> None:
        if self._report is not None and self._report.alone == report.alone:
            return
        if report.alone in (Alone.UNREACHABLE, Alone.SILENT):
            log.warning("training alone because=%r", report.state)
        else:
            log.info("network state=%r", report.state)

    def _lost(self, why: str, pause_s: float) -> None:
        """The network process is gone and the next one comes in `pause_s`."""
        log.warning("network lost, training alone because=%r next_start_s=%g", why, pause_s)
        with self._lock:
            self._is_listening = False
            self._restarts += 1
            if self._newest is not None and channel.mark(self._newest[0]) != self._said:
                self._outgoing.publish_again(*self._newest)
            self._report, self._earlier = None, self._earlier + _counts(self._report)
            self._trouble = why
            self._state = f"restarting in {pause_s:g} s: {why}"
            for peer, id in list(self._pending):
                self._fail(peer, (id,), "the network was restarted")
            self._answered.set()

    def _fail(
        self,
        peer: str,
        ids: Sequence[bytes],
        detail: str,
        problem: FetchProblem = FetchProblem.OVERLOAD,
    ) -> None:
        """Ends those fetches that are still pending, in one event. Call it with the lock held."""
        ended = tuple(id for id in ids if self._pending.pop((peer, id), None) is not None)
        if ended:
            event = FetchFailed(peer, ended, problem, detail)
            self._events.put(event, event_bytes(event))


def _counts(report: channel.Report | None) -> Counter[str]:
    if report is None:
        return Counter()
    others = {
        "bytes_in": report.bytes_in,
        "bytes_out": report.bytes_out,
        "foreign_peers": report.foreign_peers,
    }
    return Counter(report.dropped | others)


def check_peer(text: str, settings: NetworkSettings, name: str = "peer") -> None:
    """Raises `ConfigError` for a user's peer address that is none, or that is not dialled with
    `lan_only`; `name` is where the user wrote it."""
    address, _ = split_peer(text, name)
    if not Reach(settings.lan_only).allows(address):
        raise ConfigError(
            f"{name} {text[:200]!r} is no address of a private network, and --lan-only was given: "
            "leave one of them out"
        )


def wants_mdns(settings: NetworkSettings) -> bool:
    """Whether the local network is asked for peers: on loopback only when told to."""
    if settings.mdns == "auto":
        return not ipaddress.ip_address(settings.host).is_loopback
    return settings.mdns == "on"
