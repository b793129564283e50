"""The network process of a node: runs one backend's host, and ends with the node or with it.

It is started by `supervisor` with its channel to the node as standard input, and told what to do
by the first command on it. It must not import torch: one runs per node, and this keeps it small.
"""

import os
import signal
import socket
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import anyio
from anyio.abc import SocketStream, UNIXSocketStream

from swarmnode.errors import ConfigError, SwarmNodeError
from swarmnode.swarm import channel
from swarmnode.swarm.host import Host
from swarmnode.swarm.lifetime import dies_with_parent
from swarmnode.swarm.network import Network

Opened = Callable[[channel.Start], AbstractAsyncContextManager[Host]]


def main() -> None:
    """Runs until the channel closes, the host ends or SIGTERM comes."""
    parent = os.getppid()
    dies_with_parent(signal.SIGTERM)()
    if os.getppid() != parent:
        return  # the node ended before the line above took effect
    node = socket.socket(fileno=0)
    start = _read_start(node)
    if start is not None:
        loop, opened = _backend(start.backend)
        anyio.run(_main, node, start, opened, backend=loop)


def _backend(name: str) -> tuple[str, Opened]:
    """(the event loop that its library is written for, how to open its host)."""
    # Each imports its own library only: their protobuf files cannot be loaded side by side.
    if name == "libp2p":
        from swarmnode.swarm import libp2p_trio

        return "trio", libp2p_trio.opened
    from swarmnode.swarm import hivemind_p2pd

    return "asyncio", hivemind_p2pd.opened


def _read_start(node: socket.socket) -> channel.Start | None:
    """The first command; None when the node is gone already."""
    with node.dup().makefile("rb", buffering=0) as source:
        header = source.read(channel.HEADER_BYTES)
        body = b""
        while len(header) == channel.HEADER_BYTES and len(body) < channel.body_length(header):
            part = source.read(channel.body_length(header) - len(body))
            if not part:
                return None
            body += part
    start = channel.decode_command(body) if body else None
    assert start is None or isinstance(start, channel.Start)
    return start


async def _main(node: socket.socket, start: channel.Start, opened: Opened) -> None:
    is_unix = node.family == getattr(socket, "AF_UNIX", None)
    stream = await (UNIXSocketStream if is_unix else SocketStream).from_socket(node)
    async with stream:
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_cancel_on_sigterm, tasks.cancel_scope)
                async with opened(start) as host:
                    await Network(start, host).run(stream)
        except BaseExceptionGroup as group:
            await _explain(_first(group), stream)


async def _explain(error: BaseException, node: SocketStream) -> None:
    """Tells the node why the process ends, unless it is because the node is gone."""
    if isinstance(error, SwarmNodeError):
        failed = channel.Failed(str(error), isinstance(error, ConfigError))
        await node.send(channel.encode(failed))
    elif not isinstance(
        error, anyio.IncompleteRead | anyio.BrokenResourceError | anyio.ClosedResourceError
    ):
        raise error


def _first(error: BaseException) -> BaseException:
    """What ended a group of tasks: the others were cancelled because of it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _cancel_on_sigterm(scope: anyio.CancelScope) -> None:
    try:
        with anyio.open_signal_receiver(signal.SIGTERM) as signals:
            async for _ in signals:
                scope.cancel()
    finally:
        # A dying node's threads can each cause one: a later one must not end the process before
        # it has removed its folder.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
