"""Checkpoints that a crash at any moment cannot spoil, and the newest valid one back.

One folder per checkpoint, named by its round, with four files: the model's and the optimiser's
tensors (safetensors), the node's state (JSON) and a manifest with the size and SHA-256 of the
others. A folder appears under its name in one rename, after every byte of it is on the disk, and
is never written again; an older one is deleted only after that. No pickle anywhere.

    checkpoints/round-00000042/{model.safetensors, optimizer.safetensors, state.json, MANIFEST.json}
    checkpoints/.saving-…      being written, or left by a crash: removed by the next save
    checkpoints/.removing-…    being deleted, likewise
    checkpoints/spoilt-…       was in the way of a new one; kept for a person to look at

It does not decide when to save, and it does not know what the state means (`trainer.py`, `node.py`)
beyond the states of random generators, whose JSON form is here. One process writes a folder.
"""

import base64
import hashlib
import json
import os
import random
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from swarmnode.errors import SwarmNodeError

# Version of the folder's layout. A reader refuses any other, so changing it abandons old runs.
FORMAT = 1
MODEL, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"
MANIFEST = "MANIFEST.json"
ROUND_NAME = re.compile(r"round-(\d{8,})")
SAVING, REMOVING, SPOILT = ".saving-", ".removing-", "spoilt-"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One node at the end of a round. `state` is any JSON object of the node's."""

    round: int
    model: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    state: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Skipped:
    """A checkpoint that could not be used, and why in a few words."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Latest:
    """The newest valid checkpoint, tensors on the CPU, and the newer ones passed over.

    `checkpoint` None with `skipped` not empty means that every checkpoint is spoilt: starting
    from round 0 then is the person's decision, not the program's.
    """

    checkpoint: Checkpoint | None
    skipped: tuple[Skipped, ...]


def save(folder: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Makes `checkpoint` durable under `folder`, then deletes all but the newest `keep` (≥ 1).

    Returns the new folder once it survives a power cut. A spoilt checkpoint of the same or a later
    round, which `load_latest` passed over, is renamed out of the way. Raises `ValueError` when a
    valid one stands there, and `SwarmNodeError` when the disk refuses; earlier ones stay intact.
    """
    if checkpoint.round < 0 or keep < 1:
        raise ValueError(f"round {checkpoint.round} must be ≥ 0 and keep {keep} ≥ 1")
    state = json.dumps(dict(checkpoint.state), allow_nan=False).encode()
    final = folder / f"round-{checkpoint.round:08d}"
    saving = folder / f"{SAVING}{final.name}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(folder)
        _set_spoilt_aside(folder, checkpoint.round)
        saving.mkdir()
        save_file(_storable(checkpoint.model), saving / MODEL)
        save_file(_storable(checkpoint.optimizer), saving / OPTIMIZER)
        (saving / STATE).write_bytes(state)
        (saving / MANIFEST).write_bytes(_manifest(checkpoint.round, saving))
        for path in saving.iterdir():
            _flush(path)
        _flush(saving)
        saving.rename(final)
        _flush(folder)
        for path in _newest_first(folder)[keep:]:
            _remove(path)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(saving, ignore_errors=True)  # what remains, the next save removes
        raise SwarmNodeError(
            f"cannot save a checkpoint in {folder}: {error} (is the disk full or read-only?)"
        ) from error
    return final


def load_latest(folder: Path) -> Latest:
    """The newest checkpoint under `folder` whose every hash is right; nothing is changed on disk.

    Raises `SwarmNodeError` only when `folder` exists and cannot be listed.
    """
    skipped: list[Skipped] = []
    try:
        paths = _newest_first(folder) if folder.exists() else []
    except OSError as error:
        raise SwarmNodeError(f"cannot read the checkpoints in {folder}: {error}") from error
    for path in paths:
        reason = _damage(path)
        if not reason:
            try:
                return Latest(_read(path), tuple(skipped))
            except (OSError, ValueError, SafetensorError) as error:
                reason = f"{type(error).__name__} while reading"
        skipped.append(Skipped(path.name, reason))
    return Latest(None, tuple(skipped))


def peek(folder: Path) -> Mapping[str, Any] | None:
    """The state in the newest checkpoint that has a readable one; None without any.

    For a look before anything is started: no hash is checked and no tensor read.
    """
    for path in _newest_first(folder) if folder.exists() else []:
        try:
            state: dict[str, Any] = json.loads((path / STATE).read_bytes())
        except (OSError, ValueError):
            continue  # damaged, as `load_latest` will find
        return state
    return None


