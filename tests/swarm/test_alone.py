"""Why a node is alone: the most telling reason wins, and each has its word."""

import pytest

from swarmnode.swarm.alone import Alone, Surroundings, explain

FAILS = "dialing /ip4/192.0.2.1/tcp/1/p2p/A failed: connection refused, next try in 3 s"


@pytest.mark.parametrize(
    ("seen", "word", "sentence"),
    [
        (Surroundings(1, strangers=4, problems=(FAILS,)), None, "connected to 1 peer"),
        (Surroundings(12), None, "connected to 12 peers"),
        (Surroundings(0), Alone.WAITING, "alone: no --peer given, waiting for others to join"),
        (
            Surroundings(0, looks_on_lan=True),
            Alone.WAITING,
            "alone: no --peer given, waiting for others on the local network",
        ),
        (Surroundings(0, dialling="/a"), Alone.SEARCHING, "alone: dialing /a"),
        (
            Surroundings(0, remembered=3),
            Alone.SEARCHING,
            "alone: dialing the 3 peers that it knew before",
        ),
        (
            Surroundings(0, strangers=1, dialling="/a"),
            Alone.STRANGERS,
            "alone: connected to 1 node, which is not in this swarm yet",
        ),
        (
            Surroundings(0, strangers=2),
            Alone.STRANGERS,
            "alone: connected to 2 nodes, none of which is in this swarm yet",
        ),
        (Surroundings(0, 1, (FAILS,), "/a", 3), Alone.UNREACHABLE, f"alone: {FAILS}"),
        (
            Surroundings(0, problems=(FAILS,) * 3),
            Alone.UNREACHABLE,
            f"alone: {FAILS} (2 more fail)",
        ),
        (
            Surroundings(3, silent_s=7.2),
            Alone.SILENT,
            "alone: the network library is silent for 7 s",
        ),
    ],
)
def test_says_why(seen: Surroundings, word: Alone | None, sentence: str) -> None:
    assert explain(seen) == (word, sentence)
