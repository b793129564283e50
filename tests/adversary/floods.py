"""One peer that sends 10,000 messages a second to a real node, of either library.

Three honest nodes publish two rollouts a second each meanwhile; counted is what of them the victim
fetches and admits, by how much the victim's network processes grow, and when the flooder's
connections are closed, as they are again whenever it comes back. Two rates are printed, and the
larger is the attack's: what its connections took in until they were closed first, where a victim
that reads slowly slows them down, and in all, with those that it made anew.
"""

import tempfile
from pathlib import Path

from figures import Figure, figure
from real import BACKENDS, Workload, address, attacked, memory_bytes, met, processes

IN_CI = False  # rates by the clock: they want a quiet machine
RATE = 10_000
# Streams of the flooder: p2pd reads gossip from one of a peer's, py-libp2p from each, and each may
# have its own bytes on the way.
LINKS = {"hivemind": 1, "libp2p": 12}
_MORE_S = 5.0  # for which it goes on after the last honest rollout
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
            with attacked(
                address(work.network), kind, rate, for_s + _MORE_S, LINKS[backend]
            ) as stranger:
                published, admitted = work.run(for_s)
                grown = memory_bytes(family) - at_rest
                stranger.wait(for_s + 30)
                assert stranger.stdout is not None
                lines = [line.split() for line in stranger.stdout.read().splitlines()]
            restarts = work.network.status().restarts
        finally:
            work.close()
    cut = [line for line in lines if line[0] == "cut"]
    cut_s = float(cut[0][1]) if cut else float("inf")
    return {
        "before": before,
        "published": published,
        "during": admitted / published,
        "grown": grown / _MIB,
        "cut_s": cut_s,
        "rate_until_cut": float(cut[0][2]) / cut_s if cut else 0.0,
        "rate_in_all": float(lines[-1][1]) / (for_s + _MORE_S) if lines else 0.0,
        "restarts": restarts,
    }


def measure(short: bool) -> list[Figure]:
    """Figures of the battery."""
    found = []
    for backend in BACKENDS:
        seen = flood(backend, 6.0 if short else 30.0)
        kept = 100 * seen["during"] / seen["before"]
        rate = max(seen["rate_until_cut"], seen["rate_in_all"])
        rates = f"({seen['rate_until_cut']:.0f} until cut, {seen['rate_in_all']:.0f} in all)"
        of = f"% of {seen['published']:.0f} rollouts"
        name = f"flood of one peer, {backend}:"
        found += [
            figure(f"{name} messages a second {rates}", rate, "/s", ">=", 0.9 * RATE),
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
