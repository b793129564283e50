"""What can be loaded as a policy, and what the user is told about the rest."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    T5Config,
)

from swarmnode.config import ModelSettings
from swarmnode.errors import ConfigError, SwarmNodeError
from swarmnode.train import policy

ROOT = Path(__file__).parents[2]


def settings(name: str | Path, **changes: str) -> ModelSettings:
    return ModelSettings(name=str(name), **({"device": "cpu"} | changes))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A complete model, for a test to damage."""
    path = tmp_path / "model"
    policy.save(policy.load(settings("demo")), path)
    return path


def change_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_loads_the_shipped_model():
    loaded = policy.load(settings("demo"))
    assert loaded.label == "demo"
    assert loaded.device.type == "cpu"
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.float32}
    assert not loaded.model.training
    assert loaded.eos_ids == (loaded.tokenizer.eos_token_id,)
    assert loaded.pad_id == loaded.tokenizer.pad_token_id


def test_dtype_is_the_users_choice():
    loaded = policy.load(settings("demo", dtype="bfloat16"))
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.bfloat16}
    assert loaded.dtype == torch.bfloat16


def test_export_is_read_by_transformers_and_by_load(tmp_path):
    loaded = policy.load(settings("demo"))
    with torch.no_grad():
        loaded.model.get_input_embeddings().weight[3] += 1.0
    policy.save(loaded, tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert torch.equal(model.lm_head.weight, loaded.model.lm_head.weight)
    text = "Calculate 5 - 3."
    assert tokenizer(text)["input_ids"] == loaded.tokenizer(text)["input_ids"]
    assert policy.load(settings(tmp_path / "out")).label == "out"


def test_export_to_an_impossible_place_is_the_environments_failure(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SwarmNodeError, match="cannot export"):
        policy.save(policy.load(settings("demo")), tmp_path / "file" / "out")


def test_every_end_token_of_the_generation_settings_counts(folder):
    change_json(folder / "generation_config.json", eos_token_id=[5, 371])
    loaded = policy.load(settings(folder))
    assert loaded.tokenizer.eos_token_id == 371
    assert loaded.eos_ids == (371, 5)  # the tokenizer's first


def test_padding_falls_back_to_the_end_token(folder):
    config = json.loads((folder / "tokenizer_config.json").read_text())
    del config["pad_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    loaded = policy.load(settings(folder))
    assert loaded.pad_id == loaded.tokenizer.eos_token_id


def test_dropout_is_off_even_in_training_mode(folder):
    model = GPT2LMHeadModel(GPT2Config(vocab_size=372, n_embd=8, n_layer=1, n_head=1))
    assert model.config.resid_pdrop > 0
    model.save_pretrained(folder)
    loaded = policy.load(settings(folder)).model.train()
    ids = torch.arange(20)[None]
    assert torch.equal(loaded(ids).logits, loaded(ids).logits)


@pytest.mark.parametrize(
    ("name", "label", "expected"),
    [
        ("model", "", "model"),
        ("Qwen2.5-0.5B-Instruct", "", "qwen2.5-0.5b-ins"),  # 16 bytes
        ("model", "My Node", "My Node"),
    ],
)
def test_label_is_the_users_or_the_last_part_of_the_name(folder, name, label, expected):
    moved = folder.rename(folder.parent / name)
    assert policy.load(settings(moved, label=label)).label == expected


def refused(chosen: ModelSettings) -> str:
    with pytest.raises(ConfigError) as caught:
        policy.load(chosen)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_refuses_a_path_that_is_no_folder(tmp_path):
    assert "not a folder" in refused(settings(tmp_path / "missing"))


def test_refuses_a_folder_without_config(tmp_path):
    assert "has no config.json" in refused(settings(tmp_path))


def test_refuses_pickled_weights(folder):
    weights = folder / "model.safetensors"
    torch.save({}, weights.with_name("pytorch_model.bin"))
    weights.unlink()
    assert "only pickled weights" in refused(settings(folder))


def test_refuses_damaged_weights(folder):
    (folder / "model.safetensors").write_bytes(b"not what it says")
    assert "cannot load" in refused(settings(folder))


def test_refuses_weights_that_would_start_at_random(folder):
    change_json(folder / "config.json", num_hidden_layers=3)
    assert "weights are missing" in refused(settings(folder))


def test_refuses_an_architecture_that_transformers_does_not_know(folder):
    change_json(folder / "config.json", model_type="unheard-of")
    assert "architecture" in refused(settings(folder))


def test_refuses_a_model_that_is_not_causal(folder):
    T5Config(vocab_size=372).save_pretrained(folder)
    assert "architecture" in refused(settings(folder))


def test_refuses_code_of_the_model(folder):
    change_json(folder / "config.json", model_type="own", auto_map={"AutoConfig": "code.Config"})
    (folder / "code.py").write_text("raise SystemExit('it ran')")
    message = refused(settings(folder))
    assert "never runs" in message
    assert "trust_remote_code" not in message


def test_refuses_a_folder_without_tokenizer(folder):
    for path in [*folder.glob("tokenizer*"), folder / "chat_template.jinja"]:
        path.unlink()
    assert "tokenizer" in refused(settings(folder))


def test_refuses_a_tokenizer_of_a_larger_model(folder):
    small = GPT2LMHeadModel(GPT2Config(vocab_size=100, n_embd=8, n_layer=1, n_head=1))
    small.save_pretrained(folder)
    message = refused(settings(folder))
    assert "its tokenizer needs 372 embeddings, its model has only 100" in message


@pytest.mark.parametrize("size", [300, 500])
def test_refuses_a_vocabulary_that_is_not_that_of_the_weights(folder, size):
    change_json(folder / "config.json", vocab_size=size)
    message = refused(settings(folder))
    assert "372" in message
    assert str(size) in message
    assert "different models" in message


def test_refuses_a_token_far_behind_the_last_embedding(folder):
    # Still 372 tokens, but one has the id 5000, so that 5001 rows are needed.
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary[max(vocabulary, key=vocabulary.get)] = 5000
    change_json(folder / "tokenizer.json", model=tokenizer["model"])
    assert "needs 5001 embeddings, its model has only 372" in refused(settings(folder))


def test_refuses_sizes_of_a_model_that_do_not_fit_together(folder):
    change_json(folder / "config.json", pad_token_id=9999)
    assert "cannot load" in refused(settings(folder))


def test_refuses_a_model_without_end_token(folder):
    shutil.rmtree(folder)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=372, n_embd=8, n_layer=1, n_head=1))
    model.generation_config.eos_token_id = None
    model.save_pretrained(folder)
    tokenizer = policy.load(settings("demo")).tokenizer
    tokenizer.eos_token = None
    tokenizer.save_pretrained(folder)
    assert "end-of-sequence" in refused(settings(folder))


