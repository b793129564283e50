"""The backend `hivemind`: a host that is hivemind's Go daemon p2pd, driven from asyncio.

The key stays with the daemon, which reads the key file. Its parts: `p2pd` starts the daemon,
`p2pd_control` talks to it.
"""

import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

from swarmnode.errors import ConfigError, SwarmNodeError
from swarmnode.swarm import channel, p2pd
from swarmnode.swarm.host import Host
from swarmnode.swarm.nat import Nat, relays_that_answer
from swarmnode.swarm.p2pd_control import Control, load_messages

_TRIAL_S = 60.0  # for `p2pd -help`: 0.3 s, but on cores that all train more than ten


@asynccontextmanager
async def opened(start: channel.Start) -> AsyncIterator[Host]:
    """The running host; raises `SwarmNodeError`, in an exception group, when the daemon ends."""
    folder = Path(start.folder)
    try:
        async with p2pd.started(
            folder,
            start.identity_path,
            start.host,
            start.port,
            Nat(await relays_that_answer(start.peers), start.announce, start.upnp),
            lan_only=start.lan_only,
        ) as daemon:
            control = Control(daemon.control_socket, folder / "streams.sock", load_messages())
            peer_id, addresses = await control.identify()
            if peer_id != start.peer_id:
                raise SwarmNodeError(f"p2pd runs as {peer_id}, the key file was of {start.peer_id}")
            listens = any(address.endswith(f"/tcp/{start.port}") for address in addresses)
            if not listens and not start.announce:
                raise ConfigError(f"port {start.port} is taken: choose another with --port")
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_watch, daemon)
                yield control
                tasks.cancel_scope.cancel()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def why_not() -> str:
    """Why this backend cannot run on this machine, in one line; "" when it can."""
    try:
        program = p2pd.program()
        done = subprocess.run([program, "-help"], capture_output=True, timeout=_TRIAL_S)  # noqa: S603  hivemind's own
    except SwarmNodeError as error:
        return str(error)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"hivemind's p2pd does not run here: {error}"
    if b"-pubsub" not in done.stdout + done.stderr:
        return "hivemind's p2pd does not run here"
    return ""


async def _watch(daemon: p2pd.Daemon) -> None:
    raise SwarmNodeError(await daemon.ended())
