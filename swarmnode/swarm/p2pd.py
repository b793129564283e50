"""Starts the Go libp2p daemon that hivemind's wheel carries, and sees to it that it ends with us.

The daemon is told to do nothing that the user did not ask for: no UPnP port mapping, no public
bootstrap peers, control by a socket in a private folder only.
"""

import asyncio
import contextlib
import ipaddress
import signal
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio

from swarmnode.errors import ConfigError, SwarmNodeError
from swarmnode.swarm.interfaces import listening
from swarmnode.swarm.lifetime import dies_with_parent
from swarmnode.swarm.nat import Nat
from swarmnode.swarm.p2pd_control import folder_of_hivemind
from swarmnode.swarm.ports import check_port_is_free, taken

_START_S = 20.0  # 0.2-0.4 s on an idle machine, several on one whose cores all train
_GOODBYE_S = 1.0  # for closing connections, which tells peers at once instead of by time-out

# Connections: the daemon closes the least useful above _HIGH until _LOW are left. GossipSub wants
# 6 to 12 neighbours; the rest is room for fetches from elsewhere and for newcomers.
_LOW, _HIGH = 64, 128


@dataclass
class Daemon:
    """A running p2pd: `ended` returns when it does, `last_lines` are what it said."""

    process: asyncio.subprocess.Process
    control_socket: Path
    last_lines: deque[str] = field(default_factory=lambda: deque(maxlen=20))

    async def ended(self) -> str:
        code = await self.process.wait()
        return f"p2pd ended (code {code}): {self.last_lines[-1] if self.last_lines else 'silent'}"


@asynccontextmanager
async def started(
    folder: Path, identity_path: str, host: str, port: int, nat: Nat, *, lan_only: bool = False
) -> AsyncIterator[Daemon]:
    """Runs the daemon while the context lasts.

    Raises `ConfigError` when the port is taken, `SwarmNodeError` when the daemon does not start.
    """
    check_port_is_free(host, port)
    hosts = listening(host, lan_only=lan_only)
    control_socket = folder / "control.sock"
    path = program()
    try:
        process = await asyncio.create_subprocess_exec(
            path,
            *_flags(control_socket, identity_path, hosts, port, nat, lan_only=lan_only),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            # Two threads of Go code at most: the cores are for training.
            env={"GOLOG_LOG_LEVEL": "error", "GOMAXPROCS": "2"},
            preexec_fn=dies_with_parent(signal.SIGKILL),
        )
    except OSError as error:
        raise SwarmNodeError(f"{path} does not start: {error.strerror}") from error
    daemon = Daemon(process, control_socket)
    ready = asyncio.Event()
    output = asyncio.create_task(_read_output(daemon, ready))
    try:
        await _until_ready(daemon, ready, output, host, port)
        yield daemon
    finally:
        with anyio.CancelScope(shield=True):  # also when the whole process is being cancelled
            await _end(process)
        output.cancel()


def program() -> Path:
    """Where the daemon is; `SwarmNodeError` when hivemind is not installed."""
    return folder_of_hivemind() / "hivemind_cli" / "p2pd"


def _flags(
    control_socket: Path,
    identity_path: str,
    hosts: Sequence[str],
    port: int,
    nat: Nat,
    *,
    lan_only: bool,
) -> list[str]:
    ips = [ipaddress.ip_address(host) for host in hosts]
    # QUIC too: hole punching succeeds over QUIC only.
    listen = [
        f"/ip{ip.version}/{ip}/{transport}"
        for ip in ips
        for transport in (f"tcp/{port}", f"udp/{port}/quic-v1")
    ]
    flags = {
        "listen": f"/unix{control_socket}",
        "id": identity_path,
        "hostAddrs": ",".join(listen),
        "pubsub": "1",
        "pubsubRouter": "gossipsub",
        "pubsubSign": "1",
        "pubsubSignStrict": "1",
        # Server mode: in automatic mode nodes on private addresses stay clients, and a DHT of
        # clients finds nobody. On a LAN none: the daemon dials whom it hears of in the DHT, and
        # would not ask us whether that is a private address.
        "dhtServer": "0" if lan_only else "1",
        "connManager": "1",
        "connLo": str(_LOW),
        "connHi": str(_HIGH),
        "connGrace": "20s",
    }
    # No NAT to get through on loopback, and nobody to ask about it on a LAN.
    flags |= nat.flags(is_public=not lan_only and not any(ip.is_loopback for ip in ips))
    return [f"-{name}={value}" for name, value in flags.items()]


async def _read_output(daemon: Daemon, ready: asyncio.Event) -> None:
    assert daemon.process.stdout is not None
    while line := await daemon.process.stdout.readline():
        text = line.decode(errors="replace").strip()[:300]
        daemon.last_lines.append(text)
        if text.startswith("Peer ID:"):
            ready.set()


async def _until_ready(
    daemon: Daemon, ready: asyncio.Event, output: asyncio.Task[None], host: str, port: int
) -> None:
    waiting = asyncio.create_task(ready.wait())
    try:
        await asyncio.wait({waiting, output}, timeout=_START_S, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
    if ready.is_set():
        return
    said = daemon.last_lines[-1] if daemon.last_lines else "no output"
    if "address already in use" in said:
        raise taken(port)
    if "cannot assign requested address" in said:
        raise ConfigError(f"this machine has no address {host}: choose another with --host")
    raise SwarmNodeError(f"p2pd did not start within {_START_S:.0f} s: {said}")


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):  # it ended by itself
        process.terminate()
    try:
        async with asyncio.timeout(_GOODBYE_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
