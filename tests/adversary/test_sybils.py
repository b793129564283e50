"""Sybils hold little of what is fetched, and most of it with the defence off."""

import pytest
from sybils import share

from swarmnode.config import TrustSettings

pytestmark = pytest.mark.slow


def test_late_sybils_on_few_networks_hold_little() -> None:
    assert share("late", 10, TrustSettings()) <= 0.2


def test_without_fair_shares_they_hold_what_they_offer() -> None:
    # 400 of 500 authors offer as much as the others from the second round on; in the first the
    # honest have two announcements out. 960 draws, of which each share is within 4 % (three
    # standard deviations); 24 a round, as by default, would say little.
    few = {"rounds": 5, "after": 1, "asked": 240}
    assert share("late", trust=TrustSettings(fair_shares=False), **few) == pytest.approx(
        0.8, abs=0.04
    )
    assert share("late", trust=TrustSettings(), **few) <= 0.2


def test_on_as_many_networks_as_keys_only_the_newcomers_lane_is_left() -> None:
    assert share("late", 5, TrustSettings(), networks=200) <= 0.2
