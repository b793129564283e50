"""py-libp2p's GossipSub as its documentation sets it up, without the gate: for the test that
shows what the gate is for. Prints its address; ends with 1 when the host fails."""

import logging
import sys

import trio
from libp2p import new_host
from libp2p.pubsub.gossipsub import PROTOCOL_ID_V11, GossipSub
from libp2p.pubsub.pubsub import Pubsub
from libp2p.tools.anyio_service import background_trio_service
from multiaddr import Multiaddr
from transport_parts import SWARM

from protocol.names import announcement_topic


async def main() -> None:
    host = new_host()
    router = GossipSub([PROTOCOL_ID_V11], 6, 5, 12, heartbeat_interval=1)
    pubsub = Pubsub(host, router)
    async with (
        host.run([Multiaddr("/ip4/127.0.0.1/tcp/0")]),
        background_trio_service(router),
        background_trio_service(pubsub),
    ):
        await pubsub.wait_until_ready()
        await pubsub.subscribe(announcement_topic(SWARM))
        print(host.get_addrs()[0], flush=True)  # noqa: T201  read by the test
        await trio.sleep_forever()


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    try:
        trio.run(main)
    except BaseExceptionGroup:
        sys.exit(1)
