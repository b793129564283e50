"""The addresses that a node listens on: what the user named, or those of this machine's LANs."""

import ipaddress
import platform
import socket
import struct
from contextlib import suppress

from swarmnode.errors import ConfigError
from swarmnode.swarm.reach import Scope, scope_of

_SIOCGIFADDR = 0x8915  # <linux/sockios.h>
_MOST = 8  # networks of one machine; containers and virtual machines bring many more


def host_ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address that a user's --host names. Raises `ConfigError` for what is none."""
    try:
        return ipaddress.ip_address(host)
    except ValueError as error:
        raise ConfigError(
            f"--host must be an IP address of this machine, 0.0.0.0 for all, not {host!r}"
        ) from error


def listening(host: str, *, lan_only: bool) -> tuple[str, ...]:
    """The IP addresses to listen on: `host`, or in its place each private one when it means all.

    So a node of a LAN neither listens nor announces itself on a public network. Raises
    `ConfigError` for a public `host` with `lan_only`, and where there is no private network.
    """
    ip = host_ip(host)
    if not lan_only:
        return (host,)
    if not ip.is_unspecified:
        if ip.is_global or ip.is_multicast:
            raise ConfigError(
                f"--lan-only and --host {host}, which is no private address: leave one of them out"
            )
        return (host,)
    found = [own for own in _addresses() if scope_of(f"/ip4/{own}/tcp/1") is Scope.PRIVATE][:_MOST]
    if not found:
        raise ConfigError(
            "--lan-only, and this machine has no private IPv4 address: connect it to a network, "
            "or use --offline or --host 127.0.0.1"
        )
    return tuple(found)


def _addresses() -> list[str]:
    """This machine's IPv4 addresses."""
    if platform.system() == "Linux":
        return _addresses_on_linux()
    try:
        infos = socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)
    except OSError:  # the machine's own name leads nowhere
        return []
    return list(dict.fromkeys(str(info[4][0]) for info in infos))


def _addresses_on_linux() -> list[str]:
    import fcntl

    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            with suppress(OSError):  # it has none
                request = struct.pack("256s", name.encode()[:15])
                answer = fcntl.ioctl(probe, _SIOCGIFADDR, request)
                found.append(socket.inet_ntoa(answer[20:24]))
    return found