def load(path: Path) -> Checkpoint:
    """The checkpoint in the folder `path`. Raises `SwarmNodeError` when it is damaged."""
    if damage := _damage(path):
        raise SwarmNodeError(f"the checkpoint {path} cannot be used: {damage}")
    return _read(path)


def rng_state(
    randoms: Mapping[str, random.Random], generators: Mapping[str, torch.Generator]
) -> dict[str, Any]:
    """JSON of the given generators' states and of torch's global ones (CPU, every GPU)."""
    return {
        "torch": _text(torch.get_rng_state()),
        "cuda": [_text(s) for s in torch.cuda.get_rng_state_all()]
        if torch.cuda.is_available()
        else [],
        "randoms": {name: _random_state(r) for name, r in randoms.items()},
        "generators": {name: _text(g.get_state()) for name, g in generators.items()},
    }


def restore_rng(
    state: Mapping[str, Any],
    randoms: Mapping[str, random.Random],
    generators: Mapping[str, torch.Generator],
) -> None:
    """Puts every generator where `rng_state` found it.

    States of GPUs are restored only where their number is the same: a run that moved to another
    machine continues, but not bit for bit. Raises `KeyError` for a name that was not saved.
    """
    torch.set_rng_state(_bytes(state["torch"]))
    if torch.cuda.is_available() and torch.cuda.device_count() == len(state["cuda"]):
        torch.cuda.set_rng_state_all([_bytes(text) for text in state["cuda"]])
    for name, rng in randoms.items():
        version, words, gauss = state["randoms"][name]
        rng.setstate((version, tuple(words), gauss))
    for name, generator in generators.items():
        generator.set_state(_bytes(state["generators"][name]))


def _newest_first(folder: Path) -> list[Path]:
    paths = [path for path in folder.iterdir() if ROUND_NAME.fullmatch(path.name)]
    return sorted(paths, key=_round, reverse=True)


def _round(path: Path) -> int:
    return int(path.name.removeprefix("round-"))


def _storable(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().contiguous() for name, tensor in tensors.items()}


def _manifest(round_number: int, folder: Path) -> bytes:
    files = {
        name: {"bytes": (folder / name).stat().st_size, "sha256": _sha256(folder / name)}
        for name in (MODEL, OPTIMIZER, STATE)
    }
    return json.dumps({"format": FORMAT, "round": round_number, "files": files}, indent=1).encode()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _damage(path: Path) -> str:
    """What is wrong with the checkpoint in `path`, in a few words; empty when nothing is."""
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
        if manifest["format"] != FORMAT:
            return f"format {manifest['format']}, this program reads {FORMAT}"
        if manifest["round"] != _round(path):
            return f"its manifest is of round {manifest['round']}"
        for name in (MODEL, OPTIMIZER, STATE):
            entry = manifest["files"][name]
            if (path / name).stat().st_size != entry["bytes"]:
                return f"{name} has the wrong size"
            if _sha256(path / name) != entry["sha256"]:
                return f"{name} has the wrong hash"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except (ValueError, KeyError, TypeError):
        return f"{MANIFEST} is not valid"
    return ""


def _read(path: Path) -> Checkpoint:
    return Checkpoint(
        round=_round(path),
        model=load_file(path / MODEL),
        optimizer=load_file(path / OPTIMIZER),
        state=json.loads((path / STATE).read_bytes()),
    )


def _flush(path: Path) -> None:
    """Waits until the file, or the folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    """Deletes a checkpoint; a crash on the way leaves a leftover, not half a checkpoint."""
    leftover = path.with_name(f"{REMOVING}{path.name}")
    path.rename(leftover)
    shutil.rmtree(leftover)


def _remove_leftovers(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name.startswith((SAVING, REMOVING)):
            shutil.rmtree(path)


def _set_spoilt_aside(folder: Path, from_round: int) -> None:
    for path in _newest_first(folder):
        if _round(path) < from_round:
            return
        if not _damage(path):
            raise ValueError(f"{path.name} exists, round {from_round} is not newer")
        aside = path.with_name(f"{SPOILT}{path.name}")
        copies = len(list(folder.glob(f"{aside.name}*")))
        path.rename(f"{aside}-{copies + 1}" if copies else aside)


def _random_state(rng: random.Random) -> list[Any]:
    version, words, gauss = rng.getstate()
    return [version, list(words), gauss]


def _text(state: Tensor) -> str:
    return base64.b64encode(state.numpy().tobytes()).decode()


def _bytes(text: str) -> Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)
