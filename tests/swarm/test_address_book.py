"""The book of peers: what it keeps, forgets and makes of a file that somebody else wrote."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.names import peer_id
from swarmnode.swarm.address_book import MAX_ADDRESSES, MAX_PEERS, AddressBook

A, B, C = (peer_id(bytes([i] * 32)) for i in range(3))


def where(number: int = 1) -> str:
    return f"/ip4/192.0.2.1/tcp/{number}"


def peers(book: AddressBook, now: float) -> list[str]:
    return [known.peer for known in book.due(now)]


def test_what_one_run_met_the_next_one_dials_newest_first(tmp_path: Path) -> None:
    book = AddressBook(tmp_path / "peers.json")
    book.connected(A, [where(1)], now=10.0)
    book.connected(B, [where(2), where(3)], now=20.0)
    assert book.save() == ""
    assert (tmp_path / "peers.json").stat().st_mode & 0o777 == 0o600
    later = AddressBook(tmp_path / "peers.json")
    assert later.load(now=30.0) == ""
    assert peers(later, 30.0) == [B, A]
    assert later.addresses(B) == (where(2), where(3))
    assert [path.name for path in tmp_path.iterdir()] == ["peers.json"]


def test_of_one_peer_the_newest_addresses_are_kept() -> None:
    book = AddressBook()
    for number in range(1, 9):
        book.connected(A, [where(number)], now=float(number))
    assert book.addresses(A) == tuple(where(number) for number in (8, 7, 6, 5))
    assert len(book.addresses(A)) == MAX_ADDRESSES
    book.connected(B, [], now=1.0)
    assert len(book) == 1  # nobody knows where


def test_above_the_limit_those_go_that_failed_most_then_the_oldest() -> None:
    book = AddressBook()
    ids = [peer_id(number.to_bytes(32)) for number in range(MAX_PEERS + 2)]
    for number, peer in enumerate(ids[:-2]):
        book.connected(peer, [where()], now=float(number))
    book.failed(ids[7], 100.0, is_alone=False)
    book.connected(ids[-2], [where()], now=200.0)
    book.connected(ids[-1], [where()], now=201.0)
    assert len(book) == MAX_PEERS
    assert book.addresses(ids[7]) == ()
    assert book.addresses(ids[0]) == ()
    assert book.addresses(ids[1]) != ()


def test_a_peer_that_fails_waits_longer_each_time_and_is_forgotten_in_the_end() -> None:
    book = AddressBook()
    book.connected(A, [where()], now=0.0)
    now, waits = 0.0, []
    while len(book):
        book.failed(A, now, is_alone=False)
        if not len(book):
            break
        assert peers(book, now) == []
        wait = next(s for s in range(1, 60) if peers(book, now + s))
        waits.append(wait)
        now += wait
    assert waits == sorted(waits)
    assert max(waits[:8]) == 15  # within half a minute of its return
    assert max(waits) == 45  # within a minute, when it was gone for longer
    assert sum(waits) > 600  # the halves of a swarm that was cut in two for ten minutes meet again


def test_failures_while_alone_forget_nobody() -> None:
    book = AddressBook()
    book.connected(A, [where()], now=0.0)
    for number in range(1000):
        book.failed(A, float(number), is_alone=True)
    assert peers(book, 2000.0) == [A]


def test_a_connection_ends_the_wait() -> None:
    book = AddressBook()
    book.connected(A, [where()], now=0.0)
    book.failed(A, 1.0, is_alone=False)
    assert peers(book, 1.5) == []
    book.connected(A, [where()], now=1.2)
    assert peers(book, 1.5) == [A]


def entry(**changes: Any) -> dict[str, Any]:
    return {"addresses": [where()], "seen": 1.0, "failures": 0, **changes}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 100,
        b"[]",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b" " * 300_000,
        json.dumps({"version": 2, "peers": {}}).encode(),
        json.dumps({"version": 1, "peers": {A: entry(addresses=[])}}).encode(),
        json.dumps({"version": 1, "peers": {A: entry(addresses=["x" * 256])}}).encode(),
        json.dumps({"version": 1, "peers": {A: entry(failures=-1)}}).encode(),
        json.dumps({"version": 1, "peers": {A: entry(seen="now")}}).encode(),
        json.dumps({"version": 1, "peers": {A: entry(more=1)}}).encode(),
        b'{"version":1,"peers":{"a":{"addresses":["/ip4/1.1.1.1/tcp/1"],"seen":1e999}}}',
    ],
    ids=range(14),
)
def test_a_damaged_file_costs_its_content_and_is_said(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "peers.json"
    path.write_bytes(content)
    book = AddressBook(path)
    said = book.load(now=5.0)
    assert str(path) in said
    assert "\n" not in said
    assert len(book) == 0
    book.connected(B, [where()], now=6.0)
    assert book.save() == ""
    again = AddressBook(path)
    assert again.load(now=7.0) == ""
    assert peers(again, 7.0) == [B]


def test_hostile_entries_are_skipped_and_the_rest_is_bounded(tmp_path: Path) -> None:
    listed = {peer_id(i.to_bytes(32)): entry(seen=1e12) for i in range(200)}
    listed |= {"not a peer": entry(), A: entry(addresses=["/unix/etc/passwd", "../..", where(7)])}
    path = tmp_path / "peers.json"
    path.write_text(json.dumps({"version": 1, "peers": listed}))
    book = AddressBook(path)
    assert book.load(now=5.0) == ""
    assert len(book) == MAX_PEERS
    assert "not a peer" not in peers(book, 5.0)
    assert book.addresses(A) in ((), (where(7),))
    book.connected(B, [where()], now=6.0)
    assert peers(book, 6.0)[0] == B  # a date in the future is of no use to whoever wrote it


@given(st.binary(max_size=300))
def test_no_file_raises(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_bytes(content)
    AddressBook(path).load(now=1.0)


def test_without_a_file_there_is_nothing_to_say(tmp_path: Path) -> None:
    assert AddressBook(tmp_path / "absent.json").load(now=1.0) == ""
    assert AddressBook().save() == ""


def test_a_disk_that_refuses_is_said_and_the_old_book_stays(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    book = AddressBook(folder / "peers.json")
    book.connected(A, [where()], now=1.0)
    assert "cannot write" in book.save()
    folder.mkdir()
    assert book.save() == ""
