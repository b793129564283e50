"""Frames: what is sealed opens in its swarm only, and nothing else ever opens."""

import dataclasses
import tracemalloc

import make_vectors
import msgpack
import pytest
import reference_reader
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from wire_strategies import almost_bodies, messages, mutated, repeated_text, rollouts

from protocol import codec
from protocol.compression import decompress
from protocol.envelope import COMPRESSED_ROLLOUT, Opened, open_frame, seal, signed_bytes
from protocol.errors import ProtocolError, Reason
from protocol.limits import HEADER_BYTES, MAX_FRAME_BYTES, MAX_ROLLOUT_BODY_BYTES
from protocol.messages import Announcement, Kind, Rollout

KEY, OTHER_KEY = make_vectors.KEY, make_vectors.OTHER_KEY
SWARM, OTHER_SWARM = make_vectors.SWARM, make_vectors.OTHER_SWARM
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
seeded = settings(derandomize=True, deadline=None, database=None, max_examples=150)

# What `open_frame` may refuse: the reasons that are read off the bytes.
BYTE_REASONS = set(list(Reason)[:8])


compressed_frames = (
    rollouts(repeated_text)
    .map(lambda rollout: seal(rollout, KEY, SWARM).frame)
    .filter(lambda frame: frame[1] == COMPRESSED_ROLLOUT)
)


def plain_frame(message: Rollout | Announcement) -> bytes:
    return make_vectors.frame(codec.encode(message), codec.kind_of(message))


def refusal(frame: bytes, swarm_id: bytes = SWARM) -> Reason | None:
    """Why a frame is refused, or None; anything but a message or `ProtocolError` escapes."""
    reason = None
    try:
        opened = open_frame(frame, swarm_id)
    except ProtocolError as error:
        reason = error.reason
    else:
        assert type(opened.message) in (Rollout, Announcement)
    assert reason is None or reason in BYTE_REASONS
    return reason


@given(messages)
@seeded
def test_sealed_messages_open_to_equal_ones(message: Rollout | Announcement) -> None:
    sealed = seal(message, KEY, SWARM)
    author = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
    assert open_frame(sealed.frame, SWARM) == Opened(sealed.id, author, message)


@given(
    st.binary(max_size=400)
    | st.binary(max_size=300).map(lambda tail: b"\x01\x01" + tail)
    | st.binary(max_size=300).map(lambda tail: b"\x01\x03" + bytes(96) + ZSTD_MAGIC + tail)
)
@seeded
def test_random_bytes_are_refused(data: bytes) -> None:
    assert refusal(data) is not None


@given(mutated(messages.map(lambda message: seal(message, KEY, SWARM).frame)))
@seeded
def test_changed_frames_are_refused_or_unchanged(data: bytes) -> None:
    if refusal(data) is None:  # the change was none
        opened = open_frame(data, SWARM)
        # Of compressed bytes some do not matter; of what is signed every one does.
        assert opened.id == seal(opened.message, KEY, SWARM).id
        assert data[1] == COMPRESSED_ROLLOUT or data == plain_frame(opened.message)


@given(mutated(compressed_frames))
@settings(seeded, max_examples=400)
def test_changed_compressed_frames_are_refused_or_mean_the_same(data: bytes) -> None:
    if refusal(data) is None:
        opened = open_frame(data, SWARM)
        assert opened.id == seal(opened.message, KEY, SWARM).id


@given(mutated(compressed_frames.map(lambda frame: frame[HEADER_BYTES:])))
@settings(seeded, max_examples=400)
def test_changed_compressed_contents_are_a_body_within_bounds_or_a_refusal(data: bytes) -> None:
    # Without the signature's check after it, so that what gets through is seen.
    try:
        body = decompress(data, MAX_ROLLOUT_BODY_BYTES)
    except ProtocolError as error:
        assert error.reason is Reason.BAD_COMPRESSION  # noqa: PT017  # either is right
    else:
        assert len(data) < len(body) <= MAX_ROLLOUT_BODY_BYTES


