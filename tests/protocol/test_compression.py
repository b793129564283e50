"""Compressed bodies: what is saved, and that no bytes make a receiver allocate beyond its limit.

The attacks are shown to succeed against the library's plain calls first.
"""

import random
import tracemalloc
from collections.abc import Callable

import make_vectors
import pytest
import zstandard
from make_vectors import run_block, zstd

from protocol.compression import MIN_SAVING_BYTES, compress, decompress
from protocol.envelope import COMPRESSED_ROLLOUT, open_frame, seal
from protocol.errors import ProtocolError, Reason
from protocol.limits import HEADER_BYTES, MAX_FRAME_BYTES, MAX_ROLLOUT_BODY_BYTES
from protocol.messages import Rollout

LIMIT = MAX_ROLLOUT_BODY_BYTES
BODY = make_vectors.rollout_body(f7=make_vectors.RUN_TEXT)
GOOD = make_vectors.with_run(BODY)
MEGABYTE = 2**20

# 512 runs of 128 KiB in 2 KB: 64 MiB.
RUNS = run_block(b"a", 128 * 1024) * 511 + run_block(b"a", 128 * 1024, last=True)
BOMB_UNSTATED = zstd(RUNS, size=None, window=0x58)
BOMB_STATED = zstd(RUNS, size=64 * MEGABYTE)
BOMB_LYING = zstd(RUNS, size=LIMIT)


def refusal(data: bytes) -> Reason | None:
    try:
        decompress(data, LIMIT)
    except ProtocolError as error:
        return error.reason
    return None


