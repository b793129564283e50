"""Boundaries and wordings of the validators that no other test pins down: each stands here because
a mutant survived without it (`mutation.py`)."""

import hashlib
import random

import msgspec
import pytest
from nacl.signing import SigningKey

from protocol import codec, envelope, limits
from protocol.errors import ProtocolError, Reason
from protocol.messages import Announcement, Hello, Item, Kind, Rollout
from protocol.names import WHOLE, peer_id
from swarmnode.config import TrustSettings
from swarmnode.swarm import admission
from swarmnode.swarm.quota import Buckets, Quota
from swarmnode.swarm.standing import Standing

SWARM = bytes([7] * 32)
SEED = bytes([1] * 32)
AUTHOR = bytes(SigningKey(SEED).verify_key)
ME = bytes(SigningKey(bytes([2] * 32)).verify_key)
OTHER = bytes(SigningKey(bytes([3] * 32)).verify_key)
NOW = 1_000_000.0


def announcement(items: int = 2) -> Announcement:
    offered = [Item(bytes([n] * 32), b"add1", n, 300) for n in range(items)]
    return Announcement.build(
        round=1, created=NOW, policy_version=0, model_label="tiny", items=offered
    )


def rollout(text: str = "a") -> Rollout:
    return Rollout.build(
        task_digest=b"add1",
        seed=5,
        created=NOW,
        policy_version=0,
        temperature=1.0,
        model_label="tiny",
        texts=[text],
        mean_logps=[-0.5],
        token_counts=[1],
        ended=[True],
    )


def refusal(call: object, *arguments: object) -> tuple[Reason, str]:
    with pytest.raises(ProtocolError) as raised:
        call(*arguments)  # type: ignore[operator]
    return raised.value.reason, raised.value.detail


# --- admission ---


def test_clocks_may_be_two_minutes_ahead() -> None:
    assert admission.MAX_AHEAD_S == 120.0


def test_offers_are_in_order_with_their_author_and_time() -> None:
    opened = envelope.open_frame(envelope.seal(announcement(), SEED, SWARM).frame, SWARM)
    first, second = admission.offers_of(opened)
    assert (first.author, first.created, type(first.created)) == (AUTHOR, NOW, float)
    assert (first.item.seed, second.item.seed) == (0, 1)
    assert second.key == AUTHOR + bytes([1] * 32)
    assert first == admission.Offer(AUTHOR, first.item, NOW)
    assert "key" not in repr(first)


def test_an_announcement_is_judged_by_its_size_and_header_before_it_is_read() -> None:
    frame = envelope.seal(announcement(), SEED, SWARM).frame
    padded = frame + bytes(limits.MAX_ANNOUNCEMENT_BYTES - len(frame))
    author = peer_id(AUTHOR)
    assert admission.refuse_unread(frame, author, ME) == AUTHOR
    assert admission.refuse_unread(padded, author, ME) == AUTHOR
    assert admission.refuse_unread(padded + b"x", author, ME) is Reason.TOO_LARGE
    assert admission.refuse_unread(frame, "nobody", ME) is Reason.NOT_ANNOUNCED
    assert admission.refuse_unread(frame, peer_id(OTHER), ME) is Reason.NOT_ANNOUNCED
    # Ours, echoed by another: counted as own when it is read.
    assert admission.refuse_unread(frame, peer_id(OTHER), AUTHOR) == OTHER
    # Not an announcement of this version, or too short to name an author: refused when it is read.
    for other in (b"\x02" + frame[1:], frame[:1] + b"\x01" + frame[2:], frame[:33], b""):
        assert admission.refuse_unread(other, peer_id(OTHER), ME) == OTHER


def test_own_comes_before_all_else_and_the_publisher_before_the_shard() -> None:
    mine = envelope.open_frame(envelope.seal(rollout(), SEED, SWARM).frame, SWARM)
    refuse = admission.refuse_announcement
    assert refuse(mine, "x", WHOLE, AUTHOR, NOW, 600.0) is Reason.OWN
    assert refuse(mine, peer_id(AUTHOR), WHOLE, ME, NOW, 600.0) is Reason.NOT_ANNOUNCED


