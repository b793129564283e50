"""The week in the simulator: that it says what grows, and counts what a node holds."""

import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "examples"))

from simulated_swarm.growth import Sample, reachable_bytes, rises  # noqa: E402
from simulated_swarm.member import Member, Round  # noqa: E402
from simulated_swarm.swarm import Plan, Swarm  # noqa: E402
from swarm_week import simulate, table  # noqa: E402


def samples(**rising: float) -> list[Sample]:
    """Sixteen of them; what is given rises by so much from one to the next."""
    level = {"rss_kib": 50_000, "objects": 20_000, "node_bytes": 900_000, "node_entries": 2000}
    level |= {"files": 6, "tasks": 1}
    return [
        Sample(
            round=100 * n,
            **{name: round(at + n * rising.get(name, 0)) for name, at in level.items()},
        )
        for n in range(1, 17)
    ]


def test_what_stays_is_flat_and_chance_is_no_growth() -> None:
    assert rises(samples()) == {}
    assert rises(samples(rss_kib=100, objects=20, node_bytes=1000)) == {}


@pytest.mark.parametrize(
    ("name", "by"),
    [
        ("rss_kib", 500),
        ("objects", 200),
        ("node_bytes", 9000),
        ("node_entries", 30),
        ("files", 0.2),
        ("tasks", 0.2),
    ],
)
def test_what_rises_is_named(name: str, by: float) -> None:
    assert list(rises(samples(**{name: by}))) == [name]


class Leaking(Member):
    """Keeps a note of each round."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.notes: list[list[int]] = []

    def run_round(self, now: float) -> Round:
        self.notes += ([self.round + n] for n in range(50))
        return super().run_round(now)


@pytest.mark.slow
def test_a_node_that_leaks_is_found_out() -> None:
    plan = Plan(nodes=3, rounds=120, warm_up=8, residents=2, churn=0.02, questions=1, text_bytes=20)
    found, result = simulate(Swarm(plan, kind=Leaking))
    assert "node_bytes" in rises(found)
    assert result["entries"]["trained_from"] > 0
    assert [one.round for one in found] == sorted(one.round for one in found)
    assert len(table(found).splitlines()) == 7


@pytest.mark.slow
def test_a_nodes_bytes_are_its_own() -> None:
    plan = Plan(nodes=2, rounds=1, warm_up=0, residents=2, text_bytes=20)
    swarm = Swarm(plan)
    swarm.run()
    one = swarm.residents[0]
    before = reachable_bytes(one)
    one.exchange.refused_notes = bytes(10_000)  # type: ignore[attr-defined]  # any attribute
    assert 10_000 <= reachable_bytes(one) - before < 10_500
    swarm.residents[1].exchange.refused_notes = bytes(10_000)  # type: ignore[attr-defined]
    assert reachable_bytes(one) - before < 10_500
