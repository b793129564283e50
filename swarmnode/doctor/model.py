"""Whether the chosen model can be had, and whether this machine can train it.

The size comes from the headers of its safetensors files: no weight is read or downloaded.
"""

import json
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from importlib import resources
from pathlib import Path
from time import time
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

from swarmnode.config import ModelSettings, Settings
from swarmnode.doctor.check import Check, ok, problem, warning

_GB = 10**9
_HUB_S = 10.0
# A header of safetensors is refused by its library above this.
_MAX_HEADER_BYTES = 100_000_000
# What a checkpoint holds of each: weights and moments, or weights, master and moments.
_SAVED_FLOAT32_BYTES, _SAVED_BFLOAT16_BYTES = 12, 14
_MAX_CLOCK_S = 60.0
_ON_GPU = "on the GPU"


@dataclass(frozen=True, slots=True)
class Size:
    """Parameters, None when that is not known; `is_bfloat16` as the node would load it; the content
    of config.json, where it is on this machine."""

    parameters: int | None
    is_bfloat16: bool
    config: Mapping[str, Any] = field(default_factory=dict)


def hub(settings: ModelSettings) -> Check:
    """Whether the model is here, or the hub has it for this user."""
    name = settings.name
    folder = _folder(name)
    if folder is not None:
        if not any(folder.glob("*.safetensors")):
            return problem(
                "model", f"{folder} holds no .safetensors weights",
                "give the folder that save_pretrained wrote, such as <run>/model",
            )  # fmt: skip
        return ok("model", f"{name} is on this machine; the hub is not needed")
    from huggingface_hub import constants, get_token

    if constants.HF_HUB_OFFLINE:
        return warning(
            "model", f"{name} is of the hub, and HF_HUB_OFFLINE is set",
            "unset it unless the model is in the cache",
        )  # fmt: skip
    url = f"{constants.ENDPOINT}/{quote(name)}/resolve/{quote(settings.revision or 'main')}"
    token = get_token()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = Request(f"{url}/config.json", headers=headers, method="HEAD")  # noqa: S310  the hub's
    try:
        with urlopen(request, timeout=_HUB_S) as answer:  # noqa: S310
            return _clock_of_hub(name, answer.headers.get("Date", ""))
    except HTTPError as error:
        return _refusal(name, error.code, has_token=bool(token))
    except (OSError, ValueError) as error:
        return problem(
            "model", f"the hub at {constants.ENDPOINT} does not answer ({error})",
            "mend the connection or the proxy (HTTPS_PROXY), or give --model a folder, or demo",
        )  # fmt: skip


def size(settings: ModelSettings) -> Size:
    """How large the model of the settings is; call it when `hub` found no problem."""
    import torch

    on_gpu = settings.device != "cpu" and torch.cuda.is_available()
    is_bfloat16 = settings.dtype == "bfloat16" or (settings.dtype == "auto" and on_gpu)
    folder = _folder(settings.name) or _cached(settings)
    if folder is not None:
        return Size(_parameters_in(folder), is_bfloat16, _config_in(folder))
    return Size(_parameters_of_hub(settings), is_bfloat16)


def size_here(settings: ModelSettings) -> Size | None:
    """`size` of a model whose files are on this machine; None for others: nobody is asked."""
    return size(settings) if _folder(settings.name) or _cached(settings) else None


def memory(settings: Settings, size: Size) -> Check:
    """The memory of the device against what training this model needs."""
    if size.parameters is None:
        return warning("memory", "the model's size is not known", "see its page on the hub")
    from swarmnode.train.footprint import Shape, advice, estimate

    have, where = _available(settings.model.device)
    device = "cuda" if where == _ON_GPU else "cpu"
    shape = Shape.of(size.config, size.parameters, 2 if size.is_bfloat16 else 4)
    need = estimate(settings, shape, device)
    found = (
        f"{size.parameters / 1e6:,.1f} M parameters: needs {need.total / _GB:.2f} GB"
        f"{'' if shape.layers else ' and activations'}, {have / _GB:.1f} free {where}"
    )
    if have < need.fixed:
        return problem("memory", found, advice(settings, shape, have, device))
    if have < need.total:
        return warning(
            "memory", found, f"it may be too little: {advice(settings, shape, have, device)}"
        )
    return ok("memory", found)