# --- envelope ---


def test_header_is_version_kind_author_signature() -> None:
    frame = envelope.seal(rollout(), SEED, SWARM).frame
    assert frame[:2] == bytes((1, 1))
    assert frame[envelope.AUTHOR] == frame[2:34] == AUTHOR
    signed = envelope.signed_bytes(Kind.ROLLOUT, SWARM, AUTHOR, frame[98:])
    assert signed == b"swarmnode/1/rollout\0" + SWARM + AUTHOR + frame[98:]
    SigningKey(SEED).verify_key.verify(signed, frame[34:98])
    assert envelope.seal(announcement(), SEED, SWARM).frame[:2] == bytes((1, 2))
    assert envelope.seal(rollout("a" * 999), SEED, SWARM).frame[:2] == bytes((1, 3))
    assert envelope.read_unverified(frame) == (AUTHOR, rollout())


def test_long_announcements_are_not_compressed() -> None:
    plain = envelope.seal(announcement(60), SEED, SWARM).frame
    assert plain[1] == Kind.ANNOUNCEMENT
    assert plain[98:] == codec.encode(announcement(60))


def test_sizes_of_frames_at_their_bounds() -> None:
    check = envelope.read_unverified
    head = {kind: bytes((1, kind)) + bytes(96) for kind in (1, 2, 3)}
    most = {1: limits.MAX_FRAME_BYTES, 2: limits.MAX_ANNOUNCEMENT_BYTES}
    for kind, size in most.items():
        assert refusal(check, head[kind] + bytes(size - 98))[0] is Reason.MALFORMED
        assert refusal(check, head[kind] + bytes(size - 97))[0] is Reason.TOO_LARGE
    assert refusal(check, b"")[0] is Reason.MALFORMED
    assert refusal(check, b"\1")[0] is Reason.MALFORMED
    assert refusal(check, b"\2\1")[0] is Reason.WRONG_VERSION
    assert refusal(check, b"\1\4")[0] is Reason.UNKNOWN_KIND
    assert refusal(check, b"\1\1")[1] == "frame without a body"
    assert refusal(check, head[1])[1] == "frame without a body"
    assert refusal(check, head[1] + b"\0")[1] != "frame without a body"
    assert refusal(check, head[3] + b"\0")[0] is Reason.BAD_COMPRESSION
    # Largest of all, whatever its version.
    assert refusal(check, b"\2\1" + bytes(limits.MAX_FRAME_BYTES))[0] is Reason.TOO_LARGE


def test_id_is_the_hash_of_what_is_signed() -> None:
    sealed = envelope.seal(rollout(), SEED, SWARM)
    signed = envelope.signed_bytes(Kind.ROLLOUT, SWARM, AUTHOR, sealed.frame[98:])
    opened = envelope.open_frame(sealed.frame, SWARM)
    assert opened.id == sealed.id == hashlib.sha256(signed).digest()
    assert opened.author == AUTHOR


# --- codec ---


def test_kinds_of_messages() -> None:
    assert codec.kind_of(rollout()) is Kind.ROLLOUT
    assert codec.kind_of(announcement()) is Kind.ANNOUNCEMENT


def test_a_body_is_malformed_before_it_is_not_canonical_before_it_is_out_of_bounds() -> None:
    body = codec.encode(rollout())
    assert refusal(codec.decode, Kind.ROLLOUT, body[:-1])[0] is Reason.MALFORMED
    hot = msgspec.structs.replace(rollout(), temperature_hundredths=1001)
    assert refusal(codec.decode, Kind.ROLLOUT, codec.encode(hot))[0] is Reason.OUT_OF_BOUNDS
    longer = codec.encode(hot).replace(b"\x05\xce", b"\xcc\x05\xce", 1)
    assert longer != codec.encode(hot)
    assert refusal(codec.decode, Kind.ROLLOUT, longer)[0] is Reason.NOT_CANONICAL
    assert codec.decode(Kind.ROLLOUT, body) == rollout()


