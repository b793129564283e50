"""Logging: one line an event, `event key=value`, on stderr and in the run directory.

INFO is a line per round plus start and stop; WARNING is something a person may act on. What a peer
wrote is logged only through `quoted`.
"""

import logging
import sys
from contextlib import suppress
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TextIO

_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"
_MAX_QUOTED = 80


class _LogFile(RotatingFileHandler):
    """A log file that a full disk does not turn into a traceback for every line."""

    _has_complained = False

    def handleError(self, record: logging.LogRecord) -> None:
        """Says once on stderr that lines are lost."""
        if not self._has_complained:
            self._has_complained = True
            sys.stderr.write(f"cannot write {self.baseFilename}: {sys.exc_info()[1]}\n")

    def close(self) -> None:
        """Closes even if what is left cannot be written."""
        with suppress(OSError):
            super().close()


def setup(
    file: Path | None = None,
    stream: TextIO | None = None,
    max_bytes: int = 20 * 2**20,
    keep: int = 3,
) -> None:
    """Sends the package's log to `stream` (stderr) and, if given, appends it to `file`.

    A file that would grow above `max_bytes` is renamed to file.1, that to file.2, and so on up to
    `keep`. Other libraries are heard from WARNING on. May be called again; the latest call holds.
    """
    handlers: list[logging.Handler] = [logging.StreamHandler(stream or sys.stderr)]
    if file is not None:
        handlers.append(_LogFile(file, maxBytes=max_bytes, backupCount=keep, encoding="utf-8"))
    logging.basicConfig(level=logging.WARNING, format=_FORMAT, handlers=handlers, force=True)
    logging.getLogger("swarmnode").setLevel(logging.INFO)


def quoted(text: str) -> str:
    """A stranger's text, escaped and cut, fit for one log line.

    >>> quoted("two\\nlines\\x1b[2J")
    "'two\\\\nlines\\\\x1b[2J'"
    """
    cut = text[:_MAX_QUOTED]
    return ascii(cut) + ("…" if len(text) > _MAX_QUOTED else "")
