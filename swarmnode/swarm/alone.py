"""Why a node is alone: one word from a closed set for metrics, one sentence for a person. Pure.

A node trains on without peers, so nothing else would tell that its network fails.
"""

import enum
from dataclasses import dataclass


class Alone(enum.StrEnum):
    """Why no peer of the swarm is connected; metric label."""

    OFFLINE = "offline"  # the user asked for it
    RESTARTING = "restarting"  # the network process ended or hung, and is being replaced
    SILENT = "silent"  # the network process, or its library, has not answered for a while
    UNREACHABLE = "unreachable"  # no peer that was given can be dialled
    STRANGERS = "strangers"  # connected, but to nodes of other swarms
    SEARCHING = "searching"  # dialling, or asking around
    WAITING = "waiting"  # knows nobody: somebody has to come


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the network process sees. `problems`: why each given peer is not connected, in the words
    of its dialler. `dialling`: the first given peer, "" without any. `remembered`: peers in the
    address book. `looks_on_lan`: whether the local network is asked. `relayed`: peers, of this
    swarm or not, that are connected through a relay only."""

    members: int
    strangers: int = 0
    problems: tuple[str, ...] = ()
    dialling: str = ""
    remembered: int = 0
    looks_on_lan: bool = False
    relayed: int = 0
    silent_s: float = 0.0


def explain(seen: Surroundings) -> tuple[Alone | None, str]:
    """(why this node is alone or None, the state in a sentence).

    >>> explain(Surroundings(members=2))
    (None, 'connected to 2 peers')
    >>> explain(Surroundings(members=0, remembered=1))
    (<Alone.SEARCHING: 'searching'>, 'alone: dialing the 1 peer that it knew before')
    """
    if seen.silent_s:
        return Alone.SILENT, f"alone: the network library is silent for {seen.silent_s:.0f} s"
    if seen.members:
        detours = f", {seen.relayed} more through a relay" if seen.relayed else ""
        return None, f"connected to {_count(seen.members, 'peer')}{detours}"
    if seen.problems:
        more = f" ({len(seen.problems) - 1} more fail)" if len(seen.problems) > 1 else ""
        return Alone.UNREACHABLE, f"alone: {seen.problems[0]}{more}"
    if seen.strangers:
        what = "node, which is not" if seen.strangers == 1 else "nodes, none of which is"
        return (
            Alone.STRANGERS,
            f"alone: connected to {seen.strangers} {what} in this swarm yet",
        )
    if seen.dialling:
        return Alone.SEARCHING, f"alone: dialing {seen.dialling}"
    if seen.remembered:
        known = _count(seen.remembered, "peer")
        return Alone.SEARCHING, f"alone: dialing the {known} that it knew before"
    where = "on the local network" if seen.looks_on_lan else "to join"
    return Alone.WAITING, f"alone: no --peer given, waiting for others {where}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
