"""Whether peers' completions pull where a node's own do."""

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from swarmnode.config import TrainSettings
from swarmnode.train.alignment import COORDINATES, MEMORY, Alignment, OwnDirection
from swarmnode.train.batch import Sample
from swarmnode.train.optimizer import MasterAdamW
from swarmnode.train.trainer import OWN_DIRECTION, Trainer

Tiny = Callable[..., nn.Module]

OWN = [
    Sample((3, 4, 5), (10,), 1.0, external=False),
    Sample((3, 4, 5), (11,), -1.0, external=False),
    Sample((3, 4, 6), (10,), 1.0, external=False),
    Sample((3, 4, 6), (11,), -1.0, external=False),
]
SAME = [dataclasses.replace(s, external=True) for s in OWN]
ALIKE = [dataclasses.replace(s, prompt_ids=(3, 4, 7), external=True) for s in OWN[:2]]
AGAINST = [dataclasses.replace(s, advantage=-s.advantage) for s in ALIKE]


def measured(model: nn.Module, *steps: list[Sample], share: float = 1.0) -> list[Alignment | None]:
    """What each of these steps says; the rate is so small that the model stays as it is."""
    trainer = Trainer(model, TrainSettings(lr=1e-12), pad_token_id=0)
    return [trainer.step(samples, share, is_measured=True).alignment for samples in steps]


def known(found: Alignment | None) -> Alignment:
    assert found is not None
    return found


def test_says_nothing_before_a_step_to_compare_with(tiny: Tiny) -> None:
    first, second = measured(tiny("llama-tied"), OWN, OWN)
    assert first is None
    assert known(second).own > 0
    assert known(second).peers == 0
    assert measured(tiny("llama-tied"), ALIKE, ALIKE, []) == [None, None, None]


def test_not_asked_for_it_is_not_measured(tiny: Tiny) -> None:
    trainer = Trainer(tiny("llama-tied"), TrainSettings(), pad_token_id=0)
    assert [trainer.step(OWN).alignment for _ in range(2)] == [None, None]
    assert OWN_DIRECTION not in trainer.state().optimizer


def test_peers_that_say_the_same_bring_as_much(tiny: Tiny) -> None:
    _, found = measured(tiny("llama-tied"), OWN, [*OWN, *SAME])
    assert known(found).peers == pytest.approx(known(found).own, rel=1e-4)


def test_peers_count_where_the_own_part_is_missing(tiny: Tiny) -> None:
    _, found, after = measured(tiny("llama-tied"), OWN, SAME, OWN)
    assert known(found).own == 0
    assert known(found).peers > 0
    assert known(after).own == pytest.approx(known(found).peers, rel=1e-4)  # d is as it was


def test_sign_tells_help_from_harm(tiny: Tiny) -> None:
    _, helps, harms = measured(tiny("llama-tied"), OWN, [*OWN, *ALIKE], [*OWN, *AGAINST])
    assert known(helps).own > 0
    assert known(helps).peers > 0 > known(harms).peers


def test_measuring_changes_no_weight_beyond_rounding(tiny: Tiny) -> None:
    def weights(*, is_measured: bool) -> dict[str, Tensor]:
        trainer = Trainer(tiny("gpt2").double(), TrainSettings(lr=1e-3), pad_token_id=0)
        for _ in range(3):
            trainer.step([*ALIKE, *OWN], is_measured=is_measured)
        return {name: tensor.clone() for name, tensor in trainer.state().model.items()}

    torch.testing.assert_close(weights(is_measured=True), weights(is_measured=False))


def test_a_share_of_peers_counts_as_such(tiny: Tiny) -> None:
    model = tiny("llama-tied")
    _, whole = measured(model, OWN, [*OWN, *ALIKE])
    _, half = measured(model, OWN, [*OWN, *ALIKE], share=0.5)
    assert known(half).peers == pytest.approx(known(whole).peers / 2, rel=1e-4)
    assert known(half).own == pytest.approx(known(whole).own, rel=1e-4)


def test_first_order_prediction_comes_true(tiny: Tiny) -> None:
    """The own loss, computed by hand, falls by what is foretold, per unit of a step."""
    model = tiny("gpt2").double()  # Llama's norm computes in float32 whatever the dtype
    samples = [*OWN, *ALIKE]
    _, found = measured(model, samples, samples)  # so d is this step's own part

    def loss(part: list[Sample]) -> Tensor:
        """REINFORCE terms, divided by the tokens of the whole step."""
        terms = []
        for s in part:
            logits = model(input_ids=torch.tensor([s.prompt_ids])).logits[0, -1]
            terms.append(-s.advantage * logits.log_softmax(-1)[s.completion_ids[0]])
        return torch.stack(terms).sum() / len(samples)

    weights = list(model.parameters())
    peers = torch.autograd.grad(loss(ALIKE), weights)
    before, step = loss(OWN).item(), 1e-9
    with torch.no_grad():
        for weight, theirs in zip(weights, peers, strict=True):
            weight -= step * theirs
    assert (before - loss(OWN).item()) / step == pytest.approx(known(found).peers, rel=1e-3)


def test_direction_forgets_and_leaves_out_what_is_not_finite() -> None:
    one, other = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    direction = OwnDirection()
    assert direction.compare(one, other) is None
    assert direction.compare(one, other) == Alignment(1.0, 0.0)
    assert direction.compare(one * torch.inf, other) is None
    for _ in range(3):
        direction.compare(other, other)
    share = (1 - 1 / MEMORY) ** 3
    torch.testing.assert_close(direction.mean, torch.tensor([share, 1 - share]))


def test_a_checkpoint_keeps_the_direction(tiny: Tiny) -> None:
    one, other = (Trainer(tiny("gpt2"), TrainSettings(), pad_token_id=0) for _ in range(2))
    one.step(OWN, is_measured=True)
    other.load_state(one.state())
    mine, theirs = (t.step([*OWN, *ALIKE], is_measured=True).alignment for t in (one, other))
    assert known(mine) == known(theirs)


def test_gradient_is_sampled_evenly(tiny: Tiny) -> None:
    model = tiny("llama-tied")
    optimizer = MasterAdamW(model, TrainSettings())
    size = sum(p.numel() for p in model.parameters())
    assert not optimizer.sampled_gradient(COORDINATES).any()
    model(input_ids=torch.tensor([[3, 4]])).logits.square().sum().backward()
    whole, part = optimizer.sampled_gradient(size), optimizer.sampled_gradient(size // 10)
    assert whole.numel() == size
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    torch.testing.assert_close(whole, torch.cat([g.flatten() for g in gradients]))
    assert size // 12 < part.numel() < size // 8
    assert float(part.square().mean() / whole.square().mean()) == pytest.approx(1, abs=0.5)
