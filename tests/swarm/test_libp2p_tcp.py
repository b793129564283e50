"""What serves an accepted connection of py-libp2p ends when the connection is closed."""

from typing import Any, cast

import trio
from libp2p.abc import IListener
from libp2p.io.trio import TrioTCPStream
from libp2p.transport.tcp.tcp import TCP
from multiaddr import Multiaddr

from swarmnode.swarm.libp2p_tcp import EndingTCP


async def served_after_closing(tcp: Any) -> int:
    """Handlers still there long after the host closed the one connection that it had accepted."""
    serving = 0
    accepted = trio.Event()
    kept: list[TrioTCPStream] = []

    async def handler(connection: Any) -> None:
        nonlocal serving
        serving += 1
        kept.append(connection)
        accepted.set()
        try:
            await trio.sleep_forever()  # as py-libp2p's does
        finally:
            serving -= 1

    listener = cast(IListener, tcp.create_listener(handler))
    await listener.listen(Multiaddr("/ip4/127.0.0.1/tcp/0"))
    (address,) = listener.get_addrs()
    stream = await trio.open_tcp_stream("127.0.0.1", int(address.value_for_protocol("tcp") or 0))
    with trio.fail_after(30):
        await accepted.wait()
    assert serving == 1
    await kept[0].close()
    with trio.move_on_after(3):
        while serving:
            await trio.sleep(0.05)
    found = serving
    await stream.aclose()
    await listener.close()
    return found


def test_its_task_ends_with_the_connection() -> None:
    assert trio.run(served_after_closing, EndingTCP()) == 0


def test_and_would_stay_without_that() -> None:
    assert trio.run(served_after_closing, TCP()) == 1
