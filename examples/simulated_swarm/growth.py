"""Whether anything grows in the long run: what a process and a node in it hold, sample by sample.

A node in a swarm where others come and go reaches a level within some hundred rounds, when the
oldest of what it remembers is forgotten; from then on nothing may rise. A leak of one entry a round
or of one per peer ever met is a line that goes on.
"""

import gc
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

from simulated_swarm.air import Air
from simulated_swarm.member import Member, Setting
from simulated_swarm.signing import StandIn

# What all nodes share, and what is no node's.
_SHARED = (Air, StandIn, Setting, ModuleType, type, FunctionType, BuiltinFunctionType)
# A rise from the second to the last quarter that is one: as a share, and in the figure's own unit.
# Chance moves the figures of a dozen nodes by one or two percent.
_RISE_SHARE = 0.03
_RISE = {"rss_kib": 2048, "objects": 500, "node_bytes": 20_000, "node_entries": 50}


@dataclass(frozen=True, slots=True)
class Sample:
    """What is there after a round. `objects` are the process' containers, `node_bytes` all that the
    nodes which stay keep, with frames and texts that they share with others; `node_entries` those
    of their bounded structures. Both are means."""

    round: int
    rss_kib: int
    objects: int
    node_bytes: int
    node_entries: int
    files: int
    tasks: int

    def as_dict(self) -> dict[str, int]:
        """A JSON-able copy."""
        return asdict(self)


def sample(round: int, nodes: Sequence[Member]) -> Sample:
    """Looks at this process and at the nodes that never left."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Sample(
        round=round,
        rss_kib=pages * os.sysconf("SC_PAGE_SIZE") // 1024,
        objects=len(gc.get_objects()),
        node_bytes=round_mean([reachable_bytes(node) for node in nodes]),
        node_entries=round_mean([sum(entries(node).values()) for node in nodes]),
        files=len(os.listdir("/proc/self/fd")),
        tasks=len(os.listdir("/proc/self/task")),
    )


def entries(node: Member) -> dict[str, int]:
    """How many entries each structure of a node has."""
    return node.exchange.sizes() | {
        "pool": len(node.pool),
        "outbox": len(node.transport.outbox),
        "trained_from": len(node.totals.trained_from),
    }


def reachable_bytes(node: Member) -> int:
    """The bytes of all objects that can be reached from a node without those that all share."""
    seen: set[int] = set()
    waiting: list[Any] = [vars(node)]
    total = 0
    while waiting:
        one = waiting.pop()
        if id(one) in seen or isinstance(one, _SHARED):
            continue
        seen.add(id(one))
        total += sys.getsizeof(one)
        waiting += gc.get_referents(one)
    return total


def rises(samples: Sequence[Sample]) -> Mapping[str, tuple[float, float]]:
    """The figures that grow, with their means in the second and in the last quarter of the rounds.
    Files and tasks may not rise at all."""
    last = samples[-1].round
    before = [one.as_dict() for one in samples if last / 4 < one.round <= last / 2]
    after = [one.as_dict() for one in samples if 3 * last / 4 < one.round]
    found = {}
    for name in ("rss_kib", "objects", "node_bytes", "node_entries", "files", "tasks"):
        low, high = fmean(one[name] for one in before), fmean(one[name] for one in after)
        allowed = max(_RISE[name], _RISE_SHARE * low) if name in _RISE else 0
        if high > low + allowed:
            found[name] = low, high
    return found


def round_mean(values: Sequence[float]) -> int:
    """The mean, as a whole number."""
    return round(fmean(values))
