"""Byte budgets: how much a node may send and receive in the long run, as token buckets.

What is spent is known only when it has gone, so a bucket goes into debt by one frame at most and
then says how long to wait until it is out of it.
"""

import math
import re

# Seconds of the rate that can be spent at once after a pause. A round's fetches come in one burst.
_BURST_S = 10.0
_UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def bytes_per_s(text: str) -> float:
    """The rate that a setting, which `config.Rate` has checked, says; infinite for "".

    >>> bytes_per_s("500kB"), bytes_per_s("1.8 MB/h"), bytes_per_s("")
    (500000.0, 500.0, inf)
    """
    if not text:
        return math.inf
    found = re.match(r"([0-9.]+) ?(\w+)(/h)?", text)
    if found is None:
        raise ValueError(f"{text!r} is no rate")
    number, unit, per = found.groups()
    return float(number) * _UNITS[unit] / (3600 if per else 1)


class Bucket:
    """`rate` bytes a second, in the long run. Times are seconds of any one clock."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._most = rate * _BURST_S
        self._left = self._most
        self._at = -math.inf

    def spend(self, count: int, now: float) -> None:
        """Takes `count` bytes, which have gone already."""
        self._refill(now)
        self._left -= count

    def wait_s(self, now: float) -> float:
        """Seconds until there is something to spend; 0 when there is, infinite for a rate of 0."""
        self._refill(now)
        if self._left > 0 or self._rate == math.inf:
            return 0.0
        return (1 - self._left) / self._rate if self._rate else math.inf

    def _refill(self, now: float) -> None:
        if self._rate == math.inf:
            self._left = math.inf
        elif self._at > -math.inf:
            self._left = min(self._most, self._left + self._rate * max(0.0, now - self._at))
        self._at = max(self._at, now)
