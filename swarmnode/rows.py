"""The end of a long file of JSON lines, without reading the rest of it.

A run of a week has some 100,000 rows and hundreds of megabytes. Whoever wants to know how it stands
wants the last ones; whoever resumes it wants to cut off those that it does again.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

# Bytes read at a time, backwards: a few dozen rows of a small swarm.
_BLOCK_BYTES = 64 * 2**10


def newest_rows(path: Path, count: int) -> list[dict[str, Any]]:
    """The last `count` rows, oldest first; none if the file is absent. Lines that are cut short or
    damaged are passed over."""
    found: list[dict[str, Any]] = []
    try:
        with path.open("rb") as file:
            for _, row in _backwards(file):
                if len(found) == count:
                    break
                found.append(row)
    except FileNotFoundError:
        return []
    return found[::-1]


def keep_up_to(path: Path, round: int) -> None:
    """Cuts the file off after the newest row of at most `round`, and so what is damaged after it.

    It needs no free disk. Nothing happens to an absent file. Raises `OSError`.
    """
    try:
        file = path.open("r+b")
    except FileNotFoundError:
        return
    with file:
        end = next((end for end, row in _backwards(file) if row["round"] <= round), 0)
        file.truncate(end)
        if end and (file.seek(end - 1), file.read(1))[1] != b"\n":
            file.write(b"\n")  # all but the break of the last line had reached the disk
            file.flush()
        os.fsync(file.fileno())


def _backwards(file: IO[bytes]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows from the last to the first, each with the offset of its line's end."""
    for end, line in _lines_backwards(file):
        try:
            row = json.loads(line)
        except ValueError:  # cut short, or the zeros that a power cut leaves
            continue
        if type(row) is dict and type(row.get("round")) is int:
            yield end, row


def _lines_backwards(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """The lines from the last to the first, each with the offset after it and its break."""
    start = end = file.seek(0, os.SEEK_END)
    held = b""  # the bytes from `start` to `end`: read and not yielded
    size = _BLOCK_BYTES
    while start > 0:
        size = min(size, start)
        start -= size
        file.seek(start)
        held = file.read(size) + held
        size *= 2  # a line of any length is read in time proportional to it
        while held:
            before = held.rfind(b"\n", 0, len(held) - 1)
            if before < 0 < start:
                break  # it begins in an earlier block
            yield end, held[before + 1 :]
            held = held[: before + 1]
            end = start + len(held)
            size = _BLOCK_BYTES
