"""Which port a node listens on: free for TCP and for QUIC's UDP, or a plain word about why not.

Both network libraries set SO_REUSEPORT, so that two nodes would share one port and each get half
of the connections; neither says so.
"""

import contextlib
import errno
import ipaddress
import socket
from collections.abc import Iterator

from swarmnode.errors import ConfigError, SwarmNodeError


def check_port_is_free(host: str, port: int) -> None:
    """Raises `ConfigError` when TCP or UDP `port` is in use, or `host` is not ours."""
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with _bound(host, port, kind):
            pass


def choose_port(host: str) -> int:
    """A port that is free for TCP and UDP now."""
    for _ in range(50):
        with _bound(host, 0, socket.SOCK_STREAM) as tcp:
            port: int = tcp.getsockname()[1]
            with contextlib.suppress(ConfigError), _bound(host, port, socket.SOCK_DGRAM):
                return port
    raise SwarmNodeError(f"found no port that is free for TCP and UDP on {host}")


def taken(port: int) -> ConfigError:
    return ConfigError(f"port {port} is taken: choose another with --port")


@contextlib.contextmanager
def _bound(host: str, port: int, kind: socket.SocketKind) -> Iterator[socket.socket]:
    try:
        version = ipaddress.ip_address(host).version
    except ValueError as error:
        raise ConfigError(
            f"host {host[:100]!r} is not an IP address: "
            "use 0.0.0.0, 127.0.0.1 or one of this machine's"
        ) from error
    with socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, kind) as bound:
        if kind == socket.SOCK_STREAM:
            # Connections of an earlier run that linger are no reason to refuse the port.
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((host, port))
            if kind == socket.SOCK_STREAM:
                bound.listen(1)
        except PermissionError as error:
            raise ConfigError(f"port {port} needs privileges: choose one above 1023") from error
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise taken(port) from error
            raise ConfigError(f"cannot listen on {host} port {port}: {error.strerror}") from error
        yield bound
