"""Values and gradients against TRL's own loss code, where TRL has the same loss.

`GRPOTrainer._compute_loss` is called as it stands, on a stand-in for the trainer that has what that
function reads: the settings, and log-probabilities given instead of computed by a model.
TRL 1.16 has no dppo_tv, topr or decoupled; those are worked by hand in `test_objectives.py`.
"""

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from made_tokens import made_tokens
from torch import Tensor

from swarmnode.config import TrainSettings
from swarmnode.train.loss import StepSize, step_loss

pytestmark = pytest.mark.slow

LENGTHS = [5, 3, 4, 1, 5, 2]
TOKENS = sum(LENGTHS)
SIZE = StepSize(TOKENS, 0, len(LENGTHS), 0)
LONGEST = 7  # TRL's max_completion_length


def draw(seed: int, spread: float) -> tuple[list[float], list[float], list[float], list[float]]:
    """Probabilities new, old and of a reference, and an advantage per completion."""
    generator = torch.Generator().manual_seed(seed)
    old = 0.05 + 0.6 * torch.rand(TOKENS, generator=generator, dtype=torch.float64)
    noise = torch.randn(2, TOKENS, generator=generator, dtype=torch.float64)
    new, reference = (old.log() + spread * noise).clamp(max=-0.01).exp()
    advantages = torch.randn(len(LENGTHS), generator=generator, dtype=torch.float64)
    return new.tolist(), old.tolist(), reference.tolist(), advantages.tolist()


def padded(flat: Tensor, mask: Tensor) -> Tensor:
    return torch.zeros(mask.shape, dtype=flat.dtype).masked_scatter(mask, flat)


def trl_loss(
    logps: Tensor,
    old_logps: Tensor,
    reference_logps: Tensor,
    advantages: Tensor,
    mask: Tensor,
    **settings: Any,
) -> Tensor:
    from trl import GRPOTrainer  # takes seconds: not while tests are collected

    stand_in = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *_, **__: (logps, torch.zeros_like(logps), None),
        accelerator=SimpleNamespace(
            num_processes=1, gather=lambda x: x, reduce=lambda x, reduction: x
        ),
        model=SimpleNamespace(training=True),
        current_gradient_accumulation_steps=1,
        max_completion_length=LONGEST,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        use_vllm=False,
        vllm_importance_sampling_correction=False,
        aux_loss_enabled=False,
        _entropy_bonus_enabled=False,
        _metrics={"train": defaultdict(list)},
        args=SimpleNamespace(
            delta=None,
            use_bias_correction_kl=False,
            steps_per_generation=1,
            sapo_temperature_pos=1.0,
            # TRL rounds it to float32 even among float64: 1.0625 survives that, 1.05 does not.
            sapo_temperature_neg=1.0625,
        ),
        **({"importance_sampling_level": "token", "beta": 0.0} | settings),
    )
    ids = torch.zeros(mask.shape, dtype=torch.int64)
    inputs = {
        "prompt_ids": ids[:, :1],
        "prompt_mask": torch.ones_like(ids[:, :1]),
        "completion_ids": ids,
        "completion_mask": mask.long(),
        "advantages": advantages,
        "old_per_token_logps": old_logps,
        "ref_per_token_logps": reference_logps,
        "num_items_in_batch": mask.sum(),
    }
    loss: Tensor = GRPOTrainer._compute_loss(stand_in, None, inputs)
    return loss


CASES = {
    "dapo": (
        {"objective": "dapo"},
        {"loss_type": "dapo", "epsilon_low": 0.2, "epsilon_high": 0.28},
    ),
    "dapo with KL": (
        {"objective": "dapo", "kl_weight": 0.3},
        {"loss_type": "dapo", "epsilon_low": 0.2, "epsilon_high": 0.28, "beta": 0.3},
    ),
    "dr_grpo": (
        {"objective": "dr_grpo", "length_tokens": LONGEST},
        {"loss_type": "dr_grpo", "epsilon_low": 0.2, "epsilon_high": 0.28},
    ),
    "gspo": (
        {"objective": "gspo", "gspo_clip_low": 0.1, "gspo_clip_high": 0.15},
        {
            "loss_type": "grpo",
            "importance_sampling_level": "sequence",
            "epsilon_low": 0.1,
            "epsilon_high": 0.15,
        },
    ),
    "gspo with KL": (
        {"objective": "gspo", "kl_weight": 0.3},
        {
            "loss_type": "grpo",
            "importance_sampling_level": "sequence",
            "epsilon_low": 3e-4,
            "epsilon_high": 4e-4,
            "beta": 0.3,
        },
    ),
    "cispo": (
        {"objective": "cispo", "cispo_max_weight": 1.5},
        {"loss_type": "cispo", "epsilon_low": 0.2, "epsilon_high": 1.5},
    ),
    "soft_gate": (
        {"objective": "soft_gate", "gate_negative": 1.0625},
        {"loss_type": "sapo", "epsilon_low": 0.2, "epsilon_high": 0.28},
    ),
    "soft_gate with KL": (
        {"objective": "soft_gate", "gate_negative": 1.0625, "kl_weight": 0.3},
        {"loss_type": "sapo", "epsilon_low": 0.2, "epsilon_high": 0.28, "beta": 0.3},
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("spread", [0.05, 0.5])
def test_loss_and_gradient_are_trls(case: str, seed: int, spread: float) -> None:
    ours, theirs = CASES[case]
    new, old, reference, advantages = draw(seed, spread)
    per_token = [a for a, n in zip(advantages, LENGTHS, strict=True) for _ in range(n)]
    tokens = made_tokens(new, per_token, old=old, lengths=LENGTHS)
    reference_logps = torch.tensor(reference, dtype=torch.float64).log()
    settings = TrainSettings(**ours)
    loss = step_loss(tokens, SIZE, settings, reference_logps if settings.kl_weight else None).loss
    (gradient,) = torch.autograd.grad(loss, tokens.logps)

    mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    logps = padded(tokens.logps.detach(), mask).requires_grad_(True)
    expected = trl_loss(
        logps,
        padded(tokens.old_logps, mask),
        padded(reference_logps, mask),
        torch.tensor(advantages, dtype=torch.float64),
        mask,
        **theirs,
    )
    (expected_gradient,) = torch.autograd.grad(expected, logps)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12, abs=1e-14)
    torch.testing.assert_close(gradient, expected_gradient[mask], rtol=1e-12, atol=1e-14)
    assert (expected_gradient[~mask] == 0).all()
    assert gradient.abs().max() > 0


def test_the_comparison_would_see_another_loss() -> None:
    new, old, _, advantages = draw(1, 0.5)
    per_token = [a for a, n in zip(advantages, LENGTHS, strict=True) for _ in range(n)]
    tokens = made_tokens(new, per_token, old=old, lengths=LENGTHS)
    losses = [
        step_loss(tokens, SIZE, TrainSettings(objective=name)).loss.item()
        for name in ("dapo", "dr_grpo", "gspo", "cispo", "soft_gate")
    ]
    assert all(abs(a - b) > 1e-3 for i, a in enumerate(losses) for b in losses[:i])
