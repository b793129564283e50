"""Which offers are fetched and which pooled groups are trained on: the published rule of SAPO.

arXiv 2509.08721, section 4: discard peers' rollouts with zero advantage, then sample J of the
rest uniformly. Departures:

1. A receiver cannot see an advantage before it has fetched and scored a rollout. It therefore draws
   offers uniformly, `fetch_factor` for every group it wants, and drops those without signal when
   they arrive. The groups that remain are a uniform sample of those with signal.
2. There is no common round. Only the newest `keep_announcements` announcements of each peer are
   drawn from (`exchange`), and what waited too long in the pool is dropped (`pool`).
"""

import random
from collections.abc import Sequence

from swarmnode.rollout import Group
from swarmnode.swarm.admission import Offer


def choose_offers(offers: Sequence[Offer], count: int, rng: random.Random) -> list[Offer]:
    """At most `count` offers, uniformly without replacement."""
    return rng.sample(offers, min(count, len(offers)))


def choose_groups(groups: Sequence[Group], count: int, rng: random.Random) -> list[Group]:
    """At most `count` of the groups that have a signal, uniformly without replacement."""
    useful = [group for group in groups if group.has_signal]
    return rng.sample(useful, min(count, len(useful)))


def choose_weighted(
    groups: Sequence[Group], weights: Sequence[float], count: int, rng: random.Random
) -> list[Group]:
    """At most `count` of the groups without replacement, each draw in proportion to the weights
    (> 0) of those left.

    Source: Efraimidis and Spirakis, "Weighted random sampling with a reservoir", 2006: the largest
    of u^(1/w), u uniform, are such a sample.
    """
    keys = [rng.random() ** (1 / weight) for weight in weights]
    order = sorted(range(len(groups)), key=lambda index: -keys[index])
    return [groups[index] for index in order[:count]]


def fetch_count(wanted: int, fetch_factor: int, pooled: int, in_flight: int) -> int:
    """How many offers to fetch so that the next round finds `wanted` groups with a signal."""
    return max(0, wanted * fetch_factor - pooled - in_flight)
