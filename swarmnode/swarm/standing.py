"""What this node thinks of each author: what it gave, what it lied about, and where it is.

Local: it is never told to anyone and nobody's word changes it. It fades: an offence halves in an
hour, credit in a day, so that nobody is blamed for ever and no good name lasts. Bounded: of too
many authors the one silent longest is forgotten, newcomers first, since keys cost nothing.

An author's network is that of the address from which it served a fetch itself. Before that, and of
one whose rollouts come from other holders only, it is not known: gossip does not tell it.
"""

import enum
import ipaddress
import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from protocol.limits import PUBLIC_KEY_BYTES
from swarmnode.config import TrustSettings

# Seconds in which credit halves. A node that pauses for a night is no newcomer in the morning.
_CREDIT_HALF_LIFE_S = 86_400.0
# Credit is kept up to so many times what makes an author known: it lasts for two days of silence.
_MOST_CREDIT = 4
# An author is established from this much below the rounds asked for: credit fades from the start.
_FADED = 0.5
_MAX_NETWORK_CHARACTERS = 64  # of "relay:" and an IPv6 network: 55


class Offence(enum.Enum):
    """What costs standing, in points. No honest node collects `max_offences` of them in an hour:
    one that restarts has lost what it announced, a slow one keeps its peers waiting."""

    FALSE = 4.0  # what it served, or announced, is not what it said
    UNSCORABLE = 3.0  # its texts hung the scorer, or killed it
    UNKNOWN_TASK = 2.0  # it offers questions that the swarm does not have
    WITHHELD = 1.0  # it does not hold what it announced
    STALLED = 0.2  # it kept a fetch waiting until the time was up
    FLOOD = 0.1  # one announcement above its budget


@dataclass(slots=True)
class _Record:
    """Of one author; points and credit as they were at `at` (Unix seconds)."""

    at: float
    points: float = 0.0
    credit: float = 0.0  # rounds of ours that took something of it
    credited_round: int = -1
    avoided_until: float = 0.0
    network: str = ""

    def fade(self, now: float, half_life_s: float) -> None:
        passed_s = max(0.0, now - self.at)
        self.points *= 0.5 ** (passed_s / half_life_s)
        self.credit *= 0.5 ** (passed_s / _CREDIT_HALF_LIFE_S)
        self.at = max(self.at, now)


