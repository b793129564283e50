"""py-libp2p's TCP, except that what serves an accepted connection ends when the connection does.

In py-libp2p 0.8.1 the task of each accepted connection, with its socket and buffers, stays until
the host ends: a node that others come and go to would grow by one for each of them.
"""

from functools import partial
from typing import Any

import trio
from libp2p.custom_types import THandler
from libp2p.io.trio import TrioTCPStream
from libp2p.transport.tcp.tcp import TCP, TCPListener

_CHECK_S = 2.0  # between looks whether a connection is closed


class EndingTCP:
    """An `ITransport`; all but the handler of accepted connections is `TCP`'s."""

    def __init__(self) -> None:
        self._tcp = TCP()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tcp, name)

    def create_listener(self, handler_function: THandler) -> TCPListener:
        return self._tcp.create_listener(partial(_while_open, handler_function))


async def _while_open(handler: THandler, connection: TrioTCPStream) -> None:
    async with trio.open_nursery() as nursery:

        async def handle() -> None:
            await handler(connection)
            nursery.cancel_scope.cancel()

        nursery.start_soon(handle)
        while connection.stream.socket.fileno() >= 0:
            await trio.sleep(_CHECK_S)
        nursery.cancel_scope.cancel()
