"""Standing: what is held against an author, what it gave, how both fade, and what a resumed node
knows of it."""

import json

import pytest

from swarmnode.config import TrustSettings
from swarmnode.swarm.standing import Offence, Standing, network_of

NOW = 1_000_000.0
HOUR = 3600.0


def author(number: int) -> bytes:
    return number.to_bytes(32)


def standing(**changes: object) -> Standing:
    return Standing(TrustSettings(**changes))  # type: ignore[arg-type]


def test_who_lies_is_avoided_above_the_limit_and_told_once() -> None:
    kept = standing()
    assert [kept.blame(author(1), Offence.FALSE, NOW) for _ in range(4)] == [
        False,  # 4 points
        False,  # 8
        True,  # 12, of 10
        False,  # avoided already
    ]
    assert kept.is_avoided(author(1), NOW)
    assert not kept.is_avoided(author(2), NOW)


def test_the_limit_itself_is_enough() -> None:
    kept = standing(max_offences=4.0)
    assert kept.blame(author(1), Offence.FALSE, NOW)


def test_with_the_switch_off_nobody_is_avoided() -> None:
    kept = standing(standing=False)
    assert not any(kept.blame(author(1), Offence.FALSE, NOW) for _ in range(9))
    assert not kept.is_avoided(author(1), NOW)


def test_offences_halve_in_an_hour() -> None:
    kept = standing()
    kept.blame(author(1), Offence.FALSE, NOW)
    assert kept.points(author(1), NOW + HOUR) == pytest.approx(2.0)
    assert kept.points(author(1), NOW + 3 * HOUR) == pytest.approx(0.5)
    assert kept.points(author(2), NOW) == 0.0


def test_an_author_that_lies_now_and_then_only_is_not_avoided() -> None:
    kept = standing()
    # One in an hour: 4 + 2 + 1 + … stays below 8.
    assert not any(kept.blame(author(1), Offence.FALSE, NOW + HOUR * n) for n in range(50))


def test_avoidance_ends_and_a_further_offence_brings_it_back() -> None:
    kept = standing()
    for _ in range(3):
        kept.blame(author(1), Offence.FALSE, NOW)
    assert kept.is_avoided(author(1), NOW + 1799)
    assert not kept.is_avoided(author(1), NOW + 1800)
    # 12 points became 8.5 in half an hour.
    assert kept.blame(author(1), Offence.FALSE, NOW + 1800)


def test_a_clock_that_goes_back_neither_raises_nor_forgives() -> None:
    kept = standing()
    kept.blame(author(1), Offence.FALSE, NOW)
    assert kept.points(author(1), NOW - HOUR) == 4.0
    assert kept.points(author(1), NOW) == 4.0


def test_an_author_is_established_after_so_many_rounds() -> None:
    kept = standing()
    for round in range(2):
        kept.credit(author(1), round, NOW)
    kept.credit(author(1), 1, NOW)  # a second rollout in one round counts for nothing
    assert not kept.is_established(author(1))
    kept.credit(author(1), 2, NOW)
    assert kept.is_established(author(1))
    assert not kept.is_established(author(2))


def test_without_a_number_of_rounds_there_are_no_newcomers() -> None:
    assert standing(newcomer_rounds=0).is_established(author(1))


def test_credit_fades_in_days_of_silence() -> None:
    kept = standing()
    for round in range(100):
        kept.credit(author(1), round, NOW)
    # 12 at most; 12 / 2^2 = 3 and 12 / 2^3 = 1.5, where 2.5 are needed.
    kept.locate(author(1), "/ip4/1.2.3.4/tcp/1", NOW + 48 * HOUR)
    assert kept.is_established(author(1))
    kept.locate(author(1), "/ip4/1.2.3.4/tcp/1", NOW + 72 * HOUR)
    assert not kept.is_established(author(1))


def test_newcomers_are_forgotten_before_the_established() -> None:
    kept = standing(max_authors=10)
    for round in range(3):
        kept.credit(author(1), round, NOW)
    for number in range(2, 1000):
        kept.blame(author(number), Offence.WITHHELD, NOW)
    assert len(kept) == 10
    assert kept.is_established(author(1))
    assert kept.points(author(2), NOW) == 0.0
    assert kept.points(author(999), NOW) == 1.0


def test_the_established_are_bounded_too() -> None:
    kept = standing(max_authors=10, newcomer_rounds=1)
    for number in range(100):
        kept.credit(author(number), 1, NOW)
    assert len(kept) == 10
    assert not kept.is_established(author(89))
    assert kept.is_established(author(90))


def test_a_resumed_node_knows_what_it_knew() -> None:
    before = standing()
    for round in range(3):
        before.credit(author(1), round, NOW)
    for _ in range(3):
        before.blame(author(2), Offence.FALSE, NOW)
    before.locate(author(1), "/ip4/203.0.113.7/tcp/1", NOW)
    after = standing()
    after.load_state(json.loads(json.dumps(before.state())))
    assert after.is_established(author(1))
    assert after.network(author(1)) == "203.0.113.0/24"
    assert after.is_avoided(author(2), NOW)
    assert after.state() == before.state()


FIELDS = [NOW, 1.0, 3.0, 2, 0.0, "203.0.113.0/24"]


@pytest.mark.parametrize(
    "fields",
    [
        None,
        [],
        FIELDS[:5],
        [*FIELDS, 1],
        [float("nan"), *FIELDS[1:]],
        [NOW, float("inf"), *FIELDS[2:]],
        [NOW, True, *FIELDS[2:]],
        [NOW, "1", *FIELDS[2:]],
        [*FIELDS[:5], 7],
        [*FIELDS[:5], "x" * 65],
    ],
)
def test_a_record_that_this_node_cannot_have_written_is_left_out(fields: object) -> None:
    kept = standing()
    records = {author(1).hex(): fields, author(2).hex(): FIELDS, "abc": FIELDS}
    kept.load_state({"records": records, "since": None, "round": 0})
    assert list(kept.state()["records"]) == [author(2).hex()]


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("/ip4/203.0.113.7/tcp/4001/p2p/x", "203.0.113.0/24"),
        ("/ip4/203.0.113.255/udp/1/quic-v1", "203.0.113.0/24"),
        ("/ip4/203.0.114.0/tcp/1", "203.0.114.0/24"),
        ("/ip6/2001:db8:1:ffff::1/tcp/1", "2001:db8:1::/48"),
        ("/ip6/::ffff:203.0.113.7/tcp/1", "203.0.113.0/24"),
        ("/ip4/203.0.113.7/tcp/1/p2p/x/p2p-circuit", "relay:203.0.113.0/24"),
        ("/dns4/example.org/tcp/1", ""),
        ("/ip4/no/tcp/1", ""),
        ("/ip4", ""),
        ("", ""),
    ],
)
def test_the_network_of_an_address(address: str, network: str) -> None:
    assert network_of(address) == network


def test_an_unknown_address_does_not_hide_what_was_known() -> None:
    kept = standing()
    assert kept.network(author(1)) == ""
    kept.locate(author(1), "/ip4/203.0.113.7/tcp/1", NOW)
    kept.locate(author(1), "", NOW)
    assert kept.network(author(1)) == "203.0.113.0/24"
