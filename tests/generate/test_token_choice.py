import math

import pytest
import torch

from swarmnode.generate.sampling import BLOCK, choose, draw


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("size", [3, 2 * BLOCK, 2 * BLOCK + 1, 3 * BLOCK])
def test_frequencies_follow_the_probabilities(size: int) -> None:
    torch.manual_seed(1)
    weights = torch.rand(size) ** 8
    weights[1] = 0.0
    probabilities = weights / weights.sum()
    draws = 40_000
    found = draw(probabilities.expand(draws, -1), chance())
    counts = torch.bincount(found, minlength=size)
    assert counts[1] == 0
    # χ² over the entries expected at least five times has mean k − 1 and variance 2 (k − 1).
    expected = probabilities * draws
    often = expected >= 5
    statistic = ((counts - expected) ** 2 / expected)[often].sum()
    freedom = int(often.sum()) - 1
    assert abs(float(statistic) - freedom) < 5 * math.sqrt(2 * freedom)


@pytest.mark.parametrize("place", [0, 1, BLOCK - 1, BLOCK, 3 * BLOCK - 1])
def test_the_only_possible_entry_is_drawn(place: int) -> None:
    probabilities = torch.zeros(64, 3 * BLOCK)
    probabilities[:, place] = 1.0
    assert draw(probabilities, chance()).tolist() == [place] * 64


def test_padding_is_never_drawn() -> None:
    probabilities = torch.full((5_000, 2 * BLOCK + 3), 1.0 / (2 * BLOCK + 3))
    assert int(draw(probabilities, chance()).max()) < 2 * BLOCK + 3


def test_log_probabilities_are_those_of_the_temperature() -> None:
    logits = torch.tensor([[1.0, 2.0, 3.0]]).repeat(20, 1)
    token, logps = choose(logits, 0.5, chance())
    expected = (logits / 0.5).log_softmax(dim=-1).gather(1, token[:, None])[:, 0]
    torch.testing.assert_close(logps, expected)
    token, logps = choose(logits, None, chance())
    assert token.tolist() == [2] * 20
    # log(e³ / (e + e² + e³)) = −0.407606
    torch.testing.assert_close(logps, torch.full((20,), -0.407606))
