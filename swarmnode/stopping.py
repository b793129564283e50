"""How a node is asked to stop: the first signal lets the round end, the second does not wait."""

import logging
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

log = logging.getLogger(__name__)

# Ctrl-C, a supervisor's request, a terminal that was closed.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# How soon a resting node notices a signal, seconds.
_REST_STEP_S = 0.1


class Stop:
    """`signal` is the number of the first one that came while `listening`, if any."""

    def __init__(self) -> None:
        self.signal: int | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Takes the stop signals over; a second raises `KeyboardInterrupt`. Main thread only."""

        def on_signal(number: int, frame: FrameType | None) -> None:
            if self.signal is not None:
                raise KeyboardInterrupt
            self.signal = number
            log.warning("stopping after this round; once more to stop at once")

        before = {number: signal.signal(number, on_signal) for number in STOP_SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def rest(self, duration_s: float) -> None:
        """Does nothing for so long, if it is positive; a signal ends it."""
        until = time.monotonic() + duration_s
        while self.signal is None and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, _REST_STEP_S))
