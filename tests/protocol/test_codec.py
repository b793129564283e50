"""What streams carry: blocks, fetch, hello. Any bytes give a value or a `ProtocolError`."""

from collections.abc import Callable

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import codec
from protocol.errors import ProtocolError, Reason
from protocol.limits import MAX_FETCH_IDS, MAX_FETCH_RESPONSE_BYTES, MAX_FRAME_BYTES
from protocol.messages import Hello

SWARM = bytes(range(32))
seeded = settings(derandomize=True, deadline=None, database=None, max_examples=200)
IDS = [bytes([n] * 32) for n in range(MAX_FETCH_IDS + 1)]
HELLO = Hello.build(swarm_id=SWARM, swarm_name="demo", software="swarmnode 0.1.0", model_label="m")


def refusal(action: Callable[[], object]) -> Reason | None:
    try:
        action()
    except ProtocolError as error:
        return error.reason
    return None


def test_fetch_request_round_trips() -> None:
    assert codec.decode_fetch_request(codec.encode_fetch_request(IDS[:8])) == tuple(IDS[:8])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", Reason.MALFORMED),
        (bytes(31), Reason.MALFORMED),
        (bytes(33), Reason.MALFORMED),
        (bytes(64), Reason.OUT_OF_BOUNDS),  # the same id twice
        (b"".join(IDS), Reason.TOO_LARGE),
    ],
)
def test_refuses_fetch_request(data: bytes, reason: Reason) -> None:
    assert refusal(lambda: codec.decode_fetch_request(data)) is reason


@pytest.mark.parametrize(
    "ids", [[], IDS, [IDS[0], IDS[0]], [b"short"], [bytes(16), bytes([1] * 48)]]
)
def test_own_bad_fetch_request_is_a_bug(ids: list[bytes]) -> None:
    with pytest.raises(ValueError, match="id"):
        codec.encode_fetch_request(ids)


def test_fetch_response_round_trips() -> None:
    frames = [b"one", None, b"x" * 70_000]
    assert codec.decode_fetch_response(codec.encode_fetch_response(frames), 3) == tuple(frames)


def test_fetch_response_read_block_by_block_is_the_same() -> None:
    stream = codec.encode_fetch_response([b"one", None])
    assert stream == b"\x00\x00\x00\x03one\x00\x00\x00\x00"
    assert codec.block_length(stream[:4], MAX_FRAME_BYTES) == 3
    assert codec.block_length(stream[7:], MAX_FRAME_BYTES) == 0


@pytest.mark.parametrize(
    ("data", "count", "reason"),
    [
        (b"", 1, Reason.MALFORMED),
        (b"\x00\x00\x00", 1, Reason.MALFORMED),
        (b"\x00\x00\x00\x02a", 1, Reason.MALFORMED),
        (b"\x00\x00\x00\x01ab", 1, Reason.MALFORMED),
        (b"\x00\x00\x00\x01a", 2, Reason.MALFORMED),
        ((MAX_FRAME_BYTES + 1).to_bytes(4, "big"), 1, Reason.TOO_LARGE),
        (b"\xff\xff\xff\xff", 1, Reason.TOO_LARGE),
        (bytes(MAX_FETCH_RESPONSE_BYTES + 1), 1, Reason.TOO_LARGE),
    ],
)
def test_refuses_fetch_response(data: bytes, count: int, reason: Reason) -> None:
    assert refusal(lambda: codec.decode_fetch_response(data, count)) is reason


@given(st.binary(max_size=300), st.integers(0, 8))
@seeded
def test_any_stream_bytes_are_a_value_or_a_refusal(data: bytes, count: int) -> None:
    refusal(lambda: codec.decode_fetch_request(data))
    refusal(lambda: codec.decode_fetch_response(data, count))
    refusal(lambda: codec.decode_hello(data))
    refusal(lambda: codec.block_length(data, 1000))


@given(
    st.lists(
        st.none()
        | st.booleans()
        | st.integers(-5, 300)
        | st.text(max_size=70)
        | st.binary(max_size=40),
        max_size=9,
    )
)
@seeded
def test_any_hello_fields_are_a_value_or_a_refusal(fields: list) -> None:
    refusal(lambda: codec.decode_hello(msgpack.packb(fields)))


def test_hello_round_trips_and_skips_what_later_versions_append() -> None:
    assert codec.decode_hello(codec.encode_hello(HELLO)) == HELLO
    six = msgpack.unpackb(codec.encode_hello(HELLO))
    for more in ([1], [{"a": [None, -1.5]}, "b"], [msgpack.Timestamp(1, 2)], [[[[]]]]):
        assert codec.decode_hello(msgpack.packb(six + more)) == HELLO


def test_hello_with_deeply_nested_appendix_is_refused() -> None:
    six = msgpack.packb([*msgpack.unpackb(codec.encode_hello(HELLO)), None])
    # Within the size limit, so only the skipping itself is tried.
    nested = six[:-1] + b"\x91" * 300 + b"\xc0"
    assert codec.decode_hello(nested) == HELLO
    assert refusal(lambda: codec.decode_hello(six[:-1] + b"\x91" * 600)) is Reason.TOO_LARGE


def test_largest_hello_leaves_room_for_later_fields() -> None:
    # 1 + 2 × 2 (u8 above 127) + 34 + 2 + 64 + 2 + 32 (str 8) + 1 + 16.
    largest = Hello(255, 255, SWARM, "n" * 64, "s" * 32, "m" * 16)
    assert len(codec.encode_hello(largest)) == 156


def test_parser_failures_of_every_listed_kind_become_malformed() -> None:
    errors = (RecursionError, OverflowError, MemoryError, UnicodeDecodeError)
    arguments = {UnicodeDecodeError: ("utf-8", b"", 0, 1, "no")}
    for error in errors:

        def failing(_data: bytes, error: type[Exception] = error) -> None:
            raise error(*arguments.get(error, ()))

        assert refusal(lambda failing=failing: codec._parse(failing, b"")) is Reason.MALFORMED
