"""What all nodes of one swarm share: its name, its tasks, how answers are read, the held-out split.

The swarm's id is a hash of exactly that (`Manifest.swarm_id`), so two nodes are in one swarm if and
only if they would make and score every question alike. A task enters the hash by its digest, which
covers its options, the generator's version and the data it reads. Not part of it: file paths, the
order of the tasks, and their weights, because a node may practise what it likes.
"""

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from protocol import limits, names
from swarmnode.errors import ConfigError
from swarmnode.unknown_fields import known_fields

# Printable ASCII without spaces: names are metric labels, and peers are greeted with the swarm's.
Name = Annotated[
    str, Meta(pattern=r"^[a-z0-9][a-z0-9_.-]*\Z", max_length=limits.MAX_SWARM_NAME_BYTES)
]


_AUDIENCE: Literal[100] = 100  # where a manifest names none


class Task(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One task of the swarm. `source` is `reasoning_gym:<data set>`, `jsonl:<file>` (relative to
    the manifest) or `hf:<data set>@<commit>:<split>`. `weight` is its share of the questions that
    this node draws, relative to the other tasks'."""

    name: Name
    source: str
    weight: Annotated[float, Meta(gt=0, le=1000)] = 1.0
    options: dict[str, Any] = {}


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A swarm, as its manifest file describes it.

    `audience` is how many authors a node hears about once there are many, 100 or 6: with 6 that
    does not grow from 8 nodes on (SPEC.md section 8); with 100, from some hundred.
    `answer_format` says where the answer stands in a completion: the "whole" text, or the last
    `<answer>` "tag". `held_out_ratio` of all questions are never trained on nor published.
    """

    name: Name
    tasks: Annotated[tuple[Task, ...], Meta(min_length=1, max_length=64)]
    answer_format: Literal["whole", "tag"] = "tag"
    held_out_ratio: Annotated[float, Meta(ge=0.01, le=0.5)] = 0.1
    audience: Literal[100, 6] = _AUDIENCE

    def swarm_id(self, digests: Mapping[str, bytes]) -> bytes:
        """The 32-byte id, from the digest of each task by name (`tasks.TaskSet.digest`)."""
        shared: dict[str, Any] = {
            "name": self.name,
            "answer_format": self.answer_format,
            "held_out_ratio": self.held_out_ratio,
            "tasks": sorted([task.name, digests[task.name].hex()] for task in self.tasks),
        }
        if self.audience != _AUDIENCE:  # else left out, as before there was a choice
            shared["audience"] = self.audience
        return names.swarm_id(msgspec.json.encode(shared, order="sorted"))


def built_in_names() -> tuple[str, ...]:
    """The swarms whose manifests are shipped inside the package."""
    folder = resources.files("swarmnode") / "manifests"
    return tuple(sorted(file.name[:-5] for file in folder.iterdir() if file.name.endswith(".toml")))


def load(name_or_path: str) -> Manifest:
    """A built-in manifest by name, or one from a TOML file. Raises `ConfigError`."""
    if name_or_path in built_in_names():
        text = (resources.files("swarmnode") / "manifests" / f"{name_or_path}.toml").read_bytes()
        return _parse(text, name_or_path)
    path = Path(name_or_path)
    try:
        text = path.read_bytes()
    except OSError as error:
        known = ", ".join(built_in_names())
        raise ConfigError(
            f"no swarm {name_or_path!r}: neither built in ({known}) nor a readable manifest file"
        ) from error
    return _with_absolute_paths(_parse(text, name_or_path), path.resolve().parent)


def dump(manifest: Manifest) -> str:
    """The manifest as TOML text that `load` reads back to an equal one."""
    return msgspec.toml.encode(manifest).decode()


def _parse(text: bytes, source: str) -> Manifest:
    try:
        manifest = msgspec.toml.decode(text, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        known = known_fields(str(error), Manifest)
        more = f"; known there: {known}" if known else ""
        raise ConfigError(f"manifest {source}: {error}{more}") from error
    seen = [task.name for task in manifest.tasks]
    if len(set(seen)) != len(seen):
        raise ConfigError(f"manifest {source}: two tasks have the same name")
    return manifest


def _with_absolute_paths(manifest: Manifest, folder: Path) -> Manifest:
    tasks = tuple(
        msgspec.structs.replace(task, source=f"jsonl:{folder / task.source.removeprefix('jsonl:')}")
        if task.source.startswith("jsonl:")
        else task
        for task in manifest.tasks
    )
    return msgspec.structs.replace(manifest, tasks=tasks)
