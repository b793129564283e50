"""Eclipse at start: who surrounds a node that starts again is not all that it sees."""

import random
import time
from typing import Any

from parts import SWARM, person

from swarmnode.swarm.address_book import AddressBook
from swarmnode.swarm.discovery import Neighbours
from swarmnode.swarm.reach import Reach
from swarmnode.swarm.seeking import Seeker

SYBILS = tuple(person(n).peer_id for n in range(100, 116))
FRIENDS = [person(n).peer_id for n in range(10)]


def seeker(neighbours: Neighbours, friends: list[str]) -> Seeker:
    """Of a node that was connected to `friends` in its last run."""
    book = AddressBook()
    for number, peer in enumerate(friends):
        book.connected(peer, [f"/ip4/198.51.100.{number}/tcp/1"], time.time())
    host: Any = None  # nothing is dialled here
    rng: Any = random.Random(1)
    return Seeker(
        host, person(999).peer_id, SWARM, neighbours, book, Reach(), rng, lambda text: None
    )


def surrounded() -> Neighbours:
    """By as many as a node looks for, all of one operator."""
    return Neighbours(connected=frozenset(SYBILS), members=SYBILS)


def test_peers_of_earlier_runs_are_dialled_though_there_be_enough_others() -> None:
    one = seeker(surrounded(), FRIENDS)
    one.anchor()
    due = [known.peer for known in one.anchors_due()]
    assert len(due) == 8
    assert set(due) < set(FRIENDS)


def test_without_anchors_a_node_that_is_surrounded_dials_nobody() -> None:
    one = seeker(surrounded(), FRIENDS)
    assert one._wants == 0
    assert one.anchors_due() == []


def test_four_anchors_are_enough_and_those_that_never_answer_are_given_up() -> None:
    neighbours = surrounded()
    one = seeker(neighbours, FRIENDS[:5])
    one.anchor()
    for _ in range(24):
        assert len(one.anchors_due()) == 5
    assert one.anchors_due() == []
    other = seeker(neighbours, FRIENDS[:5])
    other.anchor()
    neighbours.connected |= set(FRIENDS[:3])
    assert len(other.anchors_due()) == 2
    neighbours.connected |= set(FRIENDS[:4])
    assert other.anchors_due() == []


def test_who_came_later_is_no_anchor() -> None:
    one = seeker(surrounded(), FRIENDS)
    one.anchor()
    for peer in SYBILS * 5:
        one._book.connected(peer, ["/ip4/203.0.113.1/tcp/1"], time.time())
    assert {known.peer for known in one.anchors_due()} < set(FRIENDS)
