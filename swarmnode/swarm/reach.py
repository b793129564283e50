"""From where an address can be dialled, and which of those that strangers name are dialled.

A stranger must not make this node knock at doors of its own network: an address of a narrower
network than the one by which its teller is reached is not used, nor told.
"""

import enum
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from swarmnode.swarm import multiaddr

_PER_PEER = 4  # addresses of one peer that are used


class Scope(enum.IntEnum):
    """The network within which an address means something, from narrow to wide."""

    LOOPBACK = 0
    PRIVATE = 1  # all that is not routed on the internet: LAN, VPN, carrier NAT, link-local
    PUBLIC = 2


@dataclass(frozen=True, slots=True)
class Reach:
    """The addresses this node dials: all, or with `lan_only` those of private networks."""

    lan_only: bool = False

    def usable(self, addresses: Iterable[str], told_from: Scope) -> list[str]:
        """Those that may be dialled when someone reached within `told_from` names them."""
        found = []
        for address in addresses:
            scope = scope_of(address)
            if scope is not None and scope >= told_from and self.allows(address):
                found.append(address)
        return found[:_PER_PEER]

    def allows(self, address: str) -> bool:
        """Whether this node dials the address, whoever names it. Of host names nobody knows where
        they lead, so with `lan_only` none is dialled."""
        return not self.lan_only or scope_of(address) in (Scope.LOOPBACK, Scope.PRIVATE)


def scope_of(address: str) -> Scope | None:
    """The scope of a multiaddress; None for what cannot be dialled, and for host names.

    >>> [scope_of(f"/ip4/{ip}/tcp/1") for ip in ("127.0.0.1", "192.168.1.7", "1.1.1.1", "0.0.0.0")]
    [<Scope.LOOPBACK: 0>, <Scope.PRIVATE: 1>, <Scope.PUBLIC: 2>, None]
    """
    parts = address.split("/", 3)
    if len(parts) < 3 or parts[1] not in ("ip4", "ip6"):
        return None
    try:
        ip = ipaddress.ip_address(parts[2])
    except ValueError:
        return None
    if ip.is_unspecified or ip.is_multicast:
        return None
    if ip.is_loopback:
        return Scope.LOOPBACK
    return Scope.PUBLIC if ip.is_global else Scope.PRIVATE


def scope_of_neighbour(address: str) -> Scope:
    """The scope by which a connected peer is reached; PUBLIC, the strictest, when unknown or when
    a relay is in between."""
    scope = scope_of(address)
    return Scope.PUBLIC if scope is None or "/p2p-circuit" in address else scope


def split(text: str) -> tuple[str, str] | None:
    """(address, peer id) of an address that a stranger wrote; None when there is no sense in it."""
    address, _, peer = text.rpartition("/p2p/")
    try:
        multiaddr.peer_id_bytes(peer)
        multiaddr.to_binary(address)
    except ValueError:
        return None
    return address, peer