def test_a_parsers_words_are_told_and_other_failures_by_their_kind_alone() -> None:
    assert refusal(codec.decode, Kind.ROLLOUT, b"\x01")[1].startswith("Expected `array`")

    def deep(data: bytes) -> None:
        raise RecursionError(data)

    assert refusal(codec._parse, deep, b"what the peer wrote") == (
        Reason.MALFORMED,
        "RecursionError",
    )


def test_greetings_and_peers_at_their_bounds() -> None:
    hello = codec.encode_hello(
        Hello.build(swarm_id=SWARM, swarm_name="a", software="b", model_label="c")
    )
    # Later fields are skipped: the array grows by one binary that fills the greeting.
    room = limits.MAX_HELLO_BYTES - len(hello) - 3
    largest = b"\x97" + hello[1:] + b"\xc5" + room.to_bytes(2) + bytes(room)
    assert len(largest) == limits.MAX_HELLO_BYTES
    assert codec.decode_hello(largest) == codec.decode_hello(hello)
    assert refusal(codec.decode_hello, largest + b"\0")[0] is Reason.TOO_LARGE
    assert refusal(codec.decode_hello, bytes(limits.MAX_HELLO_BYTES))[0] is Reason.MALFORMED
    addresses = ["x" * limits.MAX_ADDRESS_BYTES] * limits.MAX_PEER_ADDRESSES
    full = codec.encode_peers(addresses)
    assert len(full) == limits.MAX_PEERS_BYTES
    assert codec.decode_peers(full) == tuple(addresses)
    assert refusal(codec.decode_peers, full + b"\0")[0] is Reason.TOO_LARGE
    assert refusal(codec.decode_peers, b"\x91\xa1\x07")[0] is Reason.OUT_OF_BOUNDS
    assert refusal(codec.decode_peers, b"\x91\xa2\xc3\xa9")[0] is Reason.OUT_OF_BOUNDS
    for wrong in (["x" * 256], ["x"] * 33, ["\n"]):
        with pytest.raises(ValueError, match="no valid list of addresses"):
            codec.encode_peers(wrong)


def test_blocks_at_their_bounds() -> None:
    assert codec.encode_block(b"abc") == b"\0\0\0\3abc"
    assert codec.block_length(b"\0\0\1\0", 256) == 256
    assert refusal(codec.block_length, b"\0\0\1\1", 256)[0] is Reason.TOO_LARGE
    assert refusal(codec.block_length, b"\0\0\1", 256)[0] is Reason.MALFORMED
    assert refusal(codec.block_length, b"\0\0\0\0\0", 256)[0] is Reason.MALFORMED


def test_requests_and_responses_at_their_bounds() -> None:
    ids = [bytes([n] * 32) for n in range(limits.MAX_FETCH_IDS)]
    request = codec.encode_fetch_request(ids)
    assert request == b"".join(ids)
    assert codec.decode_fetch_request(request) == tuple(ids)
    assert refusal(codec.decode_fetch_request, request + bytes([99] * 32))[0] is Reason.TOO_LARGE
    assert refusal(codec.decode_fetch_request, b"")[0] is Reason.MALFORMED
    assert refusal(codec.decode_fetch_request, bytes(33))[0] is Reason.MALFORMED
    assert refusal(codec.decode_fetch_request, bytes(64))[0] is Reason.OUT_OF_BOUNDS
    with pytest.raises(ValueError, match="an id is not 32 bytes"):
        codec.encode_fetch_request([bytes(31), bytes(range(33))])
    with pytest.raises(ValueError, match="no valid fetch request"):
        codec.encode_fetch_request([])
    frames = (b"x" * limits.MAX_FRAME_BYTES,) * limits.MAX_FETCH_IDS
    response = codec.encode_fetch_response(frames)
    assert len(response) == limits.MAX_FETCH_RESPONSE_BYTES
    assert codec.decode_fetch_response(response, len(frames)) == frames
    decode = codec.decode_fetch_response
    assert refusal(decode, response + b"\0", len(frames))[0] is Reason.TOO_LARGE
    cut = "the response ended inside a frame"
    assert refusal(decode, response[:-1], len(frames)) == (Reason.MALFORMED, cut)
    assert refusal(decode, bytes(5), 1)[1] == "bytes after the last frame"
    assert decode(codec.encode_fetch_response([None, b"y"]), 2) == (None, b"y")
    assert decode(b"", 0) == ()


