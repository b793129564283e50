"""A node that only generates: it keeps its weights, and its run can go on training."""

import pytest
import torch
from torch import nn

from swarmnode.config import TrainSettings
from swarmnode.errors import SwarmNodeError
from swarmnode.train.frozen import Frozen
from swarmnode.train.trainer import Trainer


def model(dtype: torch.dtype, seed: int, size: int = 3) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Linear(size, 2).to(dtype)


def test_neither_trains_nor_keeps_an_optimiser() -> None:
    one = Frozen(model(torch.float32, 1))
    report = one.step([])
    assert (report.skipped, report.optimizer_steps, one.policy_version) == ("role", 0, 0)
    assert dict(one.state().optimizer) == {}
    assert not any(p.requires_grad for p in one._model.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_trainer_takes_over_its_weights_and_masters(dtype: torch.dtype) -> None:
    frozen = Frozen(model(dtype, 1))
    frozen.policy_version = 5
    heir = model(dtype, 2)
    trainer = Trainer(heir, TrainSettings(), 0)
    trainer.load_state(frozen.state())
    assert trainer.policy_version == 5
    for name, parameter in heir.named_parameters():
        wanted = dict(frozen._model.named_parameters())[name]
        assert torch.equal(parameter, wanted)
        assert torch.equal(trainer._optimizer._master[name], wanted.float())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_takes_over_a_trainers_weights_and_refuses_another_models(dtype: torch.dtype) -> None:
    trainer = Trainer(model(dtype, 1), TrainSettings(), 0)
    trainer.policy_version = 7
    frozen = Frozen(model(dtype, 2))
    frozen.load_state(trainer.state())
    assert frozen.policy_version == 7
    assert all(
        torch.equal(a, b)
        for a, b in zip(frozen._model.parameters(), trainer._model.parameters(), strict=True)
    )
    with pytest.raises(SwarmNodeError, match="another model"):
        Frozen(model(dtype, 3, size=4)).load_state(trainer.state())
