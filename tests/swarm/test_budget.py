"""Byte budgets: the settings' words, and that a bucket lets no more than its rate through."""

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmnode import config
from swarmnode.errors import ConfigError
from swarmnode.swarm.budget import Bucket, bytes_per_s


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("", math.inf),
        ("0B", 0),
        ("500kB", 500_000),
        ("500 kB/s", 500_000),
        ("1.5MB", 1_500_000),
        ("1KiB", 1024),
        ("2GB/h", 2e9 / 3600),
    ],
)
def test_reads_what_the_setting_allows(text: str, rate: float) -> None:
    settings = config.load(None, {"network": {"max_upload": text}})
    assert bytes_per_s(settings.network.max_upload) == pytest.approx(rate)


@pytest.mark.parametrize("text", ["fast", "500", "500kb", "-1kB", "1kB/d", "1kB\n", "1e9B", "kB"])
def test_says_what_is_allowed_instead(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--max-upload must be like 500kB .*2GB/h"):
        config.load(None, {"network": {"max_upload": text}})


def test_a_bucket_waits_until_its_debt_is_paid() -> None:
    bucket = Bucket(100.0)
    bucket.spend(1000, 0.0)  # the burst of 10 s
    assert bucket.wait_s(0.0) == pytest.approx(0.01)
    bucket.spend(500, 0.0)
    assert bucket.wait_s(1.0) == pytest.approx(4.01)  # 500 - 100 left to pay, at 100 a second
    assert bucket.wait_s(5.01) == 0.0


def test_without_a_limit_nothing_waits_and_with_zero_everything() -> None:
    unlimited, closed = Bucket(math.inf), Bucket(0.0)
    unlimited.spend(10**12, 0.0)
    assert (unlimited.wait_s(0.0), closed.wait_s(0.0)) == (0.0, math.inf)


@given(st.integers(1, 10**6), st.integers(0, 10**6))
def test_no_more_than_the_rate_goes_through_in_the_long_run(rate: int, seed: int) -> None:
    rng, bucket, now, spent, frame = Random(seed), Bucket(float(rate)), 0.0, 0, 1000
    for _ in range(200):
        now += rng.uniform(0, 5)
        if bucket.wait_s(now) == 0.0:
            bucket.spend(frame, now)
            spent += frame
    assert spent <= rate * (now + 10) + frame
