"""Which offers are kept, for how long, and that a flood of them stays small."""

import dataclasses

from protocol.limits import MAX_ITEMS
from protocol.messages import Item
from swarmnode.swarm.admission import Offer
from swarmnode.swarm.bounded import RecentIds
from swarmnode.swarm.offers import MAX_AUTHORS, Offers


def key(author: int) -> bytes:
    return author.to_bytes(32, "big")


def offers_of(author: int, numbers: range, created: float = 0.0) -> list[Offer]:
    return [Offer(key(author), Item(key(n), b"add1", n, 300), created) for n in numbers]


def seeds(offers: Offers) -> list[int]:
    return sorted(offer.item.seed for offer in offers.current().values())


def test_keeps_the_newest_announcements_of_each_author() -> None:
    offers = Offers(keep_announcements=2)
    for first in (0, 10, 20):
        offers.add(key(1), offers_of(1, range(first, first + 2)))
    offers.add(key(2), offers_of(2, range(30, 31)))
    assert seeds(offers) == [10, 11, 20, 21, 30]
    assert offers.authors == 2


def test_an_announcement_without_offers_pushes_nothing_out() -> None:
    offers = Offers(keep_announcements=1)
    offers.add(key(1), offers_of(1, range(2)))
    offers.add(key(1), [])
    offers.add(key(2), [])
    assert seeds(offers) == [0, 1]
    assert offers.authors == 1


def test_old_announcements_expire_whatever_came_after_them() -> None:
    offers = Offers(keep_announcements=2)
    offers.add(key(1), offers_of(1, range(0, 1), created=20.0))
    offers.add(key(1), offers_of(1, range(1, 2), created=9.0))  # overtaken on the way
    offers.add(key(2), offers_of(2, range(2, 3), created=9.0))
    offers.expire(oldest=10.0)
    assert seeds(offers) == [0]
    assert offers.authors == 1


def test_what_is_announced_again_is_one_offer_as_last_announced() -> None:
    offers = Offers(keep_announcements=2)
    (first,) = offers_of(1, range(5, 6))
    again = dataclasses.replace(first, created=3.0, item=first.item._replace(frame_bytes=999))
    offers.add(key(1), [first])
    offers.add(key(1), [again])
    assert list(offers.current().values()) == [again]


def test_the_author_silent_for_longest_is_forgotten_first() -> None:
    offers = Offers(keep_announcements=1, max_authors=2)
    offers.add(key(1), offers_of(1, range(1, 2)))
    offers.add(key(2), offers_of(2, range(2, 3)))
    offers.add(key(1), offers_of(1, range(4, 5)))
    offers.add(key(3), offers_of(3, range(3, 4)))
    assert seeds(offers) == [3, 4]


def test_a_flood_of_authors_and_announcements_stays_within_bounds() -> None:
    offers = Offers(keep_announcements=2, max_authors=8)
    for author in range(40):
        for _ in range(5):
            offers.add(key(author), offers_of(author, range(MAX_ITEMS)))
    assert offers.authors == 8
    assert len(offers.current()) <= 8 * 2 * MAX_ITEMS
    assert MAX_AUTHORS * 2 * MAX_ITEMS == 131_072  # as the comment at the constant says


def test_recent_ids_are_bounded_in_number_and_time() -> None:
    ids = RecentIds(max_items=3, lifetime_s=10.0)
    for second in range(4):
        ids.add(key(second), float(second))
    assert [key(n) in ids for n in range(4)] == [False, True, True, True]
    ids.add(key(1), 4.0)  # the newest again
    ids.add(key(9), 13.5)  # 2 and 3 were added at 2 s and 3 s: before 13.5 − 10
    assert list(ids.times().items()) == [(key(1), 4.0), (key(9), 13.5)]
    assert len(ids) == 2


def test_a_flood_of_strangers_pushes_out_strangers_only() -> None:
    offers = Offers(keep_announcements=1, max_authors=3, is_known=lambda author: author == key(0))
    offers.add(key(0), offers_of(0, range(1)))
    for author in range(1, 50):
        offers.add(key(author), offers_of(author, range(author, author + 1)))
    assert seeds(offers) == [0, 48, 49]
    all_known = Offers(keep_announcements=1, max_authors=2, is_known=lambda author: True)
    for author in range(5):
        all_known.add(key(author), offers_of(author, range(author, author + 1)))
    assert seeds(all_known) == [3, 4]


def test_what_an_author_offers_is_dropped_at_once() -> None:
    offers = Offers(keep_announcements=1)
    offers.add(key(1), offers_of(1, range(2)))
    offers.drop(key(1))
    offers.drop(key(1))
    assert offers.authors == 0
