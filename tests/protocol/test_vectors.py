"""The committed vectors: what the code makes, what the second reader reads, what is refused."""

import hmac
import json

import make_vectors
import msgpack
import pytest
import reference_reader

from protocol import codec, names, private
from protocol.envelope import open_frame, seal
from protocol.errors import ProtocolError, Reason

SWARM = make_vectors.SWARM


def load(name: str):  # type: ignore[no-untyped-def]  # JSON
    return json.loads((make_vectors.FOLDER / name).read_text())


ROLLOUTS = load("rollouts.json")
GOOD = [*ROLLOUTS, *load("announcements.json")]
REFUSED = load("refused_frames.json")
HELLOS = load("hellos.json")


def named(vectors: list[dict]) -> dict:
    return {"argvalues": vectors, "ids": [vector["name"] for vector in vectors]}


def test_regenerating_gives_the_committed_files() -> None:
    committed = {path.name: path.read_text() for path in make_vectors.FOLDER.glob("*.json")}
    assert make_vectors.vectors() == committed


@pytest.mark.parametrize("vector", **named(GOOD))
def test_sealing_gives_the_exact_bytes_up_to_the_compressor(vector: dict) -> None:
    message = make_vectors.build(vector["kind"], vector["fields"])
    sealed = seal(message, bytes.fromhex(vector["key_seed"]), bytes.fromhex(vector["swarm_id"]))
    frame = bytes.fromhex(vector["frame"])
    assert sealed.id.hex() == vector["id"]
    if vector["compressed_frames"]:
        assert sealed.frame[:98] == b"\x01\x03" + frame[2:98]
        assert len(sealed.frame) < len(frame)
    else:
        assert sealed.frame == frame


@pytest.mark.parametrize("vector", **named(GOOD))
def test_every_form_opens_to_the_same(vector: dict) -> None:
    message = make_vectors.build(vector["kind"], vector["fields"])
    for frame in (vector["frame"], *vector["compressed_frames"]):
        opened = open_frame(bytes.fromhex(frame), bytes.fromhex(vector["swarm_id"]))
        assert (opened.message, opened.id.hex()) == (message, vector["id"])


@pytest.mark.parametrize("vector", **named(GOOD))
def test_second_reader_reads_the_same(vector: dict) -> None:
    for frame in (vector["frame"], *vector["compressed_frames"]):
        read = reference_reader.read_frame(bytes.fromhex(frame), bytes.fromhex(vector["swarm_id"]))
        assert read == {
            "version": 1,
            "kind": vector["kind"],
            "author": vector["author"],
            "verifies": True,
            "signed": vector["signed"],
            "id": vector["id"],
            "fields": vector["fields"],
        }


def test_vectors_hold_compressed_frames_by_hand_and_by_the_library() -> None:
    assert [len(vector["compressed_frames"]) for vector in ROLLOUTS] == [0, 1, 2]


@pytest.mark.parametrize("vector", **named(REFUSED))
def test_refuses_with_the_listed_reason(vector: dict) -> None:
    frame = bytes.fromhex(vector["frame"]).ljust(vector.get("zero_padded_to_bytes", 0), b"\0")
    with pytest.raises(ProtocolError) as caught:
        open_frame(frame, bytes.fromhex(vector["swarm_id"]))
    assert caught.value.reason == vector["reason"], caught.value.detail


def test_every_reason_read_off_the_bytes_has_vectors() -> None:
    assert {vector["reason"] for vector in REFUSED} == set(list(Reason)[:8])


@pytest.mark.parametrize("vector", **named(HELLOS))
def test_greetings(vector: dict) -> None:
    data = bytes.fromhex(vector["hello"])
    if vector["reason"] is None:
        hello = codec.decode_hello(data)
        read = {field: getattr(hello, field) for field in hello.__struct_fields__}
        expected = reference_reader.read_hello(data)
        assert read | {"swarm_id": hello.swarm_id.hex()} == expected
        return
    with pytest.raises(ProtocolError) as caught:
        codec.decode_hello(data)
    assert caught.value.reason == vector["reason"]


@pytest.mark.parametrize("vector", **named(load("fetches.json")))
def test_fetch_streams(vector: dict) -> None:
    (request,) = reference_reader.read_blocks(bytes.fromhex(vector["request_stream"]))
    response = reference_reader.read_blocks(bytes.fromhex(vector["response_stream"]))
    assert request.hex() == "".join(vector["ids"])
    assert [block.hex() or None for block in response] == vector["frames"]
    assert list(codec.decode_fetch_request(request)) == [bytes.fromhex(i) for i in vector["ids"]]
    decoded = codec.decode_fetch_response(bytes.fromhex(vector["response_stream"]), len(response))
    assert [frame and frame.hex() for frame in decoded] == vector["frames"]


@pytest.mark.parametrize("vector", **named(load("peers.json")))
def test_lists_of_peers(vector: dict) -> None:
    body = bytes.fromhex(vector["peers"])
    if vector["reason"] is None:
        assert list(codec.decode_peers(body)) == vector["addresses"] == msgpack.unpackb(body)
        return
    with pytest.raises(ProtocolError) as caught:
        codec.decode_peers(body)
    assert caught.value.reason == vector["reason"]


def test_private_names_and_frames_are_those_of_the_specification() -> None:
    vector = load("private.json")
    key = bytes.fromhex(vector["key_file"].splitlines()[2])
    assert private.read_key_file(vector["key_file"]) == key
    secret = hmac.digest(key, b"swarmnode/private/id\0" + SWARM, "sha256")
    assert private.swarm_id(key, SWARM).hex() == vector["swarm_id"] == secret.hex()
    made = private.names(key, secret)
    for field, purpose in (("network_id", b"network"), ("frame_key", b"frames")):
        by_hand = hmac.digest(key, b"swarmnode/private/" + purpose + b"\0" + secret, "sha256")
        assert getattr(made, field).hex() == vector[field] == by_hand.hex()
    encrypted = bytes.fromhex(vector["encrypted"])
    assert private.decrypt(encrypted, made.frame_key).hex() == vector["frame"]
    assert len(encrypted) == len(vector["frame"]) // 2 + private.OVERHEAD_BYTES


def test_names_are_those_of_the_vectors() -> None:
    vector = load("names.json")
    assert names.public_key_of(vector["peer_id"]).hex() == vector["author"]
    # test_regenerating_gives_the_committed_files holds the rest; test_names derives it anew.


def test_author_of_the_vectors_is_the_published_key_of_rfc_8032() -> None:
    published = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert {vector["author"] for vector in GOOD} == {published}


def test_second_verifier_agrees_with_rfc_8032() -> None:
    # Section 7.1, test 2: one byte 0x72.
    key = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
    signature = bytes.fromhex(
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )
    assert reference_reader.verify(key, b"\x72", signature)
    assert not reference_reader.verify(key, b"\x73", signature)
