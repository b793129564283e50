"""What `export` and `eval` make of a run that trains adapters. Needs peft."""

from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from swarmnode import config, evaluating, exporting, manifest
from swarmnode.errors import SwarmNodeError
from swarmnode.train import checkpoint, policy
from swarmnode.train.weights import persistent_tensors

FLAGS = {"model": {"name": "demo", "device": "cpu", "lora_rank": 2}}
STATE = {
    "policy_version": 5,
    "swarm_id": "ab" * 32,
    "totals": {
        "own_groups_trained": 1,
        "external_groups_trained": 1,
        "trained_from": [],
        "tokens_generated": 1,
    },
}


@pytest.fixture
def run(tmp_path: Path) -> tuple[Path, policy.Policy]:
    """A run directory with one checkpoint, and the policy that is in it."""
    pytest.importorskip("peft")
    settings = config.load(None, FLAGS, config.preset("demo"))
    trained = policy.load(settings.model)
    kept = persistent_tensors(trained.model)
    for name, tensor in kept.items():
        if "lora_B" in name:
            nn.init.normal_(tensor, std=0.05)
    folder = tmp_path / "run"
    checkpoint.save(
        folder / "checkpoints", checkpoint.Checkpoint(5, kept, {"none": torch.zeros(1)}, STATE), 1
    )
    (folder / "config.toml").write_text(config.dump(settings))
    (folder / "manifest.toml").write_text(manifest.dump(manifest.load("demo")))
    policy.save(trained, folder / "model")  # as a node does at its end: merged already
    return folder, trained


@torch.no_grad()
def logits(model: nn.Module) -> torch.Tensor:
    return model(input_ids=torch.tensor([[3, 4, 5]])).logits


def test_adapters_are_merged_once_though_the_run_holds_a_merged_model(
    run: tuple[Path, policy.Policy], tmp_path: Path
) -> None:
    folder, trained = run
    exporting._export(folder, tmp_path / "out", None)
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    torch.testing.assert_close(logits(exported), logits(trained.model), rtol=1e-4, atol=1e-4)


def test_eval_reads_the_adapters_of_a_checkpoint(run: tuple[Path, policy.Policy]) -> None:
    folder, trained = run
    settings = config.load(folder / "config.toml", {})
    fresh = policy.load(settings.model)
    assert evaluating._load_weights(fresh.model, folder / "checkpoints") == 5
    torch.testing.assert_close(logits(fresh.model), logits(trained.model), rtol=0, atol=0)


def test_a_checkpoint_that_lacks_an_adapter_is_of_another_model(
    run: tuple[Path, policy.Policy], tmp_path: Path
) -> None:
    folder, trained = run
    kept = dict(list(persistent_tensors(trained.model).items())[1:])
    less = checkpoint.Checkpoint(6, kept, {"none": torch.zeros(1)}, STATE)
    checkpoint.save(folder / "checkpoints", less, 1)
    with pytest.raises(SwarmNodeError, match="it lacks"):
        exporting._export(folder, tmp_path / "out", None)
