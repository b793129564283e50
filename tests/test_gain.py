"""The estimate of what peers give: its value, its error, and when it says nothing."""

import json
import math
import random
import statistics

import pytest

from swarmnode.gain import BLOCKS, LEAST, WINDOW, Gain, GainEstimate


def estimate(pairs: list[tuple[float, float]]) -> GainEstimate:
    found = GainEstimate()
    for own, peers in pairs:
        found.note(own, peers)
    return found


def test_says_nothing_before_enough_steps() -> None:
    assert estimate([(1.0, 3.0)] * (LEAST - 1)).now() is None
    assert estimate([(1.0, 3.0)] * LEAST).now() == Gain(0.75, 0.0)


def test_says_nothing_without_progress() -> None:
    assert estimate([(1.0, -1.0)] * LEAST).now() is None
    # All progress is in the first steps, so without their block nothing is known.
    assert estimate([(1.0, 2.0)] * 2 + [(0.0, 0.0)] * LEAST).now() is None


def test_peers_that_harm_have_a_negative_share() -> None:
    assert estimate([(2.0, -1.0)] * LEAST).now() == Gain(-1.0, 0.0)


def test_error_is_the_jackknifes_over_blocks() -> None:
    # The whole is 1 in every step: the share is the mean of `peers`, the error that of the blocks'.
    blocks = [number / BLOCKS for number in range(BLOCKS)]
    found = estimate([(1 - value, value) for value in blocks for _ in range(LEAST)]).now()
    assert found is not None
    assert found.share == pytest.approx(statistics.fmean(blocks))
    assert found.error == pytest.approx(math.sqrt(statistics.variance(blocks) / BLOCKS))


def test_only_the_newest_steps_count_and_what_is_not_finite_does_not() -> None:
    found = estimate([(1.0, 9.0)] * WINDOW + [(1.0, 1.0)] * WINDOW)
    found.note(math.nan, 1.0)
    found.note(1.0, math.inf)
    now = found.now()
    assert now is not None
    assert now.share == 0.5


def test_error_covers_the_truth() -> None:
    rng, inside = random.Random(1), 0
    for _ in range(200):
        pairs = [(rng.gauss(1, 2), rng.gauss(3, 4)) for _ in range(WINDOW)]
        found = estimate(pairs).now()
        assert found is not None
        inside += abs(found.share - 0.75) < 2 * found.error
    # Student's t with nine degrees of freedom: 92 % of 200, give or take three standard deviations.
    assert 173 <= inside <= 196


def test_state_continues_where_it_was_taken() -> None:
    one, other = estimate([(1.0, 0.5), (2.0, 1.5)] * LEAST), GainEstimate()
    other.load_state(json.loads(json.dumps(one.state())))
    assert other.now() == one.now()
