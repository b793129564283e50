"""Loads the policy: a causal language model with its tokenizer, from a folder, the hub, or shipped.

A model is data here, never code: weights only as safetensors, no code of its own. Whatever is
wrong with the user's choice is one `ConfigError` that says what to do instead.

With `model.lora_rank` the policy gets adapters (`lora.py`) when it is loaded; they are merged when
it is saved.

Not done here: sampling, quantisation.
"""

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from swarmnode.config import ModelSettings
from swarmnode.errors import ConfigError, SwarmNodeError
from swarmnode.train import hub
from swarmnode.train.lora import add_adapters, has_adapters, merged_state

DEMO = "demo"
# What a rollout carries at most (protocol.limits.MAX_LABEL_BYTES); longer labels are cut.
MAX_LABEL_BYTES = 16
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, eq=False)
class Policy:
    """A loaded model in evaluation mode, without dropout, and what the node needs to know of it.

    `eos_ids` end a completion; the first is the tokenizer's own and closes a peer's text in
    training. `pad_id` is the first of them where the tokenizer has no padding token: padding is
    masked wherever it is used. `label` is what peers see.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    label: str
    device: torch.device
    dtype: torch.dtype
    eos_ids: tuple[int, ...]
    pad_id: int


def load(settings: ModelSettings) -> Policy:
    """The policy that `settings` name. Raises `ConfigError`, and `SwarmNodeError` when it must come
    from the hub and that does not answer."""
    # Advice and bars of the library would tear the node's own log; errors are raised anyway.
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    source = _source(settings.name)
    device = _device(settings.device)
    dtype = _dtype(settings.dtype, device)
    from_cache = not os.path.isdir(source) and hub.must_use_cache(source, settings.revision)
    where = {"local_files_only": from_cache}
    config = _load(AutoConfig.from_pretrained, settings, source, **where)
    _switch_dropout_off(config)
    tokenizer = _load(AutoTokenizer.from_pretrained, settings, source, **where)
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise ConfigError(
            f"model {settings.name!r} has no tokenizer.json; choose a model that has one, or "
            "convert its tokenizer with transformers and save it into the folder"
        )
    if rows := getattr(config.get_text_config(), "vocab_size", 0):  # not every model has it
        _check_vocabulary(settings.name, tokenizer, rows)
    model, loading = _load(
        AutoModelForCausalLM.from_pretrained,
        settings,
        source,
        config=config,
        dtype=dtype,
        use_safetensors=True,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # they are in `loading` then, and refused below
        **where,
    )
    _check_weights(settings.name, loading, model, tokenizer)
    eos_ids = _eos_ids(settings.name, model, tokenizer)
    pad_id = tokenizer.pad_token_id
    if settings.lora_rank:
        add_adapters(model, settings.lora_rank, settings.lora_alpha)
    return Policy(
        model=model.to(device).eval(),
        tokenizer=tokenizer,
        label=_label(settings),
        device=device,
        dtype=dtype,
        eos_ids=eos_ids,
        pad_id=eos_ids[0] if pad_id is None else pad_id,
    )


def save(policy: Policy, folder: Path) -> None:
    """Exports model and tokenizer as a folder that `load` and transformers read; adapters are
    merged into the weights.

    It replaces `folder`, which a crash leaves whole or absent. Raises `SwarmNodeError`.
    """
    unfinished = folder.with_name(f".{folder.name}.saving")
    replaced = folder.with_name(f".{folder.name}.replaced")
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        merged = merged_state(policy.model) if has_adapters(policy.model) else None
        policy.model.save_pretrained(unfinished, state_dict=merged)
        policy.tokenizer.save_pretrained(unfinished)
        shutil.rmtree(replaced, ignore_errors=True)
        if folder.exists():
            folder.rename(replaced)  # out of the way first: deleting takes file by file
        unfinished.rename(folder)
        shutil.rmtree(replaced, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise SwarmNodeError(
            f"cannot export the model to {folder}: {_first_line(error)}"
        ) from error


def _source(name: str) -> str:
    """A folder of this machine, checked for what it must hold, or the hub's name unchanged."""
    if name == DEMO:
        return str(resources.files("swarmnode") / "demo_model")
    folder = Path(name).expanduser()
    if not folder.is_dir():
        if folder.exists() or name.startswith((".", "/", "~")):
            raise ConfigError(
                f"cannot load {name!r}: it is not a folder; give the folder that holds config.json"
            )
        return name
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"cannot load {name!r}: the folder has no config.json; give one that "
            "save_pretrained wrote, such as <run>/model"
        )
    if not any(folder.glob("*.safetensors")):
        found = "only pickled weights (.bin)" if any(folder.glob("*.bin")) else "no weights"
        raise ConfigError(
            f"cannot load {name!r}: the folder holds {found}; convert the model with "
            "save_pretrained, which writes .safetensors"
        )
    return str(folder)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"unknown device {name!r}; it must be auto, cpu, cuda or cuda:<number>")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        seen = torch.cuda.device_count()
        raise ConfigError(
            f"device {name} asked for but torch sees "
            f"{'no GPU' if seen == 0 else f'{seen} GPU(s), numbered from 0'}; use --device auto, "
            "or install a driver and a torch that fit together"
        )
    return device


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name != "auto":
        return _DTYPES[name]
    fits = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if fits else torch.float32


