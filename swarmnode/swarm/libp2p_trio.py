"""The backend `libp2p`: a host that is py-libp2p on trio, for machines without hivemind's daemon.

Pure Python: ten times the CPU and a fiftieth of the throughput of p2pd, TCP only, no relay and no
hole punching. It talks to p2pd nodes as to its own kind. Departures from py-libp2p's defaults,
each against a trap of version 0.8.1:
1. Noise and Yamux only: by default it also accepts plaintext, by which a peer proves no key.
2. Gossip passes `libp2p_gossip.Gate` first; what raises in a stream's handler ends that stream.
3. `adaptive_gossip` off (it stretches the heartbeat to 30 s), its spam limit off (10 messages a
   second of one neighbour, whoever published them, the rest dropped silently), peer scores on.
4. No auto-dialling of known peers; failed peers may be dialled again at once.
5. The task of an accepted connection ends with it (`libp2p_tcp`), and that of a queue of gossip
   with the queue (`libp2p_gossip.Queues`).
6. Its log is off: it carries peers' text.
The key is in this process's memory, unlike with p2pd.
"""

import ipaddress
import logging
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import trio
from libp2p import new_host
from libp2p.abc import IHost, ITransport
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key_pair
from libp2p.custom_types import TProtocol
from libp2p.network.config import ConnectionConfig
from libp2p.peer.id import ID
from libp2p.pubsub.gossipsub import PROTOCOL_ID_V11, GossipSub
from libp2p.pubsub.pubsub import Pubsub
from libp2p.pubsub.score import ScoreParams
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX
from libp2p.stream_muxer.yamux.yamux import Yamux
from libp2p.tools.anyio_service import background_trio_service
from libp2p.utils.address_validation import expand_wildcard_address
from multiaddr import Multiaddr

from swarmnode.errors import ConfigError, SwarmNodeError
from swarmnode.swarm import channel
from swarmnode.swarm.host import Host
from swarmnode.swarm.interfaces import listening
from swarmnode.swarm.libp2p_gossip import Queues
from swarmnode.swarm.libp2p_host import Libp2pHost
from swarmnode.swarm.libp2p_tcp import EndingTCP
from swarmnode.swarm.ports import check_port_is_free, taken
from swarmnode.swarm.reach import Reach

# Connections: as p2pd's, see there. Below _LOW py-libp2p would dial on its own.
_LOW, _HIGH, _MOST = 0, 64, 128
# GossipSub's numbers are go-libp2p's: 6 neighbours in the mesh, a heartbeat a second.
_DEGREE, _DEGREE_LOW, _DEGREE_HIGH = 6, 5, 12
_HEARTBEAT_S = 1


@asynccontextmanager
async def opened(start: channel.Start) -> AsyncIterator[Host]:
    """The running host. When a part of py-libp2p fails, its error is raised in a group."""
    logging.disable(logging.CRITICAL)
    try:
        if start.upnp:
            raise ConfigError("UPnP needs the backend hivemind: leave --upnp or forward the port")
        check_port_is_free(start.host, start.port)
        ips = map(ipaddress.ip_address, listening(start.host, lan_only=start.lan_only))
        listen = [Multiaddr(f"/ip{ip.version}/{ip}/tcp/{start.port}") for ip in ips]
        host, router, pubsub = _assembled(start, listen)
        ours = Libp2pHost(host, pubsub, start.swarm_id, Reach(start.lan_only))
        async with host.run(listen):
            if not host.get_transport_addrs():
                raise taken(start.port)
            async with (
                background_trio_service(router),
                background_trio_service(pubsub),
                trio.open_nursery() as nursery,
            ):
                await pubsub.wait_until_ready()
                nursery.start_soon(ours.look_after)
                yield ours
                nursery.cancel_scope.cancel()
    finally:
        shutil.rmtree(start.folder, ignore_errors=True)


def _assembled(start: channel.Start, listen: list[Multiaddr]) -> tuple[IHost, GossipSub, Pubsub]:
    keys = create_new_key_pair(_seed(Path(start.identity_path)))
    if str(ID.from_pubkey(keys.public_key)) != start.peer_id:
        raise SwarmNodeError(f"{start.identity_path} does not hold the key of {start.peer_id}")
    host = new_host(
        key_pair=keys,
        sec_opt={NOISE: NoiseTransport(keys, create_noise_key_pair().private_key)},
        muxer_opt={TProtocol(YAMUX): Yamux},
        transports=[cast(ITransport, EndingTCP())],
        connection_config=ConnectionConfig(
            min_connections=0, low_watermark=_LOW, high_watermark=_HIGH, max_connections=_MOST
        ),
        announce_addrs=[Multiaddr(text) for text in start.announce]
        or [own for one in listen for own in expand_wildcard_address(one)],
    )
    router = GossipSub(
        [PROTOCOL_ID_V11],
        _DEGREE,
        _DEGREE_LOW,
        _DEGREE_HIGH,
        heartbeat_interval=_HEARTBEAT_S,
        adaptive_gossip_enabled=False,
        spam_protection_enabled=False,
        score_params=ScoreParams(
            # A GRAFT too early costs 10, an IHAVE or IWANT above ten a second 5. Who goes on with
            # it for some seconds leaves the mesh, and comes back half a minute after it stops.
            p5_behavior_penalty_weight=1.0,
            p5_behavior_penalty_decay=0.9,
            p5_behavior_penalty_threshold=20.0,
            gossip_threshold=-50.0,
            publish_threshold=-50.0,
            graylist_threshold=-50.0,
            accept_px_threshold=float("inf"),
        ),
    )
    pubsub = Pubsub(host, router)
    pubsub.peer_queues = Queues()
    # Numbers that no earlier run of this identity used, as go-libp2p's: a repeated one is dropped
    # by everyone who saw the first. py-libp2p starts at the second, and counts messages.
    pubsub.counter = time.time_ns()
    return host, router, pubsub


def _seed(path: Path) -> bytes:
    """The seed in a key file that the node has checked; libp2p's protobuf, see `identity`."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read the key file {path}: {error.strerror}") from error
    return data[4:36]
