"""Until when a node trains: what a person writes, and the moment that is meant.

Settings hold the moment and not the duration, so that a node that is stopped and resumed within a
week's run does not begin another week.
"""

import re
from datetime import datetime, timedelta

from swarmnode.errors import ConfigError

_UNITS_S = {"w": 604_800, "d": 86_400, "h": 3600, "m": 60, "s": 1}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?[wdhms])+")
_PART = re.compile(r"(\d+(?:\.\d+)?)([wdhms])")
_CLOCK = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)")


def moment(text: str, now: datetime) -> str:
    """The moment that `text` means at `now` (with its time zone), as `run.until` holds it.

    >>> from datetime import datetime, timezone
    >>> now = datetime(2026, 11, 23, 20, 30, tzinfo=timezone.utc)
    >>> moment("1d12h", now), moment("7:15", now)
    ('2026-11-25T08:30:00+00:00', '2026-11-24T07:15:00+00:00')
    >>> moment("2026-12-01 18:00", now)
    '2026-12-01T18:00:00+00:00'

    "never" is the empty text. Raises `ConfigError` for what is neither a duration nor a time, and
    for a moment that is past.
    """
    if text.strip() == "never":
        return ""
    found = _moment(text.strip(), now)
    if found is None:
        raise ConfigError(
            f"--until {text!r} is neither a duration (90m, 36h, 7d, 1d12h) nor a time "
            "(18:00, 2026-12-01, 2026-12-01T18:00, 2026-12-01T18:00+01:00) nor never"
        )
    if found <= now:
        raise ConfigError(f"--until {text} was before now ({now:%Y-%m-%d %H:%M %Z})")
    return found.isoformat(timespec="seconds")


def check(until: str) -> None:
    """Raises `ConfigError` when the setting `run.until` names no day that there is."""
    try:
        is_past(until, 0.0)
    except ValueError as error:
        raise ConfigError(f"`run.until` {until!r} is no time: {error}") from error


def is_past(until: str, now: float) -> bool:
    """Whether the moment in the setting `run.until` is over at `now`, Unix seconds; never if it is
    empty."""
    return bool(until) and datetime.fromisoformat(until).timestamp() <= now


def _moment(text: str, now: datetime) -> datetime | None:
    try:
        if _DURATION.fullmatch(text):
            parts = _PART.findall(text)
            return now + timedelta(seconds=sum(float(n) * _UNITS_S[unit] for n, unit in parts))
        if clock := _CLOCK.fullmatch(text):
            today = now.replace(hour=int(clock[1]), minute=int(clock[2]), second=0, microsecond=0)
            return today if today > now else today + timedelta(days=1)
        found = datetime.fromisoformat(text)
        return found if found.tzinfo else found.replace(tzinfo=now.tzinfo)
    except (ValueError, OverflowError):
        return None