@pytest.mark.parametrize("device", ["tpu", "meta", "gpu", "cuda:x"])
def test_refuses_an_unknown_device(device):
    assert "must be auto, cpu, cuda" in refused(settings("demo", device=device))


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without GPU")
def test_refuses_a_gpu_that_is_not_there():
    assert "torch sees no GPU" in refused(settings("demo", device="cuda"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nobody/nothing", "no such/model/here"])
def test_refuses_a_name_that_the_hub_does_not_answer(name, tmp_path):
    # The hub's client reads its switch at import, so this needs a fresh process.
    program = (
        "import sys\n"
        "from swarmnode.config import ModelSettings\n"
        "from swarmnode.errors import ConfigError\n"
        "from swarmnode.train import policy\n"
        "try:\n    policy.load(ModelSettings(name=sys.argv[1]))\n"
        "except ConfigError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, name],
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"cannot load '{name}'" in done.stdout
    assert "use --model demo or a folder" in done.stdout
    assert done.stderr == ""


@pytest.mark.slow
@pytest.mark.network
def test_a_hub_that_does_not_answer_is_one_line(tmp_path):
    program = (
        "from swarmnode.config import ModelSettings\n"
        "from swarmnode.errors import SwarmNodeError\n"
        "from swarmnode.train import policy\n"
        "try:\n    policy.load(ModelSettings(name='nobody/nothing'))\n"
        "except SwarmNodeError as error:\n    print(error)\n"
    )
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{closed.getsockname()[1]}"
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ
            | {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
    assert f"cannot load 'nobody/nothing': the hub at {endpoint} did not answer" in done.stdout
    assert done.stderr == ""


@pytest.mark.slow
@pytest.mark.parametrize("killed_at", ["os.remove", "os.rmdir", "os.rename"])
def test_a_killed_export_leaves_the_model_whole_or_absent(tmp_path, killed_at):
    folder = tmp_path / "model"
    program = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from swarmnode.config import ModelSettings\n"
        "from swarmnode.train import policy\n"
        "model = policy.load(ModelSettings(name='demo'))\n"
        f"folder = Path({str(folder)!r})\n"
        "policy.save(model, folder)\n"
        "def kill(event, arguments):\n"
        f"    if event == {killed_at!r}:\n"
        "        os._exit(9)\n"
        "sys.addaudithook(kill)\n"
        "policy.save(model, folder)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, check=False)
    assert done.returncode == 9
    assert not folder.exists() or policy.load(ModelSettings(name=str(folder))).model
