"""Which addresses are dialled when strangers name them."""

import pytest

from protocol.names import peer_id
from swarmnode.errors import ConfigError
from swarmnode.swarm.interfaces import listening
from swarmnode.swarm.reach import Reach, Scope, scope_of, scope_of_neighbour, split

LOOPBACK, LAN, PUBLIC = "/ip4/127.0.0.1/tcp/1", "/ip4/192.168.1.7/tcp/1", "/ip4/1.1.1.1/tcp/1"
PEER = peer_id(bytes(32))


@pytest.mark.parametrize(
    ("address", "scope"),
    [
        (LOOPBACK, Scope.LOOPBACK),
        ("/ip6/::1/udp/1/quic-v1", Scope.LOOPBACK),
        (LAN, Scope.PRIVATE),
        ("/ip4/100.64.0.1/tcp/1", Scope.PRIVATE),  # carrier NAT, and many a VPN
        ("/ip4/169.254.1.1/tcp/1", Scope.PRIVATE),
        ("/ip6/fd00::2/tcp/1", Scope.PRIVATE),
        (PUBLIC, Scope.PUBLIC),
        ("/ip6/2606:4700::1111/tcp/1", Scope.PUBLIC),
        ("/ip4/0.0.0.0/tcp/1", None),
        ("/ip4/224.0.0.251/tcp/1", None),
        ("/dns4/localhost/tcp/1", None),
        ("/ip4/999.1.1.1/tcp/1", None),
        ("/ip4", None),
        ("", None),
    ],
)
def test_scope_of_an_address(address: str, scope: Scope | None) -> None:
    assert scope_of(address) is scope


def test_a_relayed_neighbour_is_a_stranger_of_the_public_network() -> None:
    assert scope_of_neighbour(LAN) is Scope.PRIVATE
    assert scope_of_neighbour(f"{LAN}/p2p/{PEER}/p2p-circuit") is Scope.PUBLIC
    assert scope_of_neighbour("") is Scope.PUBLIC


def test_nobody_makes_a_node_knock_within_its_own_network() -> None:
    everything = [LOOPBACK, LAN, PUBLIC, "/dns4/router.lan/tcp/80"]
    assert Reach().usable(everything, Scope.PUBLIC) == [PUBLIC]
    assert Reach().usable(everything, Scope.PRIVATE) == [LAN, PUBLIC]
    assert Reach().usable(everything, Scope.LOOPBACK) == [LOOPBACK, LAN, PUBLIC]
    assert Reach(lan_only=True).usable(everything, Scope.LOOPBACK) == [LOOPBACK, LAN]
    assert Reach(lan_only=True).usable(everything, Scope.PUBLIC) == []


def test_few_addresses_of_one_peer_are_used() -> None:
    many = [f"/ip4/1.1.1.1/tcp/{port}" for port in range(1, 100)]
    assert Reach().usable(many, Scope.PUBLIC) == many[:4]


@pytest.mark.parametrize(
    "text", ["", "/p2p/", f"/p2p/{PEER}x", LAN, f"{LAN}/p2p/l", f"x/p2p/{PEER}"]
)
def test_a_text_that_is_no_address_is_none(text: str) -> None:
    assert split(text) is None


def test_an_address_is_split_from_its_peer() -> None:
    assert split(f"{LAN}/p2p/{PEER}") == (LAN, PEER)


def test_a_node_of_a_lan_listens_on_private_addresses_only() -> None:
    assert listening("0.0.0.0", lan_only=False) == ("0.0.0.0",)
    with pytest.raises(ConfigError, match="must be an IP address"):
        listening("everywhere", lan_only=False)
    assert listening("127.0.0.1", lan_only=True) == ("127.0.0.1",)
    assert listening("10.1.2.3", lan_only=True) == ("10.1.2.3",)
    with pytest.raises(ConfigError, match=r"--lan-only and --host 1\.1\.1\.1"):
        listening("1.1.1.1", lan_only=True)
    try:
        found = listening("0.0.0.0", lan_only=True)
    except ConfigError as error:
        assert "no private IPv4 address" in str(error)  # noqa: PT017  a machine without a network
    else:
        assert {scope_of(f"/ip4/{ip}/tcp/1") for ip in found} == {Scope.PRIVATE}
