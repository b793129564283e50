"""Mutated frames end in a refusal with a name, and the node goes on; with a reader that checks
nothing before it decodes, and catches nothing, the same bytes end its round."""

import hashlib
import random

import msgspec
import zstandard
from forgeries import OPEN, Scene

from protocol import envelope
from protocol.envelope import COMPRESSED_ROLLOUT, Opened
from protocol.limits import HEADER_BYTES
from protocol.messages import Announcement, Kind, Rollout

COUNT = 300


def mutated(frame: bytes, rng: random.Random) -> bytes:
    """The frame with some bytes overwritten, left out, doubled or put in."""
    changed = bytearray(frame)
    for _ in range(rng.randint(1, 8)):
        at = rng.randrange(len(changed))
        match rng.randrange(4):
            case 0:
                changed[at] = rng.randrange(256)
            case 1:
                del changed[at : at + rng.randint(1, 40)]
            case 2:
                changed[at:at] = changed[at : at + rng.randint(1, 40)]
            case 3:
                changed[at:at] = rng.randbytes(rng.randint(1, 8))
        changed = changed or bytearray(b"\0")
    return bytes(changed)


def naive(frame: bytes, swarm_id: bytes) -> Opened:
    """`open_frame` without a check."""
    body = frame[HEADER_BYTES:]
    if frame[1] == COMPRESSED_ROLLOUT:
        body = zstandard.ZstdDecompressor().decompress(body, max_output_size=2**20)
    kind = Kind.ANNOUNCEMENT if frame[1] == Kind.ANNOUNCEMENT else Kind.ROLLOUT
    wanted = Announcement if kind is Kind.ANNOUNCEMENT else Rollout
    author = frame[envelope.AUTHOR]
    signed = envelope.signed_bytes(kind, swarm_id, author, body)
    message = msgspec.msgpack.decode(body, type=wanted)
    return Opened(hashlib.sha256(signed).digest(), author, message)


def attacked(scene: Scene) -> int:
    """How many of the mutated rollouts and announcements raise out of the victim's round."""
    raised = 0
    for n in range(COUNT):
        made, sealed = scene.fresh(scene.honest)
        frame = mutated(sealed.frame, scene.rng)
        scene.serve(scene.honest, made, sealed, frame)
        if n % 3 == 0:
            scene.honest.transport.publish(mutated(scene.frames[-1], scene.rng))
        try:
            arrivals = scene.arrivals()
        except Exception:  # noqa: BLE001  any of them ends the node's round
            raised += 1
        else:
            assert [one.rollout for one in arrivals] in ([], [made])  # a change of no meaning
    return raised


def test_mutated_frames_are_refused_and_raise_nothing() -> None:
    scene = Scene(OPEN)
    assert attacked(scene) == 0
    assert scene.node.exchange.refused.total() >= COUNT
    made, sealed = scene.fresh(scene.honest)
    scene.serve(scene.honest, made, sealed, sealed.frame)
    assert scene.arrived() == 1


def test_a_reader_without_checks_is_ended_by_them() -> None:
    assert attacked(Scene(OPEN, open_frame=naive)) > COUNT // 2
