"""AdamW with 8-bit moments. Needs torchao for all but one."""

import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from swarmnode.config import TrainSettings
from swarmnode.errors import ConfigError, SwarmNodeError
from swarmnode.train.batch import Sample
from swarmnode.train.trainer import Trainer, TrainerState

Tiny = Callable[..., nn.Module]
SAMPLES = [
    Sample((3, 4, 5), (10, 2), 1.0, external=False),
    Sample((3, 4, 5), (11,), -1.0, external=False),
]
# 4,096 numbers and more in its largest matrices: smaller ones keep float32 moments.
WIDE = {"hidden_size": 64, "intermediate_size": 64}


def trainer(tiny: Tiny, optimizer: str = "adamw8bit") -> Trainer:
    settings = TrainSettings(lr=1e-3, optimizer=optimizer)
    return Trainer(tiny("llama", **WIDE), settings, pad_token_id=0)


def flat(of: Trainer) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in of.state().model.values()])


def copied(state: TrainerState) -> TrainerState:
    return TrainerState(
        {n: t.clone() for n, t in state.model.items()},
        {n: t.clone() for n, t in state.optimizer.items()},
        state.policy_version,
    )


@pytest.mark.filterwarnings("ignore")  # torchao's own, at import
def test_learns_like_adamw_in_a_quarter_of_the_moments_and_resumes(tiny: Tiny) -> None:
    pytest.importorskip("torchao")
    small, plain = trainer(tiny), trainer(tiny, "adamw")
    before = flat(small)
    for _ in range(3):
        assert small.step(SAMPLES).skipped is None
        plain.step(SAMPLES)
    # Adam's steps are nearly signs, so that tiny gradients may go the other way.
    assert torch.cosine_similarity(flat(small) - before, flat(plain) - before, dim=0) > 0.9
    moments = small.state().optimizer
    assert {type(tensor) for tensor in moments.values()} == {torch.Tensor}
    name = "model.layers.0.mlp.up_proj.weight"
    assert moments[f"exp_avg.{name}"].dtype == torch.uint8
    assert moments[f"exp_avg_sq.{name}"].dtype == torch.uint8

    state = copied(small.state())
    resumed = trainer(tiny)
    resumed.load_state(state)
    small.step(SAMPLES)
    resumed.step(SAMPLES)
    torch.testing.assert_close(
        dict(resumed.state().model), dict(small.state().model), rtol=0, atol=0
    )
    with pytest.raises(SwarmNodeError, match="8-bit moments"):
        trainer(tiny, "adamw").load_state(state)


def test_without_torchao_the_user_is_told_what_to_install(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchao", None)  # what Python itself calls not installed
    monkeypatch.setitem(sys.modules, "torchao.optim", None)
    with pytest.raises(ConfigError, match=r"pip install 'swarmnode\[eight-bit\]'"):
        trainer(tiny)