@pytest.mark.slow
@given(almost_bodies(), st.sampled_from(Kind))
@settings(seeded, max_examples=400)
def test_signed_hostile_bodies_are_a_message_or_a_refusal(body: bytes, kind: Kind) -> None:
    frame = make_vectors.frame(body, kind)
    if refusal(frame) is None:
        assert plain_frame(open_frame(frame, SWARM).message) == frame


@pytest.mark.slow
@given(almost_bodies())
@seeded
def test_signed_hostile_bodies_compressed_are_judged_as_they_are_uncompressed(body: bytes) -> None:
    content = zstandard.ZstdCompressor().compress(body)
    reason = refusal(make_vectors.compressed_frame(body, content))
    if len(content) >= len(body):
        assert reason is Reason.BAD_COMPRESSION
    else:
        assert reason is refusal(make_vectors.frame(body))


@given(st.binary(max_size=200), st.sampled_from(Kind))
@settings(seeded, max_examples=400)
def test_signed_random_bodies_are_refused(body: bytes, kind: Kind) -> None:
    assert refusal(make_vectors.frame(body, kind)) is Reason.MALFORMED


def test_frame_opens_in_its_own_swarm_only() -> None:
    frame = make_vectors.frame(make_vectors.rollout_body())
    assert refusal(frame, SWARM) is None
    assert refusal(frame, OTHER_SWARM) is Reason.BAD_SIGNATURE


def test_signature_over_the_body_alone_would_open_in_every_swarm_and_as_every_kind() -> None:
    # The defence switched off: were only author and body signed, one signature fitted all.
    body = make_vectors.rollout_body()
    key = make_vectors.SigningKey(KEY)
    author = bytes(key.verify_key)
    signature = key.sign(author + body).signature
    for _swarm in (SWARM, OTHER_SWARM):
        key.verify_key.verify(author + body, signature)
    for swarm_id in (SWARM, OTHER_SWARM):
        assert refusal(b"\x01\x01" + author + signature + body, swarm_id) is Reason.BAD_SIGNATURE


def test_signed_bytes_differ_by_kind_and_swarm() -> None:
    cases = {
        signed_bytes(kind, swarm_id, bytes(32), b"body")
        for kind in Kind
        for swarm_id in (SWARM, OTHER_SWARM)
    }
    assert len(cases) == 4
    # "swarmnode/1/rollout" and NUL: 20 bytes; swarm, author, body: 32 + 32 + 4.
    assert len(signed_bytes(Kind.ROLLOUT, SWARM, bytes(32), b"body")) == 20 + 32 + 32 + 4


def test_small_order_key_signs_anything_for_a_naive_verifier_but_not_here() -> None:
    # Author = R = the neutral point, s = 0: 0·B = R + h·A holds for every message.
    neutral = b"\x01" + bytes(31)
    body = make_vectors.rollout_body()
    signed = signed_bytes(Kind.ROLLOUT, SWARM, neutral, body)
    signature = neutral + bytes(32)
    assert reference_reader.verify(neutral, signed, signature)
    assert refusal(b"\x01\x01" + neutral + signature + body) is Reason.BAD_SIGNATURE


def test_signature_with_s_above_the_group_order_is_refused() -> None:
    # s + L satisfies the equation too: a stranger could make a second frame of the same content.
    frame = make_vectors.frame(make_vectors.rollout_body())
    s = int.from_bytes(frame[66:98], "little") + reference_reader.L
    twin = frame[:66] + s.to_bytes(32, "little") + frame[98:]
    assert refusal(twin) is Reason.BAD_SIGNATURE


def test_one_body_has_one_id_whatever_its_signature() -> None:
    # Ed25519 lets an author sign once more with another nonce; the id must not follow.
    body = make_vectors.rollout_body()
    frame = make_vectors.frame(body)
    again = frame[:34] + _sign_with_nonce(body, nonce=12345) + body
    assert again != frame
    assert open_frame(again, SWARM).id == open_frame(frame, SWARM).id


