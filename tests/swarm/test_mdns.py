"""Multicast DNS packets: the standard's bytes, and everybody else's."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmnode.swarm import mdns
from swarmnode.swarm.mdns import Asked, Told, answer, parse, question

SERVICE = "_p2p-00ff._udp.local"
OTHER = "_p2p-11ee._udp.local"
ADDRESS = "/ip4/192.168.1.7/tcp/4001/p2p/12D3KooWQK1wnefoLrcVHbbnf5tLzbopUd3K3bFAoJpA7YJgL5pV"
NAME = b"\x09_p2p-00ff\x04_udp\x05local\x00"


def test_the_question_is_the_standards_byte_for_byte() -> None:
    # RFC 1035 4.1.1: id 0, flags 0, one question; 4.1.2: name, type PTR (12), class IN (1).
    assert question(SERVICE) == bytes(5) + b"\x01" + bytes(6) + NAME + b"\x00\x0c\x00\x01"


def test_the_answer_is_the_standards_byte_for_byte() -> None:
    text = b"dnsaddr=" + ADDRESS.encode()
    instance = b"\x02me" + NAME
    expected = (
        b"\x00\x00\x84\x00\x00\x00\x00\x01\x00\x00\x00\x01"  # authoritative answer, 1 + 1 records
        + NAME + b"\x00\x0c\x00\x01\x00\x00\x00\x78" + struct.pack("!H", len(instance)) + instance
        + instance + b"\x00\x10\x00\x01\x00\x00\x00\x78" + struct.pack("!H", len(text) + 1)
        + bytes((len(text),)) + text
    )  # fmt: skip
    assert answer(SERVICE, "me", [ADDRESS]) == expected


def test_reads_what_it_writes_and_nothing_of_other_services() -> None:
    assert parse(question(SERVICE), SERVICE) == Asked()
    assert parse(answer(SERVICE, "me", [ADDRESS, ADDRESS]), SERVICE) == Told((ADDRESS, ADDRESS))
    assert parse(question(OTHER), SERVICE) is None
    assert parse(answer(OTHER, "me", [ADDRESS]), SERVICE) is None
    assert parse(question(SERVICE).upper(), SERVICE) == Asked()  # names have no case


def test_reads_compressed_names_as_other_programs_write_them() -> None:
    text = b"dnsaddr=" + ADDRESS.encode()
    packet = (
        b"\x00\x00\x84\x00\x00\x00\x00\x01\x00\x00\x00\x01"
        + NAME + b"\x00\x0c\x00\x01\x00\x00\x00\x78\x00\x05" + b"\x02me\xc0\x0c"
        # The instance's name begins 10 bytes into the record data that follows the first name.
        + b"\xc0" + bytes((12 + len(NAME) + 10,)) + b"\x00\x10\x80\x01\x00\x00\x00\x78"
        + struct.pack("!H", len(text) + 1) + bytes((len(text),)) + text
    )  # fmt: skip
    assert parse(packet, SERVICE) == Told((ADDRESS,))


def test_an_answer_is_bounded_in_addresses_and_packet() -> None:
    many = [f"/ip4/10.0.0.1/tcp/{port}" for port in range(100)]
    told = parse(answer(SERVICE, "me", many), SERVICE)
    assert told == Told(tuple(many[:8]))
    assert parse(answer(SERVICE, "me", ["/" + "x" * 300]), SERVICE) is None
    assert parse(bytes(9001), SERVICE) is None


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        bytes(11),
        bytes(12),
        b"\x00\x00\x84\x00" + b"\xff" * 8,  # 65,535 records of each kind
        b"\x00\x00\x00\x00\x00\x01" + bytes(6) + b"\xc0\x0c",  # a pointer to itself
        b"\x00\x00\x00\x00\x00\x01" + bytes(6) + b"\xc0\xff\x00\x0c\x00\x01",  # beyond the end
        b"\x00\x00\x00\x00\x00\x01" + bytes(6) + b"\x41" + bytes(70),  # a reserved kind of label
        b"\x00\x00\x00\x00\x00\x01" + bytes(6) + b"\x3f" * 500,  # a name without end
        question(SERVICE)[:-1],
        answer(SERVICE, "me", [ADDRESS])[:-1],
        answer(SERVICE, "me", [ADDRESS]).replace(b"dnsaddr", b"dnsXddr"),
        answer(SERVICE, "me", [ADDRESS]).replace(b"/ip4", b"\xff\xff\xff\xff"),
    ],
    ids=range(12),
)
def test_what_is_malformed_is_nothing(packet: bytes) -> None:
    assert parse(packet, SERVICE) is None


@given(st.binary(max_size=200))
def test_no_packet_raises(packet: bytes) -> None:
    parse(packet, SERVICE)


@given(st.binary(max_size=100), st.integers(0, 11))
def test_no_changed_answer_raises(noise: bytes, at: int) -> None:
    packet = bytearray(answer(SERVICE, "me", [ADDRESS]))
    packet[at : at + len(noise)] = noise
    parse(bytes(packet), SERVICE)


def test_a_service_that_is_no_name_is_our_own_mistake() -> None:
    with pytest.raises(ValueError, match="no domain name"):
        mdns.question("_p2p-" + "0" * 64 + "._udp.local")
