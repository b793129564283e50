"""What `swarmnode inspect` does: one frame's bytes, decoded for a person."""

import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from protocol import envelope, limits
from protocol.errors import ProtocolError
from protocol.messages import Announcement, Rollout
from protocol.names import peer_id
from swarmnode import manifest
from swarmnode.errors import ConfigError
from swarmnode.log import quoted


def run(source: str, swarm: str | None, *, as_json: bool) -> int:
    """Prints the frame in `source` (a file, "-" or hexadecimal text).

    Exit code 0 if a node of `swarm` would take it (without `swarm`: if it parses), else 1.
    """
    frame = _read(source)
    shown: dict[str, Any] = {"frame_bytes": len(frame)}
    try:
        if swarm is None:
            shown["signature"] = "not checked: give --swarm"
            shown |= _fields(*envelope.read_unverified(frame))
        else:
            opened = envelope.open_frame(frame, _swarm_id(swarm))
            shown["signature"] = "valid"
            shown |= {"id": opened.id.hex(), **_fields(opened.author, opened.message)}
        accepted = True
    except ProtocolError as error:
        shown |= {"refused": error.reason.value, "why": error.detail}
        accepted = False
    console = Console()
    if as_json:
        console.print_json(data=shown)
    else:
        for name, value in shown.items():
            _print_field(console, name.replace("_", " "), value)
    return 0 if accepted else 1


def _print_field(console: Console, name: str, value: Any) -> None:
    lines = value if type(value) is list else [value]
    for line in lines:
        text = f"{name}: {line}"
        console.print(text, highlight=False, soft_wrap=True, markup=False, emoji=False)


def _read(source: str) -> bytes:
    if source == "-":
        return sys.stdin.buffer.read(limits.MAX_FRAME_BYTES + 1)
    try:
        with Path(source).open("rb") as file:
            return file.read(limits.MAX_FRAME_BYTES + 1)
    except (OSError, ValueError) as no_file:  # text of a frame is too long for a path
        try:
            return bytes.fromhex(source)
        except ValueError:
            raise ConfigError(
                f"{quoted(source)} is neither a readable file nor hexadecimal text; "
                "give - to read standard input"
            ) from no_file


def _fields(author: bytes, message: Announcement | Rollout) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "kind": type(message).__name__.lower(),
        "author": peer_id(author),
        "model_label": message.model_label,
        "created": message.created,
        "policy_version": message.policy_version,
    }
    if type(message) is Announcement:
        shown["round"] = message.round
        shown["items"] = [
            f"{item.rollout_id.hex()} task={item.task_digest.hex()} seed={item.seed} "
            f"bytes={item.frame_bytes}"
            for item in message.items
        ]
        return shown
    assert type(message) is Rollout
    shown |= {
        "task_digest": message.task_digest.hex(),
        "seed": message.seed,
        "temperature": message.temperature,
    }
    columns = zip(
        message.texts, message.mean_logps, message.token_counts, message.ended, strict=True
    )
    shown["completions"] = [
        f"{quoted(text)} mean_logp={logp:.3f} tokens={count} ended={str(ended).lower()}"
        for text, logp, count, ended in columns
    ]
    return shown


def _swarm_id(swarm: str) -> bytes:
    from swarmnode.questions import open_tasks, swarm_id

    found = manifest.load(swarm)
    return swarm_id(found, open_tasks(found))
