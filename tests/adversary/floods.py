"""One peer that sends 10,000 messages a second to a real node, of either library.

Three honest nodes publish two rollouts a second each meanwhile; counted is what of them the victim
fetches and admits, by how much the victim's network processes grow, and when the flooder's
connections are closed. The rate is what they took in until then: a victim that reads more slowly
slows them down.
"""

import tempfile
import time
from pathlib import Path

from figures import Figure, figure
from real import BACKENDS, Workload, address, attacked, memory_bytes, met, processes

IN_CI = False  # rates by the clock: they want a quiet machine
RATE = 10_000
# Streams of the flooder: p2pd reads gossip from one of a peer's, py-libp2p from each, and each may
# have its own bytes on the way.
LINKS = {"hivemind": 1, "libp2p": 12}
_NEIGHBOURS = 2  # honest ones of the victim, besides the one that publishes
_MIB = 2**20


def flood(backend: str, for_s: float, kind: str = "one-key", rate: int = RATE) -> dict[str, float]:
    """What an attack of so many seconds did: shares of honest rollouts admitted before and during
    it, MiB of growth, seconds until the flooder was cut off (infinite: never), messages sent."""
    with tempfile.TemporaryDirectory() as folder:
        work = Workload(Path(folder), backend, neighbours=_NEIGHBOURS)
        try:
            met(work.network, *(one.transport for one in work.authors))  # type: ignore[arg-type]
            work.run(2.0)
            published, admitted = work.run(for_s / 2)
            before = admitted / published
            family = processes(work.network)
            at_rest = memory_bytes(family)
            with attacked(address(work.network), kind, rate, for_s + 5, LINKS[backend]) as stranger:
                began = time.monotonic()
                published, admitted = work.run(for_s)
                took_s = time.monotonic() - began
                grown = memory_bytes(family) - at_rest
                stranger.wait(for_s + 30)
                assert stranger.stdout is not None
                lines = [line.split() for line in stranger.stdout.read().splitlines()]
            restarts = work.network.status().restarts
        finally:
            work.close()
    cut = [line for line in lines if line[0] == "cut"]
    sent = float(cut[0][2]) if cut else float(lines[-1][1]) if lines else 0.0
    cut_s = float(cut[0][1]) if cut else float("inf")
    return {
        "before": before,
        "published": published,
        "during": admitted / published,
        "grown": grown / _MIB,
        "cut_s": cut_s,
        "rate": sent / min(cut_s, took_s),
        "restarts": restarts,
    }


def measure(short: bool) -> list[Figure]:
    """Figures of the battery."""
    found = []
    for backend in BACKENDS:
        seen = flood(backend, 6.0 if short else 30.0)
        kept = 100 * seen["during"] / seen["before"]
        of = f"% of {seen['published']:.0f} rollouts"
        name = f"flood of one peer, {backend}:"
        found += [
            figure(f"{name} messages a second offered", seen["rate"], "/s", ">=", 0.9 * RATE),
            figure(f"{name} honest throughput", kept, of, ">=", 95.0),
            figure(f"{name} memory growth", seen["grown"], "MiB", "<=", 64.0),
            figure(f"{name} offender cut after", seen["cut_s"], "s", "<=", 5.0),
            figure(f"{name} restarts of the network", seen["restarts"], "", "==", 0),
        ]
    return found


if __name__ == "__main__":
    import sys

    from figures import show

    sys.exit(show(measure("--short" in sys.argv)) > 0)
