"""What is not verified is imitated only where this node might have written it."""

import math

import torch

from swarmnode.config import HybridSettings
from swarmnode.train.foreign import foreign_terms
from swarmnode.train.objectives.tokens import Tokens
from swarmnode.train.unverified import unimitated

# Two completions of four and two tokens; the third token is of the first one's answer.
LOGPS = [-1.0, -9.0, -9.0, -1.0, -1.0, -9.0]
VERIFIED = [False, False, True, False, False, False]
LENGTHS = [4, 2]
LEAST = math.log(0.01)  # about −4.6


def left_out(least: float) -> list[bool]:
    return unimitated(
        torch.tensor(LOGPS), torch.tensor(VERIFIED), torch.tensor(LENGTHS), least
    ).tolist()


def test_from_the_first_unlikely_token_on_nothing_is_left() -> None:
    # A surprise ends with its completion.
    assert left_out(LEAST) == [False, True, True, True, False, True]


def test_an_unlikely_answer_is_no_surprise() -> None:
    verified = torch.tensor([False, True, True, False, False, False])
    found = unimitated(torch.tensor(LOGPS), verified, torch.tensor(LENGTHS), LEAST)
    assert found.tolist() == [False, False, False, False, False, True]


def test_nothing_but_the_answer() -> None:
    assert left_out(0.0) == [True, True, False, True, True, True]


def gradients(verified: list[bool] | None, **switches: object) -> list[float]:
    values = torch.tensor(LOGPS, requires_grad=True)
    rows = torch.tensor([0, 0, 0, 0, 1, 1])
    tokens = Tokens(
        logps=values,
        old_logps=values.detach(),
        sampler_logps=values.detach(),
        sampler_sums=torch.tensor([-20.0, -10.0]),
        advantages=torch.ones(6),
        rows=rows,
        external=torch.ones(6, dtype=torch.bool),
        lengths=torch.tensor(LENGTHS),
        verified=None if verified is None else torch.tensor(verified),
    )
    foreign_terms(tokens, HybridSettings(**switches)).losses.sum().backward()
    assert values.grad is not None
    return values.grad.tolist()


def test_the_loss_leaves_them_out_and_imitates_all_when_switched_off() -> None:
    assert gradients(VERIFIED, unverified="likely") == [-1.0, 0.0, 0.0, 0.0, -1.0, 0.0]
    assert gradients(VERIFIED, unverified="none") == [0.0, 0.0, -1.0, 0.0, 0.0, 0.0]
    assert gradients(VERIFIED, unverified="all") == [-1.0] * 6
    assert gradients(None, unverified="likely") == [-1.0] * 6
