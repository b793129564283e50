"""Private swarms: what opens only with the key, and what a key file may be."""

import pytest

from protocol import private
from protocol.envelope import open_frame, seal
from protocol.errors import ProtocolError, Reason
from protocol.messages import Announcement

KEY, OTHER = bytes([1] * 32), bytes([2] * 32)
MANIFEST = bytes([7] * 32)
SECRET, THEIR_SECRET = private.swarm_id(KEY, MANIFEST), private.swarm_id(OTHER, MANIFEST)
MEMBERS, STRANGERS = private.names(KEY, SECRET), private.names(OTHER, THEIR_SECRET)


def test_nothing_a_neighbour_sees_is_what_frames_are_signed_for_or_encrypted_with() -> None:
    ours = {MANIFEST, SECRET, MEMBERS.network_id, MEMBERS.frame_key}
    theirs = {THEIR_SECRET, STRANGERS.network_id, STRANGERS.frame_key}
    assert len(ours | theirs) == 7
    assert repr(MEMBERS.frame_key) not in repr(MEMBERS)


def test_a_frame_opens_with_the_key_only_and_unchanged_only() -> None:
    sent = private.encrypt(b"frame", MEMBERS.frame_key)
    assert b"frame" not in sent
    assert private.decrypt(sent, MEMBERS.frame_key) == b"frame"
    assert private.encrypt(b"frame", MEMBERS.frame_key) != sent
    changed = sent[:-1] + bytes([sent[-1] ^ 1])
    for data, key in (
        (sent, STRANGERS.frame_key), (changed, MEMBERS.frame_key), (b"", MEMBERS.frame_key),
        (sent[:39], MEMBERS.frame_key), (b"frame", MEMBERS.frame_key),
    ):  # fmt: skip
        with pytest.raises(ProtocolError) as caught:
            private.decrypt(data, key)
        assert caught.value.reason is Reason.BAD_SIGNATURE


def test_a_member_who_leaks_a_decrypted_frame_has_made_nothing_for_another_swarm() -> None:
    message = Announcement.build(round=1, created=1.0, policy_version=0, model_label="", items=[])
    frame = seal(message, bytes(32), SECRET).frame
    assert open_frame(frame, SECRET).message == message
    for other in (MANIFEST, MEMBERS.network_id, THEIR_SECRET):
        with pytest.raises(ProtocolError):
            open_frame(frame, other)


def test_a_new_key_file_is_read_back_and_differs_each_time() -> None:
    text = private.new_key_file()
    assert len(private.read_key_file(text)) == 32
    assert private.new_key_file() != text


@pytest.mark.parametrize(
    "text",
    ["", "\n", "a" * 64, "/key/swarm/psk/1.0.0/\n/base64/\n" + "a" * 64,
     "/key/swarm/psk/1.0.0/\n/base16/\n" + "a" * 63,
     "/key/swarm/psk/1.0.0/\n/base16/\n" + "g" * 64],
)  # fmt: skip
def test_what_is_no_key_file_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(ValueError, match="it") as caught:
        private.read_key_file(text)
    assert "aaaa" not in str(caught.value)
