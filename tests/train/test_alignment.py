"""Whether peers' completions pull where a node's own do."""

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from swarmnode.config import TrainSettings
from swarmnode.train.alignment import COORDINATES, Alignment, Parts
from swarmnode.train.batch import Sample
from swarmnode.train.optimizer import MasterAdamW
from swarmnode.train.trainer import Trainer

Tiny = Callable[..., nn.Module]

OWN = [
    Sample((3, 4, 5), (10,), 1.0, external=False),
    Sample((3, 4, 5), (11,), -1.0, external=False),
    Sample((3, 4, 6), (10,), 1.0, external=False),
    Sample((3, 4, 6), (11,), -1.0, external=False),
]
ALIKE = [dataclasses.replace(s, prompt_ids=(3, 4, 7), external=True) for s in OWN[:2]]
AGAINST = [dataclasses.replace(s, advantage=-s.advantage) for s in ALIKE]


def measured(model: nn.Module, samples: list[Sample], share: float = 1.0) -> Alignment | None:
    trainer = Trainer(model, TrainSettings(), pad_token_id=0)
    return trainer.step(samples, share, is_measured=True).alignment


def known(found: Alignment | None) -> Alignment:
    assert found is not None
    return found


def test_one_own_group_or_none_says_nothing(tiny: Tiny) -> None:
    for samples in ([], ALIKE, OWN[:2], [*OWN[:2], *ALIKE]):
        assert measured(tiny("llama-tied"), samples) is None
    alone = known(measured(tiny("llama-tied"), OWN))
    assert alone.own > 0
    assert alone.peers == 0


def test_not_asked_for_it_is_not_measured(tiny: Tiny) -> None:
    trainer = Trainer(tiny("llama-tied"), TrainSettings(), pad_token_id=0)
    assert trainer.step([*OWN, *ALIKE]).alignment is None


def test_sign_tells_help_from_harm(tiny: Tiny) -> None:
    helps, harms = (measured(tiny("llama-tied"), [*OWN, *part]) for part in (ALIKE, AGAINST))
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
    whole, half = (measured(tiny("llama-tied"), [*OWN, *ALIKE], share) for share in (1.0, 0.5))
    assert known(half).peers == pytest.approx(known(whole).peers / 2, rel=1e-4)
    assert known(half).own == pytest.approx(known(whole).own, rel=1e-4)


def test_products_are_those_of_gradients_by_hand(tiny: Tiny) -> None:
    """And the own loss falls by what is foretold, per unit of a step along the peers' part."""
    model = tiny("gpt2").double()  # Llama's norm computes in float32 whatever the dtype
    samples = [*OWN, *ALIKE]
    weights = list(model.parameters())

    def loss(part: list[Sample]) -> Tensor:
        """REINFORCE terms, divided by the tokens of the whole step."""
        terms = []
        for s in part:
            logits = model(input_ids=torch.tensor([s.prompt_ids])).logits[0, -1]
            terms.append(-s.advantage * logits.log_softmax(-1)[s.completion_ids[0]])
        return torch.stack(terms).sum() / len(samples)

    def gradient(part: list[Sample]) -> Tensor:
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss(part), weights)])

    one, other, peers = gradient(OWN[:2]), gradient(OWN[2:]), gradient(ALIKE)
    before, step = loss(OWN).item(), 1e-9
    along = torch.autograd.grad(loss(ALIKE), weights)
    with torch.no_grad():
        for weight, theirs in zip(weights, along, strict=True):
            weight -= step * theirs
        fallen = (before - loss(OWN).item()) / step
        for weight, theirs in zip(weights, along, strict=True):
            weight += step * theirs
    found = known(measured(model, samples))
    assert found.own == pytest.approx(2 * float(one @ other), rel=1e-4)
    assert found.peers == pytest.approx(float((one + other) @ peers) / 2, rel=1e-4)
    assert found.peers == pytest.approx(fallen / 2, rel=1e-3)


def test_noise_is_in_neither_product_on_average() -> None:
    """Own groups of mean m and peers of mean 3 m in noise ten times as long as m."""
    torch.manual_seed(0)
    m = torch.zeros(1000).index_fill(0, torch.arange(10), 1.0)  # |m|² = 10
    own, peers = [], []
    for _ in range(400):
        parts, whole = Parts(), torch.zeros(1000)
        for _ in range(3):
            whole = whole + m + torch.randn(1000)
            parts.add(whole, is_own=True)
        parts.add(whole + 3 * m + torch.randn(1000), is_own=False)
        found = known(parts.alignment())
        own.append(found.own)
        peers.append(found.peers)
    # Standard deviations of the sums' means: about 3 each.
    assert sum(own) / 400 == pytest.approx(30, abs=9)
    assert sum(peers) / 400 == pytest.approx(30, abs=9)


def test_what_is_not_finite_is_not_said() -> None:
    parts = Parts()
    for value in (1.0, torch.inf):
        parts.add(torch.tensor([value]), is_own=True)
    assert parts.alignment() is None


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
