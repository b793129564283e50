"""What the network gives a node: a library, a port, addresses, and the peers that are given.

Whether others reach this machine from outside cannot be known without asking one of them; what can
be told is which kind of address it has. A given peer is dialled by the real network.
"""

import ipaddress
import socket
import tempfile
import time
from importlib import metadata
from pathlib import Path

from protocol.messages import Hello
from swarmnode import identity, manifest
from swarmnode.config import NetworkSettings, Settings
from swarmnode.doctor.check import Check, ok, problem, warning
from swarmnode.errors import ConfigError, SwarmNodeError
from swarmnode.swarm.transport import PeerNote, Transport

# An address of the documentation range (RFC 5737): "connecting" UDP to it asks the routing table
# which of this machine's addresses faces the internet, and sends nothing.
_OUTSIDE = (("192.0.2.1", 9), ("2001:db8::1", 9))
# RFC 6598: addresses that a provider shares among customers, who cannot forward ports.
_SHARED = ipaddress.ip_network("100.64.0.0/10")
_DIAL_S = 40.0
_LOOK_S = 0.2
# After the connection: time for the peer's greeting to say that it is of another swarm.
_GREETING_S = 3.0


def library(backend: str) -> Check:
    """Which network library would run here."""
    if backend == "off":
        return ok("network", "off: the node trains alone")
    from swarmnode.swarm import hivemind_p2pd

    why_not = hivemind_p2pd.why_not() if backend != "libp2p" else "libp2p is chosen"
    if not why_not:
        return ok("network", f"hivemind {metadata.version('hivemind')}, its p2pd runs here")
    if backend == "hivemind":
        return problem("network", why_not, "use --network auto or libp2p")
    try:
        version = metadata.version("libp2p")
    except metadata.PackageNotFoundError:
        return problem("network", f"{why_not}; libp2p is missing", "pip install swarmnode again")
    return ok("network", f"libp2p {version} in pure Python ({why_not})")


def port(settings: NetworkSettings) -> Check:
    """Whether the port to listen on is free, for TCP and for UDP."""
    from swarmnode.swarm.ports import check_port_is_free, choose_port

    try:
        if settings.port:
            check_port_is_free(settings.host, settings.port)
            return ok("port", f"{settings.port} is free for TCP and UDP on {settings.host}")
        choose_port(settings.host)
    except SwarmNodeError as error:
        return problem("port", str(error), "see above; --port 0 takes any free one")
    if settings.host in ("127.0.0.1", "::1"):
        return ok("port", "any free one")
    return warning(
        "port", "any free one: it changes when another program has taken it meanwhile",
        "give --port if peers are told your address, or a router forwards it",
    )  # fmt: skip


def reachability(settings: NetworkSettings) -> Check:
    """What kind of address this machine has, as far as that says who can dial it."""
    if settings.backend == "off":
        return ok("reachable", "not needed: the network is off")
    try:
        host = ipaddress.ip_address(settings.host)
    except ValueError:
        return problem("reachable", f"{settings.host} is no IP address", "use --host 0.0.0.0")
    if host.is_loopback:
        return warning(
            "reachable", f"listens on {host}: nodes on this machine alone reach it",
            "use --host 0.0.0.0 for nodes on other machines",
        )  # fmt: skip
    found = [address for where in _OUTSIDE if (address := _source(where)) is not None]
    listed = ", ".join(map(str, found))
    if any(address.is_global for address in found):
        return ok(
            "reachable", f"{listed}: a public address; nodes outside reach it unless a firewall "
            "is in between, which only one of them can tell",
        )  # fmt: skip
    if any(address in _SHARED for address in found):
        return warning(
            "reachable", f"{listed}: the provider shares its address among customers, so that "
            "nobody dials in from outside",
            "give --peer the address of a node that can be reached: dialling out works",
        )  # fmt: skip
    if found:
        return warning(
            "reachable", f"{listed}: a private address, behind a router; nodes in this network "
            "reach it, those outside do not",
            "forward --port (TCP and UDP) in the router, or give --peer a node that can be "
            "reached: dialling out works",
        )  # fmt: skip
    return warning("reachable", "this machine has no route to others", "connect it to a network")


def dial(settings: Settings, peer: str) -> Check:
    """Dials `peer` by the real network, under a key of its own that is thrown away."""
    from swarmnode.swarm.multiaddr import split_peer

    try:
        peer_id = split_peer(peer, "--peer")[1]
        state, notes = _dial(settings, peer, peer_id)
    except SwarmNodeError as error:
        return problem("peer", str(error), "see above")
    if notes:
        return problem("peer", notes, "start it with that swarm (--swarm), or choose another peer")
    if not state:
        return ok("peer", f"{peer} answers and is of this swarm")
    return problem(
        "peer", state, "check the address (the peer prints it), its port forwarding and firewall"
    )


def _dial(settings: Settings, peer: str, peer_id: str) -> tuple[str, str]:
    """Why there is no connection ("" if there is one) and what was said of the peer's greeting."""
    from swarmnode.joining import default_swarm
    from swarmnode.questions import open_tasks, swarm_id
    from swarmnode.swarm import backends
    from swarmnode.swarm.network_transport import NetworkTransport

    swarm = manifest.load(settings.swarm or default_swarm(settings.model.name))
    hello = Hello.build(
        swarm_id=swarm_id(swarm, open_tasks(swarm)),
        swarm_name=swarm.name,
        software=f"swarmnode {metadata.version('swarmnode')}",
        model_label="doctor",
    )
    if settings.network.backend == "off":
        raise ConfigError("the network is off: leave out --offline to dial a peer")
    backend = backends.choose(settings.network.backend)
    network = NetworkSettings(host=settings.network.host, peers=(peer,))
    with tempfile.TemporaryDirectory(prefix="swarmnode-doctor-") as folder:
        key = Path(folder) / "identity.key"
        me = identity.create(key)
        transport = NetworkTransport(backend, key, me.peer_id, hello, network)
        try:
            transport.open()
            return _outcome(transport, peer_id)
        finally:
            transport.close()


def _outcome(transport: Transport, peer_id: str) -> tuple[str, str]:
    notes: list[str] = []
    until = time.monotonic() + _DIAL_S
    is_connected = False
    while time.monotonic() < until and not notes:
        notes += [event.text for event in transport.poll() if isinstance(event, PeerNote)]
        if not is_connected and peer_id in transport.status().peers:
            is_connected = True
            until = time.monotonic() + _GREETING_S
        time.sleep(_LOOK_S)
    return "" if is_connected else transport.status().state, " ".join(notes)


def _source(
    outside: tuple[str, int],
) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address of this machine that faces the internet; None without a route."""
    family = socket.AF_INET6 if ":" in outside[0] else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as one:
            one.connect(outside)
            address = ipaddress.ip_address(one.getsockname()[0])
    except OSError:
        return None
    return None if address.is_loopback or address.is_link_local else address
