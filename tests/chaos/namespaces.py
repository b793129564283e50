"""Small networks inside this machine: namespaces joined by a bridge, some of them behind a NAT.

Addresses are public ones (5.5.5.0/24), because libp2p treats private and documentation ranges as
not worth a reachability probe; no packet leaves the machine, the bridge has no other end.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

_WAN = "5.5.5"


def why_not() -> str:
    """Why namespaces cannot be made here, in one line; "" when they can."""
    if missing := [name for name in ("ip", "iptables") if shutil.which(name) is None]:
        return f"needs the programs {' and '.join(missing)}"
    if os.geteuid() != 0:
        return "needs root: network namespaces and iptables"
    name = f"swn{os.getpid()}t"
    try:
        _run("ip", "netns", "add", name)
    except subprocess.CalledProcessError as error:
        return f"network namespaces are not permitted here: {error.stderr.strip()}"
    try:
        _run("ip", "link", "add", f"{name}v", "netns", name, "type", "veth", "peer", "name", "p")
        inside(name, "iptables", "-w", "-t", "nat", "-A", "POSTROUTING", "-j", "MASQUERADE")
    except subprocess.CalledProcessError as error:
        return f"veth pairs or iptables' NAT are not permitted here: {error.stderr.strip()}"
    finally:
        _run("ip", "netns", "del", name)
    return ""


class Internet:
    """A bridge in a namespace of its own, and the namespaces that hang on it, by name."""

    def __init__(self, prefix: str, closing: ExitStack) -> None:
        self._prefix = prefix
        self._closing = closing
        self._hosts = 0
        self._middle = self._namespace("net")
        inside(self._middle, "ip", "link", "add", "br0", "type", "bridge")
        inside(self._middle, "ip", "link", "set", "br0", "up")

    def public(self, name: str) -> tuple[str, str]:
        """A host with a public address: (its namespace, the address)."""
        namespace = self._namespace(name)
        return namespace, self._attach(namespace)

    def behind_nat(self, name: str, options: Sequence[str] = ()) -> tuple[str, str, str]:
        """A host behind a router that masquerades with iptables' `options`: (its namespace, its
        private address, the router's namespace). The router takes in only what was asked for."""
        router = self._namespace(f"{name}r")
        host = self._namespace(name)
        self._attach(router)
        net = f"192.168.{self._hosts}"
        _run("ip", "-n", router, "link", "add", "lan", "type", "veth", "peer", "name", "eth0",
             "netns", host)  # fmt: skip
        _up(router, "lan", f"{net}.1/24")
        _up(host, "eth0", f"{net}.2/24")
        inside(host, "ip", "route", "add", "default", "via", f"{net}.1")
        inside(router, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        rules = [
            f"-t nat -A POSTROUTING -o wan -j MASQUERADE {' '.join(options)}",
            "-A FORWARD -i wan -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT",
            "-A FORWARD -i wan -j DROP",
            # Else the router answers what nobody asked for, and its own port becomes taken.
            "-A INPUT -i wan -p udp -j DROP",
        ]
        for rule in rules:
            inside(router, "iptables", "-w", *rule.split())
        return host, f"{net}.2", router

    def forward(self, router: str, ip: str, port: int) -> None:
        """Has a router pass what comes for this port on to `ip` behind it."""
        for kind in ("tcp", "udp"):
            for rule in (
                f"-t nat -A PREROUTING -i wan -p {kind} --dport {port} -j DNAT --to {ip}:{port}",
                f"-I FORWARD -i wan -p {kind} --dport {port} -j ACCEPT",
            ):
                inside(router, "iptables", "-w", *rule.split())

    def address(self, namespace: str) -> str:
        """The public address of a host or router."""
        return inside(namespace, "ip", "-4", "-br", "address", "show", "wan").split()[2][:-3]

    def _attach(self, namespace: str) -> str:
        self._hosts += 1
        address = f"{_WAN}.{9 + self._hosts}"
        port = f"p{self._hosts}"
        _run("ip", "-n", namespace, "link", "add", "wan", "type", "veth", "peer", "name", port,
             "netns", self._middle)  # fmt: skip
        inside(self._middle, "ip", "link", "set", port, "master", "br0", "up")
        _up(namespace, "wan", f"{address}/24")
        return address

    def _namespace(self, name: str) -> str:
        full = f"{self._prefix}{name}"
        _run("ip", "netns", "add", full)
        self._closing.callback(_run, "ip", "netns", "del", full)
        inside(full, "ip", "link", "set", "lo", "up")
        return full


@contextmanager
def internet() -> Iterator[Internet]:
    """A network that is gone after the context. Raises `CalledProcessError`; see `why_not`."""
    with ExitStack() as closing:
        yield Internet(f"swn{os.getpid()}", closing)


@contextmanager
def losing(namespace: str, ratio: float) -> Iterator[None]:
    """While it lasts `namespace` loses this share of the packets that it gets, at random."""
    rule = f"-i wan -m statistic --mode random --probability {ratio} -j DROP".split()
    inside(namespace, "iptables", "-w", "-I", "INPUT", *rule)
    try:
        yield
    finally:
        inside(namespace, "iptables", "-w", "-D", "INPUT", *rule)


@contextmanager
def cut_off(namespace: str) -> Iterator[None]:
    """While it lasts `namespace` has no cable to the bridge."""
    inside(namespace, "ip", "link", "set", "wan", "down")
    try:
        yield
    finally:
        inside(namespace, "ip", "link", "set", "wan", "up")


def inside(namespace: str, *command: str) -> str:
    """What `command` prints, run in `namespace`."""
    return _run("ip", "netns", "exec", namespace, *command)


def _up(namespace: str, link: str, address: str) -> None:
    inside(namespace, "ip", "address", "add", address, "dev", link)
    inside(namespace, "ip", "link", "set", link, "up")


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
