"""Logging: one line an event, `event key=value`, on stderr and in the run directory.

INFO is a line per round plus start and stop; WARNING is something a person may act on. What a peer
wrote is logged only through `quoted`.
"""

import logging
import sys
from pathlib import Path
from typing import TextIO

_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"
_MAX_QUOTED = 80


def setup(file: Path | None = None, stream: TextIO | None = None) -> None:
    """Sends the package's log to `stream` (stderr) and, if given, appends it to `file`.

    Other libraries are heard from WARNING on. May be called again; the latest call holds.
    """
    handlers: list[logging.Handler] = [logging.StreamHandler(stream or sys.stderr)]
    if file is not None:
        handlers.append(logging.FileHandler(file, encoding="utf-8"))
    logging.basicConfig(level=logging.WARNING, format=_FORMAT, handlers=handlers, force=True)
    logging.getLogger("swarmnode").setLevel(logging.INFO)


def quoted(text: str) -> str:
    """A stranger's text, escaped and cut, fit for one log line.

    >>> quoted("two\\nlines\\x1b[2J")
    "'two\\\\nlines\\\\x1b[2J'"
    """
    cut = text[:_MAX_QUOTED]
    return ascii(cut) + ("…" if len(text) > _MAX_QUOTED else "")
