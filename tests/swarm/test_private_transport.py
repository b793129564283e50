"""A private swarm over the hub: members understand each other, strangers neither read nor join."""

from pathlib import Path

import pytest

from protocol import private
from protocol.names import peer_id
from swarmnode.errors import ConfigError
from swarmnode.swarm.memory import Hub, MemoryTransport
from swarmnode.swarm.private import PrivateTransport, load_key, membership
from swarmnode.swarm.transport import Announced, Fetched, FetchFailed, FetchProblem

A, B, C = (peer_id(bytes([i] * 32)) for i in range(3))
KEY, OTHER_KEY = (private.names(bytes([i] * 32), bytes(32)).frame_key for i in (1, 2))
ID = b"i" * 32


def swarm() -> tuple[PrivateTransport, PrivateTransport, MemoryTransport]:
    """Two members, and a stranger on the same wire."""
    hub = Hub()
    members = [PrivateTransport(MemoryTransport(hub, peer), KEY) for peer in (A, B)]
    stranger = MemoryTransport(hub, C)
    for one in (*members, stranger):
        one.open()
    return members[0], members[1], stranger


def test_members_hear_and_fetch_what_they_wrote() -> None:
    first, second, _ = swarm()
    first.publish(b"announcement")
    first.hold(ID, b"rollout")
    second.fetch(A, [ID])
    assert second.poll() == [Announced(A, b"announcement"), Fetched(A, ID, b"rollout")]
    assert second.status().dropped["unreadable"] == 0


def test_a_stranger_on_the_wire_reads_noise() -> None:
    first, _, stranger = swarm()
    first.publish(b"announcement")
    first.hold(ID, b"rollout")
    stranger.fetch(A, [ID])
    heard = stranger.poll()
    assert len(heard) == 2
    assert all(isinstance(e, Announced | Fetched) for e in heard)
    assert not any(word in e.frame for e in heard for word in (b"announcement", b"rollout"))  # type: ignore[union-attr]


@pytest.mark.parametrize("key", [None, OTHER_KEY])
def test_what_a_stranger_says_is_dropped_and_counted(key: bytes | None) -> None:
    first, _, stranger = swarm()
    said = private.encrypt(b"let me in", key) if key else b"let me in"
    stranger.publish(said)
    stranger.hold(ID, said)
    first.fetch(C, [ID])
    (event,) = first.poll()
    assert event == FetchFailed(
        C, (ID,), FetchProblem.MALFORMED, "not encrypted with the swarm's key"
    )
    assert first.status().dropped["unreadable"] == 2


def test_a_key_file_makes_another_swarm_of_the_same_manifest(tmp_path: Path) -> None:
    path = tmp_path / "swarm.key"
    path.write_text(private.new_key_file())
    path.chmod(0o600)
    manifest = bytes([7] * 32)
    assert membership("", manifest) == manifest
    assert membership(str(path), manifest) == private.swarm_id(load_key(path), manifest)


def test_a_key_that_cannot_be_used_says_why_without_showing_it(tmp_path: Path) -> None:
    path = tmp_path / "swarm.key"
    with pytest.raises(ConfigError, match="there is no swarm key"):
        load_key(path)
    text = private.new_key_file()
    path.write_text(text)
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        load_key(path)
    path.chmod(0o600)
    path.write_text(text[:-2])
    with pytest.raises(ConfigError, match="no swarm key") as caught:
        load_key(path)
    assert text.splitlines()[2][:8] not in str(caught.value)
    path.write_bytes(b"\xff" * 100)
    with pytest.raises(ConfigError, match="cannot read"):
        load_key(path)
