"""What churn costs, in the laboratory: who is replaced, and the ratios by hand."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "examples"))

from laboratory import churn, runs  # noqa: E402
from laboratory.settings import ARMS, REGIMES, Arm, Run  # noqa: E402
from laboratory.simulation import Turnover, simulate  # noqa: E402
from laboratory.world import World, open_world  # noqa: E402

TINY = replace(REGIMES["dense"], nodes=2, rounds=3, evaluate_every=3, evaluate_questions=1)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    threads = torch.get_num_threads()
    runs.prepare_process()
    yield open_world(ROOT / "swarmnode" / "demo_model", 1)
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


@pytest.mark.slow
def test_a_newcomer_begins_at_the_start_and_those_who_stay_are_as_they_were(world: World) -> None:
    def tokens(arm: Arm, turnover: Turnover | None) -> list[list[int]]:
        rows = simulate(Run(TINY, arm, 1), world, turnover)
        return [row["tokens_generated"] for kind, row in rows if kind == "rounds"]

    alone, half = Arm("alone", "off", own=4), Turnover(every=2, nodes=1)
    calm, churned = tokens(alone, None), tokens(alone, half)
    assert churned[:2] == calm[:2]
    assert churned[2][0] == calm[2][0]  # alone, who stays does not notice
    assert churned[2][1] != calm[2][1]
    assert tokens(alone, half) == churned


def test_the_ratios_worked_by_hand() -> None:
    # Calm means by age are 2 and 3. The second of the churned nodes is new in each round: of age 0
    # twice. So 2 + 3 + 2 + 2 = 9 were to be expected of all.
    found = churn.compare([[1, 2], [3, 4]], [[1, 2], [1, 2]], Turnover(every=1, nodes=1))
    assert found == {
        "those who stay": 1.0,
        "all, at equal age": pytest.approx(6 / 9),
        "all, at equal time": pytest.approx(0.6),
    }


def test_the_table_says_mean_and_error_over_seeds() -> None:
    one = dict.fromkeys(churn.MEASURES, 0.9)
    two = dict.fromkeys(churn.MEASURES, 1.1)
    assert "| those who stay | 1.000 ± 0.100 | 0.900 1.100 |" in churn.table([one, two])
    assert churn.regime(40).nodes == 8
    assert "hybrid 4/4" in ARMS
