"""Durations and times of day, by hand."""

import doctest
from datetime import UTC, datetime, timedelta, timezone

import pytest

from swarmnode import deadline
from swarmnode.config import load
from swarmnode.errors import ConfigError

# A Monday evening, one hour east of Greenwich.
NOW = datetime(2026, 11, 23, 20, 30, 15, tzinfo=timezone(timedelta(hours=1)))


def test_examples_hold() -> None:
    assert doctest.testmod(deadline).failed == 0


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("90m", "2026-11-23T22:00:15+01:00"),
        ("1w", "2026-11-30T20:30:15+01:00"),
        ("1.5h", "2026-11-23T22:00:15+01:00"),
        ("20:30", "2026-11-24T20:30:00+01:00"),
        ("20:31", "2026-11-23T20:31:00+01:00"),
        ("2026-11-23T20:00Z", "2026-11-23T20:00:00+00:00"),
        ("2026-12-01", "2026-12-01T00:00:00+01:00"),
    ],
)
def test_what_is_meant(text: str, means: str) -> None:
    moment = deadline.moment(text, NOW)
    assert moment == means
    settings = load(None, {"run": {"until": moment}})  # as the settings file holds it
    assert settings.run.until == moment


def test_never_is_no_moment_and_a_day_that_there_is_not_is_told() -> None:
    assert deadline.moment("never", NOW) == ""
    deadline.check("")
    deadline.check("2026-02-28T00:00+00:00")
    with pytest.raises(ConfigError, match="day is out of range"):
        deadline.check("2026-02-31T00:00+00:00")


@pytest.mark.parametrize("text", ["", "soon", "7", "h", "-3h", "25:00", "1e9w", "99999999w", "0s"])
def test_what_is_none(text: str) -> None:
    with pytest.raises(ConfigError, match="--until"):
        deadline.moment(text, NOW)


def test_over_from_the_moment_on() -> None:
    until = "2026-11-23T20:00:00+00:00"
    at = datetime(2026, 11, 23, 20, tzinfo=UTC).timestamp()
    assert [deadline.is_past(until, at + s) for s in (-1, 0, 1)] == [False, True, True]
    assert not deadline.is_past("", at)