class Standing:
    """Authors by key, in two queues: the established, and all others."""

    def __init__(self, settings: TrustSettings) -> None:
        self._settings = settings
        self._established: OrderedDict[bytes, _Record] = OrderedDict()
        self._others: OrderedDict[bytes, _Record] = OrderedDict()
        self._since: int | None = None  # the round in which somebody was established first
        self._round = 0  # the last one that gave credit

    def __len__(self) -> int:
        return len(self._established) + len(self._others)

    def is_established(self, author: bytes) -> bool:
        """Whether enough rounds took something of this author."""
        return author in self._established or self._settings.newcomer_rounds == 0

    @property
    def is_settled(self) -> bool:
        """Whether this node knows its peers for long enough to tell newcomers from them."""
        since = self._since
        return since is not None and self._round - since >= self._settings.newcomer_grace

    def is_avoided(self, author: bytes, now: float) -> bool:
        """Whether nothing is to be taken from this author at `now`."""
        record = self._find(author)
        return self._settings.standing and record is not None and record.avoided_until > now

    def points(self, author: bytes, now: float) -> float:
        """What is held against the author at `now`."""
        record = self._find(author)
        if record is None:
            return 0.0
        record.fade(now, self._settings.offence_half_life_s)
        return record.points

    def network(self, author: bytes) -> str:
        """The network from which the author served us; "" when it is not known."""
        record = self._find(author)
        return "" if record is None else record.network

    def credit(self, author: bytes, round: int, now: float) -> None:
        """Takes note that this node's `round` got something right from the author: once a round."""
        record = self._touch(author, now)
        if record.credited_round != round:
            most = _MOST_CREDIT * max(1, self._settings.newcomer_rounds)
            record.credited_round = round
            record.credit = min(most, record.credit + 1.0)
        self._file(author, record)
        self._round = max(self._round, round)
        if self._since is None and self._established:
            self._since = round

    def blame(self, author: bytes, offence: Offence, now: float) -> bool:
        """Holds an offence against the author; whether it is avoided from now on, and was not."""
        record = self._touch(author, now)
        record.points += offence.value
        is_new = record.points >= self._settings.max_offences and record.avoided_until <= now
        if is_new:
            record.avoided_until = now + self._settings.avoid_s
        self._file(author, record)
        return is_new and self._settings.standing

    def locate(self, author: bytes, address: str, now: float) -> None:
        """Takes note of the address from which the author served us ("": unknown)."""
        network = network_of(address)
        if network:
            record = self._touch(author, now)
            record.network = network
            self._file(author, record)

    def state(self) -> dict[str, Any]:
        """What `load_state` restores, JSON-able."""
        records = {
            author.hex(): [
                record.at, record.points, record.credit, record.credited_round,
                record.avoided_until, record.network,
            ]
            for queue in (self._others, self._established)
            for author, record in queue.items()
        }  # fmt: skip
        return {"records": records, "since": self._since, "round": self._round}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes over what `state` returned; leaves out what it cannot have written."""
        self._since, self._round = state["since"], state["round"]
        for key, fields in state["records"].items():
            record = _record(fields)
            if len(key) == 2 * PUBLIC_KEY_BYTES and record is not None:
                self._file(bytes.fromhex(key), record)

    def _find(self, author: bytes) -> _Record | None:
        return self._established.get(author) or self._others.get(author)

    def _touch(self, author: bytes, now: float) -> _Record:
        record = self._find(author) or _Record(now)
        record.fade(now, self._settings.offence_half_life_s)
        return record

    def _file(self, author: bytes, record: _Record) -> None:
        """Puts the record where it belongs, as the newest, and forgets the oldest."""
        self._established.pop(author, None)
        self._others.pop(author, None)
        is_established = record.credit >= max(_FADED, self._settings.newcomer_rounds - _FADED)
        (self._established if is_established else self._others)[author] = record
        while len(self) > self._settings.max_authors:
            (self._others or self._established).popitem(last=False)


def network_of(address: str) -> str:
    """The network that a multiaddress lies in: /24 of IPv4, /48 of IPv6; "" when it says none.

    Behind a relay the network is the relay's, told apart from nodes that are in it themselves.

    >>> network_of("/ip4/203.0.113.7/tcp/4001"), network_of("/ip6/2001:db8:1:2::3/udp/1/quic-v1")
    ('203.0.113.0/24', '2001:db8:1::/48')
    >>> network_of("/ip4/203.0.113.7/tcp/1/p2p/x/p2p-circuit"), network_of("/dns4/a.org/tcp/1")
    ('relay:203.0.113.0/24', '')
    """
    parts = address.split("/", 3)
    if len(parts) < 3 or parts[1] not in ("ip4", "ip6"):
        return ""
    try:
        ip = ipaddress.ip_address(parts[2])
    except ValueError:
        return ""
    if ip.version == 6 and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    network = ipaddress.ip_network((ip, 24 if ip.version == 4 else 48), strict=False)
    return f"relay:{network}" if "/p2p-circuit" in address else str(network)


def _record(fields: Any) -> _Record | None:
    """The record with these fields as `Standing.state` writes them, else None."""
    if type(fields) is not list or len(fields) != 6:
        return None
    *numbers, network = fields
    if any(type(n) not in (int, float) or not math.isfinite(n) for n in numbers):
        return None
    if type(network) is not str or len(network) > _MAX_NETWORK_CHARACTERS:
        return None
    at, points, credit, credited_round, avoided_until = numbers
    return _Record(at, points, credit, int(credited_round), avoided_until, network)
