"""Sybils hold little of what is fetched, and most of it with the defence off."""

import pytest
from sybils import share

from swarmnode.config import TrustSettings

pytestmark = pytest.mark.slow


def test_late_sybils_on_few_networks_hold_little() -> None:
    assert share("late", 10, TrustSettings()) <= 0.2


def test_without_fair_shares_they_hold_what_they_offer() -> None:
    # 80 % of the authors; honest ones have two announcements out in the first of five rounds.
    assert share("late", 5, TrustSettings(fair_shares=False)) > 0.6


def test_on_as_many_networks_as_keys_only_the_newcomers_lane_is_left() -> None:
    assert share("late", 5, TrustSettings(), networks=200) <= 0.2
