"""What `swarmnode inspect` does: one frame's bytes, decoded for a person."""

import sys
from contextlib import suppress
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

# Bytes read of a source: the largest frame as hexadecimal text, in lines of any usual length.
_MAX_SOURCE_BYTES = 3 * limits.MAX_FRAME_BYTES


def run(source: str, swarm: str | None, *, as_json: bool) -> int:
    """Prints the frame in `source` (a file, "-" or hexadecimal text; the former two may hold
    either form). As JSON its completions and items are objects, with texts in full.

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
        console.print_json(data=shown, ensure_ascii=True)  # a peer's text may steer a terminal
    else:
        for name, value in shown.items():
            _print_field(console, name.replace("_", " "), value)
    return 0 if accepted else 1


def _print_field(console: Console, name: str, value: Any) -> None:
    lines = [_line(one) for one in value] if type(value) is list else [value]
    for line in lines:
        text = f"{name}: {line}"
        console.print(text, highlight=False, soft_wrap=True, markup=False, emoji=False)


def _line(entry: dict[str, Any]) -> str:
    """A completion or an item in one line."""
    if "text" in entry:
        return (
            f"{quoted(entry['text'])} mean_logp={entry['mean_logp']:.3f} "
            f"tokens={entry['tokens']} ended={str(entry['ended']).lower()}"
        )
    return (
        f"{entry['id']} task={entry['task_digest']} seed={entry['seed']} "
        f"bytes={entry['frame_bytes']}"
    )


def _read(source: str) -> bytes:
    if source == "-":
        return _frame(sys.stdin.buffer.read(_MAX_SOURCE_BYTES))
    try:
        with Path(source).open("rb") as file:
            return _frame(file.read(_MAX_SOURCE_BYTES))
    except (OSError, ValueError) as no_file:  # text of a frame is too long for a path
        try:
            return bytes.fromhex(source)
        except ValueError:
            raise ConfigError(
                f"{quoted(source)} is neither a readable file nor hexadecimal text; "
                "give - to read standard input"
            ) from no_file


def _frame(content: bytes) -> bytes:
    """The frame in `content`, its bytes or hexadecimal text; one byte more than allowed at most.

    They cannot be confused: a frame begins with its version, which is no hexadecimal digit.
    """
    with suppress(ValueError):  # then they are the bytes
        content = bytes.fromhex(content.decode("ascii"))
    return content[: limits.MAX_FRAME_BYTES + 1]


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
            {
                "id": item.rollout_id.hex(),
                "task_digest": item.task_digest.hex(),
                "seed": item.seed,
                "frame_bytes": item.frame_bytes,
            }
            for item in message.items
        ]
        shown["held"] = [begin.hex() for begin in message.held]
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
        {"text": text, "tokens": count, "mean_logp": logp, "ended": ended}
        for text, logp, count, ended in columns
    ]
    return shown


def _swarm_id(swarm: str) -> bytes:
    from swarmnode.questions import open_tasks, swarm_id

    found = manifest.load(swarm)
    return swarm_id(found, open_tasks(found))
