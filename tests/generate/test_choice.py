"""Which engine, where, with what: all of it without vLLM and without a GPU."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from swarmnode.config import GenerateSettings, TrainSettings, corrected
from swarmnode.errors import ConfigError
from swarmnode.generate.choice import (
    choose,
    engine_device,
    engine_environment,
    engine_options,
)

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


def model_on(device: torch.device) -> Any:
    return SimpleNamespace(name_or_path="Qwen/Qwen3-0.6B", dtype=torch.bfloat16, device=device)


@pytest.mark.parametrize(
    ("asked", "device", "has_vllm", "name", "because"),
    [
        ("auto", GPU, True, "vllm", "it is installed and there is a GPU"),
        ("auto", CPU, True, "hf", "there is no GPU"),
        ("auto", GPU, False, "hf", "vLLM is not installed"),
        ("hf", GPU, True, "hf", "asked for"),
        ("vllm", CPU, True, "vllm", "asked for"),
    ],
)
def test_the_choice_and_its_reason(
    asked: Any, device: torch.device, has_vllm: bool, name: str, because: str
) -> None:
    choice = choose(GenerateSettings(engine=asked), device, has_vllm=has_vllm)
    assert (choice.name, choice.because) == (name, because)


def test_vllm_that_is_missing_says_how_to_install_it() -> None:
    with pytest.raises(ConfigError, match=r"not installed: pip install 'swarmnode\[vllm\]'"):
        choose(GenerateSettings(engine="vllm"), GPU, has_vllm=False)


def test_overlap_is_refused_where_transformers_would_generate() -> None:
    with pytest.raises(ConfigError, match=r"--overlap needs --engine vllm: .*there is no GPU"):
        choose(GenerateSettings(overlap=True), CPU, has_vllm=True)
    assert choose(GenerateSettings(overlap=True), GPU, has_vllm=True).name == "vllm"


def test_the_engines_device(monkeypatch: pytest.MonkeyPatch) -> None:
    assert engine_device(GenerateSettings(), CPU) == CPU
    with pytest.raises(ConfigError, match="both must be on GPUs or on the CPU"):
        engine_device(GenerateSettings(engine_device="cuda:1"), CPU)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert engine_device(GenerateSettings(), GPU) == GPU
    with pytest.raises(ConfigError, match=r"cuda:1 asked for but torch sees 1 GPU"):
        engine_device(GenerateSettings(engine_device="cuda:1"), GPU)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert engine_device(GenerateSettings(), GPU) == torch.device("cuda", 1)
    assert engine_device(GenerateSettings(), torch.device("cuda", 1)) == GPU
    assert engine_device(GenerateSettings(), torch.device("cuda")) == torch.device("cuda", 1)
    assert engine_device(GenerateSettings(engine_device="cuda:0"), GPU) == GPU


def test_beside_the_trainer_it_takes_a_third_of_the_gpu_and_sleeps() -> None:
    shared = engine_options(model_on(GPU), "main", GenerateSettings(), torch.device("cuda"))
    assert shared["gpu_memory_utilization"] == 0.35
    assert shared["enable_sleep_mode"] is True
    assert (shared["model"], shared["revision"]) == ("Qwen/Qwen3-0.6B", "main")
    assert shared["dtype"] == "bfloat16"
    awake = engine_options(model_on(GPU), None, GenerateSettings(overlap=True), GPU)
    assert awake["enable_sleep_mode"] is False  # it answers while the trainer works
    own = engine_options(model_on(GPU), None, GenerateSettings(), torch.device("cuda", 1))
    assert (own["gpu_memory_utilization"], own["enable_sleep_mode"]) == (0.9, False)
    told = engine_options(model_on(GPU), None, GenerateSettings(engine_memory=0.5), GPU)
    assert told["gpu_memory_utilization"] == 0.5


def test_on_a_cpu_it_takes_a_fixed_cache_and_compiles_nothing() -> None:
    options = engine_options(model_on(CPU), None, GenerateSettings(), CPU)
    assert options["enforce_eager"] is True
    assert options["kv_cache_memory_bytes"] == 2**29
    assert "gpu_memory_utilization" not in options


def test_the_engines_process_reports_to_nobody_and_sees_its_device(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = engine_environment(CPU, 3)
    assert told["VLLM_NO_USAGE_STATS"] == "1"
    assert told["OMP_NUM_THREADS"] == "3"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert engine_environment(torch.device("cuda", 2), 1)["CUDA_VISIBLE_DEVICES"] == "2"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-8932f937,7")
    assert engine_environment(torch.device("cuda", 1), 1)["CUDA_VISIBLE_DEVICES"] == "GPU-8932f937"


def test_own_tokens_are_weighted_where_another_program_samples() -> None:
    def weight(given: float | None, *, same: bool) -> float | None:
        settings = TrainSettings(engine_max_weight=given)
        return corrected(settings, is_same_program=same).engine_max_weight

    assert weight(None, same=False) == 2.0
    assert weight(5.0, same=False) == 5.0
    assert weight(0.0, same=False) == 0.0
    assert weight(None, same=True) == 0.0
    assert weight(5.0, same=True) == 0.0