# --- quota ---


def test_a_bucket_that_was_emptied_fills_to_its_burst_and_no_further() -> None:
    buckets = Buckets(rate=1.0, burst=3.0, max_keys=2)
    assert [buckets.allows("a", NOW) for _ in range(4)] == [True, True, True, False]
    assert buckets.allows("a", NOW + 1)
    assert not buckets.allows("a", NOW + 1)
    assert not buckets.allows("a", NOW + 1.5)
    assert buckets.allows("a", NOW + 2)


def test_an_amount_is_taken_once_and_a_clock_that_went_back_is_not_remembered() -> None:
    buckets = Buckets(rate=1.0, burst=2.0, max_keys=2)
    assert buckets.allows("a", NOW, 2)
    assert not buckets.allows("a", NOW - 50)
    assert buckets.allows("a", NOW + 1)  # one second has passed, and not fifty-one
    assert not buckets.allows("a", NOW + 1)


def test_budgets_of_a_second() -> None:
    """3 announcements of an author and 64 of its offers, after what may come at once."""
    settings = TrustSettings()
    standing = Standing(settings)
    kept = Quota(settings, standing)
    one, other = bytes(32), bytes([1] * 32)
    later = NOW + 1

    def spent(author: bytes, now: float) -> int:
        return sum(kept.allows_announcement(author, now) for _ in range(300))

    assert spent(one, NOW) == 60
    assert spent(one, later) == 3
    assert sum(kept.allows_offers(other, 1, NOW) for _ in range(2000)) == 1024
    assert sum(kept.allows_offers(other, 1, later) for _ in range(200)) == 64
    assert [kept.allows_offers(one, 1024, NOW), kept.allows_offers(one, 1, NOW)] == [True, False]


def test_budgets_of_a_second_of_newcomers_and_of_a_network() -> None:
    """60 announcements of all newcomers, and 12 of a network, after what may come at once."""
    settings = TrustSettings()
    standing = Standing(settings)
    kept = Quota(settings, standing)
    new = [n.to_bytes(32) for n in range(2000)]
    for now, announced in ((NOW, 1200), (NOW + 1, 60)):
        assert sum(kept.allows_announcement(author, now) for author in new) == announced
    known = [n.to_bytes(32) for n in range(5000, 5300)]
    for one in known:
        standing.locate(one, "/ip4/203.0.113.7/tcp/1", NOW)
        for round in range(3):
            standing.credit(one, round, NOW)
    for now, announced in ((NOW, 240), (NOW + 1, 12)):
        assert sum(kept.allows_announcement(author, now) for author in known) == announced


def test_a_network_whose_one_author_is_drawn_empty_still_has_the_others() -> None:
    settings = TrustSettings(newcomer_grace=0)
    standing = Standing(settings)
    authors = [bytes([n] * 32) for n in range(3)]
    for one in authors:
        standing.locate(one, "/ip4/203.0.113.7/tcp/1", NOW)
        for round in range(3):
            standing.credit(one, round, NOW)
    items = [(one, n) for one in authors for n in range(2)]
    drawn = Quota(settings, standing).draw(items, lambda item: item[0], 99, random.Random(1))
    assert sorted(drawn) == items


def test_a_draw_takes_what_there_is() -> None:
    settings = TrustSettings(fair_shares=False)
    kept = Quota(settings, Standing(settings))
    items = [(bytes([n] * 32), n) for n in range(3)]
    drawn = kept.draw(items, lambda item: item[0], 9, random.Random(1))
    assert sorted(drawn) == items
    assert len(kept.draw(items, lambda item: item[0], 2, random.Random(1))) == 2
    assert kept.draw(items, lambda item: item[0], 0, random.Random(1)) == []
