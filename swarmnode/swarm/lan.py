"""Finds peers on the local network by multicast DNS, and is found (SPEC.md section 8).

Asks when it starts and ever more rarely then; answers who asks. What it hears is a list of
addresses of private networks, which `found` gets; whoever sends it is not believed otherwise.
"""

import errno
import secrets
import socket
import struct
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import anyio
from anyio.abc import UDPSocket

from swarmnode.swarm import mdns
from swarmnode.swarm.bounded import Budget
from swarmnode.swarm.reach import Reach, Scope, scope_of, split

# Seconds between questions, after the first; the last one repeats: some are asked in vain.
_QUESTIONS_S = (1.0, 3.0, 9.0, 27.0, 60.0)
_MIN_ANSWER_GAP_S = 1.0  # RFC 6762 section 6: a record is multicast once a second at most
_HEARD, _WINDOW_S = 100, 10.0  # packets of one sender that are looked at

Found = Callable[[str, list[str]], None]


class Lan:
    """One node's part in it. `own` gives its addresses without peer id, `found` gets a peer's."""

    def __init__(
        self,
        service: str,
        own_id: str,
        own: Callable[[], Sequence[str]],
        found: Found,
        *,
        is_loopback: bool,
    ) -> None:
        self._service = service
        self._own_id = own_id
        self._own = own
        self._found = found
        # On loopback for tests and swarms within one machine: nothing leaves it then.
        self._is_loopback = is_loopback
        self._instance = secrets.token_hex(16)  # a name of no meaning, as the convention asks for
        self._budget = Budget(_HEARD, _WINDOW_S)
        self._answered = float("-inf")

    async def run(self) -> None:
        """For ever; raises `OSError` when there is no multicast here."""
        with _socket(is_loopback=self._is_loopback) as raw:
            _send(raw, mdns.question(self._service), is_loopback=self._is_loopback)  # or raises
            messages = await UDPSocket.from_socket(raw)
            async with messages, anyio.create_task_group() as tasks:
                tasks.start_soon(self._ask, raw)
                async for packet, sender in messages:
                    self._hear(raw, packet, sender[0])

    async def _ask(self, raw: socket.socket) -> None:
        asked = 0
        while True:
            await anyio.sleep(_QUESTIONS_S[min(asked, len(_QUESTIONS_S) - 1)])
            asked += 1
            with suppress(OSError):  # the network may be away for a while
                _send(raw, mdns.question(self._service), is_loopback=self._is_loopback)

    def _hear(self, raw: socket.socket, packet: bytes, sender: str) -> None:
        now = time.monotonic()
        if not self._budget.allows(sender, now):
            return
        match mdns.parse(packet, self._service):
            case mdns.Asked() if now - self._answered >= _MIN_ANSWER_GAP_S:
                self._answered = now
                own = [f"{a}/p2p/{self._own_id}" for a in self._own() if self._is_local(a)]
                if own:
                    with suppress(OSError):
                        _send(
                            raw,
                            mdns.answer(self._service, self._instance, own),
                            is_loopback=self._is_loopback,
                        )
            case mdns.Told(addresses):
                for peer, known in self._peers(addresses).items():
                    self._found(peer, known)

    def _peers(self, told: tuple[str, ...]) -> dict[str, list[str]]:
        peers: dict[str, list[str]] = {}
        for text in told:
            known = split(text)
            if known is not None and known[1] != self._own_id and self._is_local(known[0]):
                peers.setdefault(known[1], []).append(known[0])
        lowest = Scope.LOOPBACK if self._is_loopback else Scope.PRIVATE
        return {peer: Reach(lan_only=True).usable(known, lowest) for peer, known in peers.items()}

    def _is_local(self, address: str) -> bool:
        scope = scope_of(address)
        return scope is (Scope.LOOPBACK if self._is_loopback else Scope.PRIVATE)


def why(error: OSError) -> str:
    """Why there is no multicast, in a few words."""
    if error.errno in (errno.ENETUNREACH, errno.ENODEV, errno.EADDRNOTAVAIL):
        return "this machine has no network with multicast"
    if error.errno == errno.EADDRINUSE:
        return f"another program keeps UDP port {mdns.PORT} for itself"
    return (error.strerror or str(error)).lower()


def _socket(*, is_loopback: bool) -> socket.socket:
    """Bound to the group's port, beside the system's own responder, and in the group."""
    raw = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sys.platform != "linux":  # there SO_REUSEADDR does it, and this asks for the same user
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        raw.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 0 if is_loopback else 255)
        raw.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)  # two nodes on one machine
        raw.bind(("", mdns.PORT))
        joined = False
        problem = OSError(errno.ENODEV, "no network")
        for interface in _interfaces(is_loopback=is_loopback):
            try:
                raw.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, interface)
                joined = True
            except OSError as error:
                problem = error
        if not joined:
            raise problem
        raw.setblocking(False)
    except OSError:
        raw.close()
        raise
    return raw


def _interfaces(*, is_loopback: bool) -> list[bytes]:
    """The networks to speak on, as the kernel's `ip_mreqn`: group, own address, interface."""
    group = socket.inet_aton(mdns.GROUP)
    numbered = [
        number for number, name in socket.if_nameindex() if name.startswith("lo") == is_loopback
    ]
    return [struct.pack("=4s4si", group, bytes(4), number) for number in numbered[:16]]


def _send(raw: socket.socket, packet: bytes, *, is_loopback: bool) -> None:
    """Sends on every network; raises the last error when none took it."""
    sent, problem = False, OSError(errno.ENODEV, "no network")
    for interface in _interfaces(is_loopback=is_loopback):
        try:
            raw.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, interface)
            raw.sendto(packet, (mdns.GROUP, mdns.PORT))
            sent = True
        except OSError as error:
            problem = error
    if not sent:
        raise problem
