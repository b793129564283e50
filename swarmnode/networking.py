"""From settings to a network, not open yet: backend, greeting, address book, private swarm."""

import re
import socket
from importlib import metadata
from pathlib import Path

import msgspec

from protocol import private
from protocol.messages import Hello
from swarmnode.config import NetworkSettings
from swarmnode.errors import ConfigError
from swarmnode.identity import Identity
from swarmnode.run_directory import RunDirectory
from swarmnode.swarm import backends
from swarmnode.swarm.interfaces import host_ip
from swarmnode.swarm.network_transport import NetworkTransport, check_peer
from swarmnode.swarm.private import OVERHEAD_BYTES, PrivateTransport, load_key
from swarmnode.swarm.transport import Transport

# In the run directory: how others reached this node when it last ran, one address a line, and the
# peers that it was connected to.
ADDRESSES, PEERS = "addresses.txt", "peers.json"


def make_transport(
    settings: NetworkSettings,
    swarm_name: str,
    directory: RunDirectory,
    identity: Identity,
    swarm_id: bytes,
    label: str,
) -> Transport:
    """The network of a node of swarm `swarm_id`, private if the settings name a key."""
    if settings.backend == "off":
        from swarmnode.swarm.memory import Hub, MemoryTransport

        return MemoryTransport(Hub(), identity.peer_id)
    if settings.port == 0:
        settings = msgspec.structs.replace(settings, port=_last_port(directory, settings.host))
    key = load_key(Path(settings.swarm_key)) if settings.swarm_key else None
    members = private.names(key, swarm_id) if key else None
    network = NetworkTransport(
        backends.choose(settings.backend),
        directory.identity,
        identity.peer_id,
        Hello.build(
            # Strangers are greeted, too: they are told what they see anyway.
            swarm_id=members.network_id if members else swarm_id,
            swarm_name="private" if members else swarm_name,
            software=f"swarmnode {metadata.version('swarmnode')}",
            model_label="" if members else label,
        ),
        settings,
        book=directory.path / PEERS,
        overhead_bytes=OVERHEAD_BYTES if members else 0,
    )
    return PrivateTransport(network, members.frame_key) if members else network


def check(settings: NetworkSettings, peers_from: str) -> None:
    """Raises `ConfigError` for what can be told to be wrong before anything is started.

    `peers_from` is where the user wrote the peers.
    """
    host_ip(settings.host)
    for peer in settings.peers:
        check_peer(peer, settings, peers_from)
    if settings.upnp and settings.backend == "libp2p":
        raise ConfigError("--upnp needs --network hivemind: leave it out, or forward the port")
    if settings.swarm_key:
        load_key(Path(settings.swarm_key))


def _last_port(directory: RunDirectory, host: str) -> int:
    """The port of this run's last start if it is free again, so that peers find the node; or 0."""
    try:
        found = re.search(r"/tcp/(\d+)/", (directory.path / ADDRESSES).read_text())
    except OSError:
        return 0
    port = int(found[1]) if found else 0
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(family, kind) as one:
            try:
                one.bind((host, port))
            except OSError:
                return 0
    return port