def peak_bytes(action: Callable[[], object]) -> int:
    tracemalloc.start()
    action()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_round_trips_at_every_size_up_to_the_limit() -> None:
    rng = random.Random(1)
    words = [bytes(rng.choices(b"abcdefghij0123456789", k=5)) for _ in range(40)]
    for size in (255, 256, 65_791, 65_792, LIMIT):
        body = b" ".join(rng.choices(words, k=size // 6 + 1))[:size]
        data = compress(body)
        assert data is not None
        assert decompress(data, LIMIT) == body


def test_compresses_only_where_it_saves_the_margin() -> None:
    letters = bytes(random.Random(1).choices(range(256), k=200))
    taken = []
    for run in range(60):
        body = letters + b"a" * run
        data = compress(body)
        saved = len(body) - len(zstandard.ZstdCompressor(level=3).compress(body))
        assert (data is not None) == (saved >= MIN_SAVING_BYTES)
        taken.append(data is not None)
    assert set(taken) == {False, True}


def test_a_stream_expands_every_bomb_and_a_stated_size_overrides_the_output_limit() -> None:
    # The library's plain calls, without the checks of `decompress`.
    for bomb in (BOMB_UNSTATED, BOMB_STATED):
        assert len(bomb) < 2100
        assert len(zstandard.ZstdDecompressor().decompressobj().decompress(bomb)) == 64 * MEGABYTE
    plain = zstandard.ZstdDecompressor().decompress(BOMB_STATED, max_output_size=LIMIT)
    assert len(plain) == 64 * MEGABYTE


@pytest.mark.parametrize("bomb", [BOMB_UNSTATED, BOMB_STATED, BOMB_LYING])
def test_refuses_a_bomb_in_bounded_memory(bomb: bytes) -> None:
    assert refusal(bomb) is Reason.BAD_COMPRESSION
    frame = make_vectors.compressed_frame(BODY, bomb)
    assert peak_bytes(lambda: _opened(frame)) < 2 * LIMIT


def test_a_bomb_behind_the_largest_frame_is_refused_in_bounded_memory() -> None:
    runs = run_block(b"a", 128 * 1024) * ((MAX_FRAME_BYTES - HEADER_BYTES) // 4 - 10)
    for size in (None, LIMIT, 2**32 - 1):
        data = zstd(runs, run_block(b"a", 1, last=True), size=size, window=0x40)
        assert peak_bytes(lambda data=data: refusal(data)) < 2 * LIMIT
        assert refusal(data) is Reason.BAD_COMPRESSION


def _opened(frame: bytes) -> Reason | None:
    try:
        open_frame(frame, make_vectors.SWARM)
    except ProtocolError as error:
        return error.reason
    return None


def test_a_stated_size_allocates_before_a_byte_is_decompressed_unless_it_is_checked() -> None:
    lie = zstd(run_block(b"a", 100, last=True), size=64 * MEGABYTE)

    def plain() -> None:
        with pytest.raises(zstandard.ZstdError):
            zstandard.ZstdDecompressor().decompress(lie, max_output_size=LIMIT)

    assert len(lie) < 20
    assert peak_bytes(plain) > 64 * MEGABYTE
    assert peak_bytes(lambda: refusal(lie)) < 100_000


def test_what_the_library_takes_by_itself_is_refused() -> None:
    size = len(BODY)
    skippable = b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"
    taken = {
        "trailing data": GOOD + b"x",
        "a second frame": GOOD + GOOD,
        "a skippable frame after": GOOD + skippable,
        "two gigabytes of window": zstd(GOOD[9:], size=size, window=0xA8),
        "no smaller": zstd(make_vectors.raw_block(BODY, last=True), size=size),
        "bytes that no block explains": zstd(b"\xff" * 10, size=0),
    }
    for name, data in taken.items():
        assert zstandard.ZstdDecompressor().decompress(data) in (BODY, b""), name
        assert refusal(data) is Reason.BAD_COMPRESSION, name
    assert zstandard.get_frame_parameters(skippable).content_size == 4  # as if it held four bytes
    assert refusal(skippable) is Reason.BAD_COMPRESSION


def test_dictionary_is_refused_even_where_one_would_fit() -> None:
    dictionary = zstandard.ZstdCompressionDict(BODY * 10, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    data = zstandard.ZstdCompressor(dict_data=dictionary).compress(BODY)
    assert zstandard.get_frame_parameters(data).dict_id == 0  # raw content has no id to check
    assert refusal(data) is Reason.BAD_COMPRESSION
    assert refusal(zstd(GOOD[9:], size=len(BODY), dictionary=1)) is Reason.BAD_COMPRESSION


def test_takes_any_level_and_a_checksum() -> None:
    for level in (-5, 1, 3, 19, 22):
        data = zstandard.ZstdCompressor(level=level, write_checksum=True).compress(BODY * 9)
        assert decompress(data, LIMIT) == BODY * 9


def test_body_above_the_limit_is_refused_and_at_the_limit_taken() -> None:
    for size, expected in ((LIMIT, None), (LIMIT + 1, Reason.BAD_COMPRESSION)):
        blocks = run_block(b"a", 128 * 1024) * 2 + run_block(b"a", size - 256 * 1024, last=True)
        assert refusal(zstd(blocks, size=size)) is expected


def test_compressed_frame_has_the_id_of_the_plain_one_whoever_compresses() -> None:
    plain = make_vectors.frame(BODY)
    again = zstandard.ZstdCompressor(level=19, write_checksum=True).compress(BODY)
    frames = [plain, *(make_vectors.compressed_frame(BODY, data) for data in (GOOD, again))]
    assert len({open_frame(frame, make_vectors.SWARM).id for frame in frames}) == 1


def test_seal_compresses_rollouts_and_never_enlarges_them() -> None:
    opened = open_frame(make_vectors.frame(BODY), make_vectors.SWARM)
    assert type(opened.message) is Rollout
    sealed = seal(opened.message, make_vectors.KEY, make_vectors.SWARM)
    assert sealed.frame[1] == COMPRESSED_ROLLOUT
    assert len(sealed.frame) <= HEADER_BYTES + len(BODY) - MIN_SAVING_BYTES
    assert open_frame(sealed.frame, make_vectors.SWARM) == opened


def test_announcements_are_never_compressed() -> None:
    compressed = make_vectors.compressed_frame(BODY, GOOD)
    assert _opened(compressed[:1] + b"\x02" + compressed[2:]) is Reason.BAD_SIGNATURE
    announcement = zstandard.ZstdCompressor().compress(make_vectors.announcement_body() * 9)
    # Signed as a rollout, since the kind byte says so: what comes out is no rollout.
    frame = make_vectors.compressed_frame(make_vectors.announcement_body() * 9, announcement)
    assert _opened(frame) is Reason.MALFORMED
