"""Whether peers' completions pull where a node's own do."""

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from swarmnode.config import TrainSettings
from swarmnode.train.batch import Sample
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


def trainer(model: nn.Module) -> Trainer:
    return Trainer(model, TrainSettings(lr=1e-3), pad_token_id=0)


def test_nothing_to_compare(tiny: Tiny) -> None:
    found = trainer(tiny("llama-tied"))
    assert found.alignment(OWN) is None
    assert found.alignment(ALIKE) is None
    assert found.alignment([]) is None


def test_peers_that_say_the_same_bring_as_much(tiny: Tiny) -> None:
    same = [dataclasses.replace(s, external=True) for s in OWN]
    found = trainer(tiny("llama-tied")).alignment([*OWN, *same])
    assert found is not None
    assert found.peers == pytest.approx(found.own, rel=1e-5)


@pytest.mark.parametrize("stepped", [False, True])
def test_sign_tells_help_from_harm_and_nothing_is_changed(tiny: Tiny, stepped: bool) -> None:
    found = trainer(tiny("llama-tied"))
    if stepped:  # Adam's scaling is in force
        found.step(OWN)
    before = {name: t.clone() for name, t in found.state().model.items()}
    helps, harms = found.alignment([*OWN, *ALIKE]), found.alignment([*OWN, *AGAINST])
    assert helps is not None
    assert harms is not None
    assert helps.own > 0
    assert helps.peers > 0 > harms.peers
    torch.testing.assert_close(dict(found.state().model), before, rtol=0, atol=0)


def test_a_share_of_peers_counts_as_such(tiny: Tiny) -> None:
    found = trainer(tiny("llama-tied"))
    whole, half = found.alignment([*OWN, *ALIKE]), found.alignment([*OWN, *ALIKE], 0.5)
    assert whole is not None
    assert half is not None
    assert half.peers == pytest.approx(whole.peers / 2, rel=1e-5)
    assert half.own == pytest.approx(whole.own, rel=1e-5)


def test_first_order_prediction_comes_true(tiny: Tiny) -> None:
    """The own loss, computed by hand, falls by what is foretold, per unit of a step."""
    model = tiny("gpt2").double()  # Llama's norm computes in float32 whatever the dtype
    samples = [*OWN, *ALIKE]
    alignment = trainer(model).alignment(samples)
    assert alignment is not None

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
    assert (before - loss(OWN).item()) / step == pytest.approx(alignment.peers, rel=1e-3)