def _sign_with_nonce(body: bytes, nonce: int) -> bytes:
    """Ed25519 with a nonce of the signer's choice (RFC 8032 derives it from the message)."""
    import hashlib

    from nacl import bindings

    secret = hashlib.sha512(KEY).digest()
    scalar = int.from_bytes(secret[:32], "little") & (2**254 - 8) | 2**254
    author = bytes(make_vectors.SigningKey(KEY).verify_key)
    point = bindings.crypto_scalarmult_ed25519_base_noclamp(nonce.to_bytes(32, "little"))
    signed = signed_bytes(Kind.ROLLOUT, SWARM, author, body)
    h = int.from_bytes(hashlib.sha512(point + author + signed).digest(), "little")
    s = (nonce + h * scalar) % reference_reader.L
    return point + s.to_bytes(32, "little")


def test_without_the_canonical_check_one_rollout_would_have_many_ids() -> None:
    canonical = make_vectors.rollout_body()
    longer = make_vectors.rollout_body(f1=b"\xcd\x00\x01")
    assert msgpack.unpackb(canonical) == msgpack.unpackb(longer)  # the same content to a reader
    assert refusal(make_vectors.frame(canonical)) is None
    assert refusal(make_vectors.frame(longer)) is Reason.NOT_CANONICAL


def test_hostile_nesting_costs_a_generic_decoder_memory_but_not_this_one() -> None:
    # A rollout of the largest size whose texts are lists of empty lists: each byte becomes a
    # 56-byte object for a decoder that builds what it reads.
    empties = b"\xdd" + (200_000).to_bytes(4, "big") + b"\x90" * 200_000
    body = make_vectors.rollout_body(f7=b"\x91" + empties)
    frame = make_vectors.frame(body)
    assert len(frame) <= MAX_FRAME_BYTES

    generic = _peak_bytes(lambda: msgpack.unpackb(body))
    ours = _peak_bytes(lambda: refusal(frame))
    assert generic > 10_000_000
    assert ours < 4 * MAX_FRAME_BYTES  # copies of the bytes for verifying, nothing decoded


def _peak_bytes(action) -> int:  # type: ignore[no-untyped-def]  # any callable
    tracemalloc.start()
    action()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_declared_lengths_allocate_nothing() -> None:
    for ending in (b"\xdd\xff\xff\xff\xff", b"\x91\xdb\xff\xff\xff\xff"):
        frame = make_vectors.frame(make_vectors.rollout_body(f7=ending))
        assert _peak_bytes(lambda frame=frame: refusal(frame)) < 100_000


def test_text_one_byte_above_the_limit_is_refused_and_at_the_limit_taken() -> None:
    for size, expected in ((32_768, None), (32_769, Reason.MALFORMED)):
        text = b"\xda" + size.to_bytes(2, "big") + b"x" * size
        assert refusal(make_vectors.frame(make_vectors.rollout_body(f7=b"\x91" + text))) is expected
    # 16,385 two-byte characters: within the field's character count, above the byte limit.
    text = b"\xda" + (32_770).to_bytes(2, "big") + "é".encode() * 16_385
    frame = make_vectors.frame(make_vectors.rollout_body(f7=b"\x91" + text))
    assert refusal(frame) is Reason.OUT_OF_BOUNDS


def test_seal_refuses_what_peers_would_refuse() -> None:
    good = open_frame(make_vectors.frame(make_vectors.rollout_body()), SWARM).message
    assert type(good) is Rollout
    bad = Rollout(
        **{field: getattr(good, field) for field in good.__struct_fields__} | {"seed": -1}
    )
    with pytest.raises(ValueError, match="malformed"):
        seal(bad, KEY, SWARM)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_swarm_id_of_wrong_length_is_our_bug(length: int) -> None:
    with pytest.raises(ValueError, match="swarm_id"):
        open_frame(make_vectors.frame(make_vectors.rollout_body()), bytes(length))


def test_opened_is_immutable() -> None:
    opened = open_frame(make_vectors.frame(make_vectors.rollout_body()), SWARM)
    with pytest.raises(dataclasses.FrozenInstanceError):
        opened.author = bytes(32)  # type: ignore[misc]  # the point of the test
    assert HEADER_BYTES == 98