def disk_bytes(settings: Settings, size: Size) -> int:
    """Disk for the kept checkpoints, the one being written, and the exported model."""
    saved = _SAVED_BFLOAT16_BYTES if size.is_bfloat16 else _SAVED_FLOAT32_BYTES
    exported = 2 if size.is_bfloat16 else 4
    each = (settings.run.keep_checkpoints + 1) * saved + exported
    return each * (size.parameters or 0) + settings.run.log_mb * 2**20


def _folder(name: str) -> Path | None:
    """The folder that holds the model; None for a name of the hub."""
    if name == "demo":
        return Path(str(resources.files("swarmnode") / "demo_model"))
    path = Path(name).expanduser()
    return path if path.is_dir() or name.startswith((".", "/", "~")) else None


def _cached(settings: ModelSettings) -> Path | None:
    """The hub's model in this machine's cache, whole or in part; None without."""
    from huggingface_hub import errors, try_to_load_from_cache

    try:
        found = try_to_load_from_cache(settings.name, "config.json", revision=settings.revision)
    except (errors.HFValidationError, ValueError):
        return None
    folder = Path(found).parent if isinstance(found, str) else None
    return folder if folder and any(folder.glob("*.safetensors")) else None


def _config_in(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _parameters_in(folder: Path) -> int | None:
    total = 0
    for path in folder.glob("*.safetensors"):
        try:
            with path.open("rb") as file:
                (length,) = struct.unpack("<Q", file.read(8))
                if length > _MAX_HEADER_BYTES:
                    return None
                header = json.loads(file.read(length))
            shapes = [v["shape"] for k, v in header.items() if k != "__metadata__"]
        except (OSError, ValueError, KeyError, struct.error):
            return None
        total += sum(_product(shape) for shape in shapes)
    return total or None


def _parameters_of_hub(settings: ModelSettings) -> int | None:
    from huggingface_hub import errors, get_safetensors_metadata

    try:
        found = get_safetensors_metadata(settings.name, revision=settings.revision)
    except (errors.HfHubHTTPError, errors.NotASafetensorsRepoError, OSError, ValueError):
        return None
    return sum(found.parameter_count.values()) or None


def _product(shape: list[int]) -> int:
    count = 1
    for length in shape:
        count *= length
    return count


def _available(device: str) -> tuple[int, str]:
    """Free bytes where the model would be, and where that is."""
    import torch

    if device != "cpu" and torch.cuda.is_available():
        return torch.cuda.mem_get_info(int(device.partition(":")[2] or 0))[0], _ON_GPU
    return min(_free_memory(), _container_memory()), "in this machine or container"


def _free_memory() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        found = dict(line.split(":", 1) for line in lines)
        return int(found["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _container_memory() -> int:
    """What the control group leaves; very much without a limit."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit = (folder / "memory.max").read_text().strip()
        used = int((folder / "memory.current").read_text())
    except (OSError, ValueError):
        return 2**62
    return int(limit) - used if limit.isdigit() else 2**62


def _clock_of_hub(name: str, date: str) -> Check:
    """The hub answered; its clock is worth a look, as peers refuse what a wrong one dates."""
    try:
        ahead = time() - parsedate_to_datetime(date).timestamp()
    except ValueError:
        return ok("model", f"the hub has {name}")
    if abs(ahead) > _MAX_CLOCK_S:
        return warning(
            "model", f"the hub has {name}; this clock is {ahead:+.0f} s off the hub's",
            "set the clock, best by NTP: peers refuse what is from the future",
        )  # fmt: skip
    return ok("model", f"the hub has {name}; this clock agrees with the hub's")


def _refusal(name: str, status: int, *, has_token: bool) -> Check:
    if status in (401, 403):
        fix = "ask for access on its page" if has_token else "log in with: hf auth login"
        return problem("model", f"the hub does not give {name} to you ({status})", fix)
    if status == 404:
        return problem(
            "model", f"the hub has no model {name}", "check the spelling, and --revision"
        )
    return problem("model", f"the hub answers with status {status}", "try again later")
