"""No forgery, theft or replay is accepted; with its defence off each kind is."""

import hashlib

import pytest
from forgeries import KINDS, OPEN, Scene
from parts import victim_on

from protocol import envelope
from protocol.codec import decode
from protocol.envelope import COMPRESSED_ROLLOUT, Opened
from protocol.limits import HEADER_BYTES
from swarmnode.config import TrustSettings


def unsigned(frame: bytes, swarm_id: bytes) -> Opened:
    """`open_frame` that believes every signature."""
    kind, author, body = envelope._parts(frame)
    signed = envelope.signed_bytes(kind, swarm_id, author, body)
    return Opened(hashlib.sha256(signed).digest(), author, decode(kind, body))


def without(name: str) -> TrustSettings:
    return TrustSettings(quotas=False, standing=False, **{name: False})


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene(OPEN)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_it_is_accepted(scene: Scene, kind: str) -> None:
    before = scene.node.exchange.refused.total()
    assert sum(scene.attempt(kind) for _ in range(5)) == 0
    assert scene.node.exchange.refused.total() - before == 5  # and each under a name


def test_what_is_honest_is_accepted_meanwhile(scene: Scene) -> None:
    made, sealed = scene.fresh(scene.honest)
    scene.serve(scene.honest, made, sealed, sealed.frame)
    assert scene.arrived() == 1


def test_without_signatures_another_body_is_accepted() -> None:
    scene = Scene(OPEN, open_frame=unsigned)
    assert sum(scene.attempt("another body") for _ in range(5)) == 5


@pytest.mark.parametrize("kind", ["re-signed", "re-signed and changed", "re-signed by a new key"])
def test_without_the_rule_on_copies_theft_is_accepted(kind: str) -> None:
    scene = Scene(without("copies"))
    assert sum(scene.attempt(kind) for _ in range(5)) == 5


@pytest.mark.parametrize("kind", ["answered again", "chosen number"])
def test_without_the_rule_on_numbers_they_are_accepted(kind: str) -> None:
    scene = Scene(without("numbers"))
    assert sum(scene.attempt(kind) for _ in range(5)) == 5


def test_another_spelling_of_what_was_signed_is_taken_once_and_as_it_was_signed() -> None:
    """Of the bits that may change, the one that RFC 8878 tells decoders not to interpret."""
    scene = Scene(OPEN)
    made, sealed = scene.fresh(scene.honest)
    frame = bytearray(sealed.frame)
    assert frame[1] == COMPRESSED_ROLLOUT
    frame[HEADER_BYTES + 4] ^= 1 << 4
    scene.serve(scene.honest, made, sealed, bytes(frame))
    assert [arrival.rollout for arrival in scene.arrivals()] == [made]
    for spelling in (sealed.frame, bytes(frame)):
        scene.serve(scene.honest, made, sealed, spelling)
        assert scene.arrived() == 0


@pytest.mark.parametrize(("newcomer_rounds", "accepted"), [(3, 0), (0, 1)])
def test_numbers_are_not_forgotten_for_a_crowd_of_new_keys(
    newcomer_rounds: int, accepted: int
) -> None:
    """A known author had them push out its numbers, to choose one. With 0 rounds all are known."""
    trust = TrustSettings(
        quotas=False, standing=False, max_authors=9, newcomer_rounds=newcomer_rounds
    )
    scene = Scene(trust)
    assert sum(scene.attempt("announced by another") for _ in range(20)) == 0
    assert scene.attempt("chosen number") == accepted


def test_without_memory_a_replay_is_accepted() -> None:
    """A node that took nothing yet takes what others took before, until it is too old."""
    scene = Scene()
    made, sealed = scene.any_honest()
    scene.serve(scene.honest, made, sealed, sealed.frame)
    assert scene.arrived() == 0
    scene.node = victim_on(scene.hub, OPEN)
    scene.serve(scene.honest, made, sealed, sealed.frame)
    assert scene.arrived() == 1
