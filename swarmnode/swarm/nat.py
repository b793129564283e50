"""How p2pd nodes behind NATs reach one another: what the daemon is told to do about it.

Reachability is found out by probes of peers (AutoNAT, some 15 s). A node that cannot be dialled
reserves a slot at a relay and is dialled through it; both sides then try to connect directly by
punching a hole (DCUtR). Measured with iptables' NAT, see `tests/chaos/test_nat.py`:
1. Holes are punched over QUIC only, and only once four peers on four public addresses have told a
   node how they see it. Before that, and behind NATs that give each connection a new random port,
   the relay carries the fetches. Gossip never goes through a relay: it takes a way around.
2. A relay may end a circuit after 128 KiB or two minutes. The next stream gets a fresh one.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from swarmnode.swarm import multiaddr

_ANSWER_S = 1.5  # for a connection to a relay that is asked whether it is there
_MAX_RELAYS = 4  # of the given peers; each reservation keeps a connection open


@dataclass(frozen=True, slots=True)
class Nat:
    """`relays` may relay for this node. `announced` are told to peers instead of the addresses of
    this machine. `upnp`: the router is asked to forward the port."""

    relays: tuple[str, ...] = ()
    announced: tuple[str, ...] = ()
    upnp: bool = False

    def flags(self, *, is_public: bool) -> dict[str, str]:
        """p2pd's, by name. Where the node is not public (loopback, one LAN) there is no NAT to get
        through, and probes would cost CPU for nothing."""
        flags = {
            "natPortMap": _flag(self.upnp),
            "autonat": _flag(is_public),  # also switches hole punching on
            "relay": _flag(is_public),
            # Serve as a relay for nodes behind NAT, within bounds that one stranger cannot exhaust.
            "relayService": _flag(is_public),
            "relayMaxReservations": "32",
            "relayMaxCircuits": "4",
            "relayBufferSize": "65536",
            "relayDataLimit": str(4 * 2**20),
            "relayTimeLimit": "2m",
            "autoRelay": "0",
        }
        if self.relays and is_public:
            flags["autoRelay"] = "1"
            flags["trustedRelays"] = ",".join(self.relays)
            # With discovery p2pd waits for four candidates or three minutes before it uses one.
            flags["relayDiscovery"] = "0"
        if self.announced:
            flags["announceAddrs"] = ",".join(self.announced)
        return flags


async def relays_that_answer(peers: Sequence[str]) -> tuple[str, ...]:
    """Those of the user's peers that may serve as relays now; all if none answers.

    p2pd waits three minutes for a given relay that is away before it uses the others, and counts
    a peer that is given by two addresses as one that is away.
    """
    by_id = {multiaddr.split_peer(peer)[1]: peer for peer in reversed(peers)}
    relays = list(reversed(by_id.values()))
    answers = await asyncio.gather(*map(_answers, relays))
    present = [relay for relay, is_there in zip(relays, answers, strict=True) if is_there]
    return tuple((present or relays)[:_MAX_RELAYS])


async def _answers(peer: str) -> bool:
    """Whether it takes a TCP connection; of other addresses nothing is known: True."""
    endpoint = multiaddr.tcp_endpoint(multiaddr.split_peer(peer)[0])
    if endpoint is None:
        return True
    try:
        async with asyncio.timeout(_ANSWER_S):
            _, writer = await asyncio.open_connection(*endpoint)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


def _flag(is_on: bool) -> str:
    return "1" if is_on else "0"
