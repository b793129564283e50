"""From settings to what answers questions: transformers in this process, or vLLM in another."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from transformers import PreTrainedModel

from swarmnode.config import Settings
from swarmnode.generate.choice import engine_device, engine_environment, engine_options
from swarmnode.generate.engine import Engine
from swarmnode.generate.engine_client import EngineProcess
from swarmnode.generate.generator import Generator
from swarmnode.generate.hf import HFGenerator
from swarmnode.generate.padding import HeadPadding, head_padding
from swarmnode.generate.prompt import PromptEncoder
from swarmnode.generate.vllm import VLLMGenerator
from swarmnode.generate.weights import handed_over
from swarmnode.train.policy import Policy

StartEngine = Callable[[Mapping[str, Any], Mapping[str, str], Sequence[int], float], Engine]
"""(vLLM's arguments, environment, ids that end a completion, seconds of silence) → not started."""


def make_generator(
    policy: Policy, prompts: PromptEncoder, settings: Settings, seed: int
) -> HFGenerator:
    """What answers questions with `policy`, in this process."""
    return HFGenerator(
        policy.model,
        prompts,
        policy.eos_ids,
        max_new_tokens=settings.generate.max_new_tokens,
        temperature=settings.generate.temperature,
        seed=seed,
    )


def open_generator(
    engine: Literal["hf", "vllm"],
    policy: Policy,
    prompts: PromptEncoder,
    settings: Settings,
    seed: int,
    threads: int,
    start_engine: StartEngine = EngineProcess,
) -> Generator:
    """What answers questions with `policy`. vLLM starts with the first question; `close` ends it.

    Raises `ConfigError` for an engine's device that is not there.
    """
    alone = make_generator(policy, prompts, settings, seed)
    if engine == "hf":
        return alone
    model, generate = policy.model, settings.generate
    process, padding = make_engine(model, policy.eos_ids, settings, threads, start_engine)

    def weights() -> Iterator[tuple[str, torch.Tensor]]:
        ours = handed_over(model)
        return ours if padding is None else padding.applied(ours)

    device = engine_device(generate, policy.device)
    return VLLMGenerator(
        process,
        weights,
        prompts,
        policy.eos_ids,
        alone,
        context=getattr(model.config.get_text_config(), "max_position_embeddings", None),
        max_new_tokens=generate.max_new_tokens,
        temperature=generate.temperature,
        seed=seed,
        shares_device=engine_options(model, None, generate, device).get("enable_sleep_mode", False),
        max_failures=generate.engine_failures,
    )


def make_engine(
    model: PreTrainedModel,
    eos_ids: Sequence[int],
    settings: Settings,
    threads: int,
    start_engine: StartEngine = EngineProcess,
) -> tuple[Engine, HeadPadding | None]:
    """An engine for `model`, not started, and how its weights must be padded for it."""
    generate = settings.generate
    device = engine_device(generate, model.device)
    options = engine_options(model, settings.model.revision, generate, device)
    padding = head_padding(model.config) if device.type == "cpu" else None
    if padding is not None:
        options["hf_overrides"] = padding.overrides()
    environment = engine_environment(device, threads)
    return start_engine(options, environment, eos_ids, generate.engine_silence_s), padding