def _load(
    from_pretrained: Callable[..., Any], settings: ModelSettings, source: str, **arguments: Any
) -> Any:
    """Calls one of transformers' loaders; every way it fails on bad input is a `ConfigError`."""
    revision = {} if settings.revision is None else {"revision": settings.revision}
    try:
        return from_pretrained(source, trust_remote_code=False, **revision, **arguments)
    except (
        OSError,
        ValueError,
        KeyError,
        ImportError,
        RuntimeError,
        AssertionError,  # torch's, of sizes in config.json that do not fit together
        StrictDataclassError,
        SafetensorError,
    ) as error:
        raise ConfigError(_reason(settings, source, error)) from error


def _reason(settings: ModelSettings, source: str, error: Exception) -> str:
    """One line about a failure of transformers, whose own advice may be unsafe here."""
    text = str(error)
    start = f"cannot load {settings.name!r}: "
    if "trust_remote_code" in text:
        return start + "it needs program code of its own, which swarmnode never runs"
    if "connect to" in text or "offline mode" in text or "LocalEntryNotFound" in text:
        return (
            start + "not a folder and the hub is not reachable (or not asked: HF_HUB_OFFLINE); "
            "use --model demo or a folder"
        )
    if not os.path.isdir(source) and ("Repo id" in text or "not a valid model" in text):
        return start + "no folder and no public model of the hub; use --model demo or a folder"
    if ".safetensors" in text and "does not appear" in text:
        return start + "it has no .safetensors weights; pickled weights are not read"
    if "not recognize this architecture" in text or "Unrecognized" in text:
        return start + "its architecture is not a causal language model that transformers knows"
    return start + _first_line(error)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


def _switch_dropout_off(config: Any) -> None:
    # The ratio of a token's probabilities before and after a step must not be noise.
    text = config.get_text_config()
    for name, value in vars(text).items():
        if ("dropout" in name or name.endswith("pdrop")) and isinstance(value, float):
            setattr(text, name, 0.0)


def _check_weights(
    name: str, loading: Any, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    missing = sorted(loading["missing_keys"])
    if missing:
        raise ConfigError(
            f"cannot load {name!r}: {len(missing)} weights are missing, such as {missing[0]}; "
            "they would start at random, so the model's files must be complete"
        )
    for key, stored, wanted in sorted(loading["mismatched_keys"]):
        raise ConfigError(
            f"cannot load {name!r}: {key} is {_shape(stored)} in its weights and "
            f"{_shape(wanted)} by its config.json; they belong to different models"
        )
    _check_vocabulary(name, tokenizer, model.get_input_embeddings().weight.shape[0])


def _check_vocabulary(name: str, tokenizer: PreTrainedTokenizerBase, rows: int) -> None:
    # Not `len`: the ids of added tokens may have gaps before them.
    needed = 1 + max(tokenizer.get_vocab().values())
    if needed > rows:
        raise ConfigError(
            f"cannot load {name!r}: its tokenizer needs {needed} embeddings, its model has only "
            f"{rows}; they belong to different models"
        )


def _shape(sizes: Sequence[int]) -> str:
    return " × ".join(map(str, sizes))


def _eos_ids(
    name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> tuple[int, ...]:
    """The tokenizer's EOS first, then those that the model's generation settings add."""
    settings = getattr(model, "generation_config", None)
    more = getattr(settings, "eos_token_id", None) or []
    ids = [tokenizer.eos_token_id, *([more] if isinstance(more, int) else more)]
    known = dict.fromkeys(id for id in ids if id is not None)
    if not known:
        raise ConfigError(
            f"cannot use {name!r}: neither its tokenizer nor its generation_config.json names an "
            "end-of-sequence token, so no completion would ever end"
        )
    return tuple(known)


def _label(settings: ModelSettings) -> str:
    label = settings.label or Path(settings.name).expanduser().name.lower()
    return label.encode("ascii", "replace")[:MAX_LABEL_BYTES].decode()
