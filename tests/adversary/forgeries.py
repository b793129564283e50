"""Forgeries, thefts and replays, each through the whole of a node's exchange.

Budgets and standing are off, so that each attempt is judged by what it is, and not refused because
the attempts before it were lies. The victim holds honest rollouts, scored and taken; whatever else
arrives is accepted, and counts. One thing does not: a frame that opens to what its author signed,
bit by bit. A compressed body has many spellings (SPEC.md section 6), and some changed bits of it
make another of them, under the same id and signature, which are those of the content. It is the
author's rollout then; its own frame, offered next, must not be taken a second time.
"""

import hashlib
import itertools
import random
from collections.abc import Callable

import msgspec
from figures import Figure, figure
from parts import (
    NOW,
    SWARM,
    TASK,
    Stranger,
    Victim,
    announcement,
    item_of,
    rebuild,
    rollout,
    stranger,
    victim_on,
)

from protocol.codec import encode
from protocol.envelope import Sealed, seal, signed_bytes
from protocol.limits import HEADER_BYTES
from protocol.messages import Kind, Rollout
from swarmnode.config import TrustSettings
from swarmnode.swarm.conversion import Arrival
from swarmnode.swarm.memory import Hub

OPEN = TrustSettings(quotas=False, standing=False)
_HONEST = 20


def words(rng: random.Random, count: int = 40) -> str:
    """Text as long as an answer with its reasoning; no two are alike."""
    return " ".join("".join(rng.choices("abcdefghij", k=5)) for _ in range(count))


class Scene:
    """A victim that took the rollouts of an honest author, and somebody who wants to be believed.

    `attempt` makes one attack of a kind; `accepted` says what the victim took of all attacks.
    """

    def __init__(self, trust: TrustSettings = OPEN, **options: object) -> None:
        self.rng = random.Random(7)
        self.hub = Hub()
        self.node: Victim = victim_on(self.hub, trust, **options)
        self.honest = stranger(self.hub, 1)
        self.thief = stranger(self.hub, 2)
        self.made: list[tuple[Rollout, Sealed]] = []
        self.frames: list[bytes] = []  # the honest author's announcements
        for number in range(_HONEST):
            one = rollout(number, [words(self.rng), words(self.rng)])
            sealed = self.honest.seal(one)
            self.honest.transport.hold(sealed.id, sealed.frame)
            self.frames.append(self.honest.announce(item_of(sealed, one), round=number))
            self.made.append((one, sealed))
            self.arrived()
        assert len(self.node.exchange.state()["taken"]) == _HONEST
        self._second = itertools.count(1)
        self.numbers = itertools.count(_HONEST)  # of questions not asked yet
        self.respelt = 0  # frames with changed bits that held what their author signed
        self.guests: list[Stranger] = []

    def arrivals(self) -> list[Arrival]:
        """The rollouts that the victim accepts now; all their answers are right."""
        return self.node.round(1000, score=lambda text: 1.0)

    def arrived(self) -> int:
        return len(self.arrivals())

    def attempt(self, kind: str) -> int:
        """One attack of this kind; how many rollouts it got accepted."""
        self.node.now = NOW + next(self._second) % 600
        for guest in self.guests:
            guest.transport.close()
        self.guests = []
        untouched = KINDS[kind](self)
        arrivals = self.arrivals()
        if untouched is None or [_id_of(one) for one in arrivals] != [untouched[1].id]:
            return len(arrivals)
        self.respelt += 1
        self.serve(self.honest, *untouched, untouched[1].frame)
        return self.arrived()

    def any_honest(self) -> tuple[Rollout, Sealed]:
        return self.rng.choice(self.made)

    def guest(self) -> Stranger:
        """Somebody who was never heard of, for one attempt."""
        self.guests.append(stranger(self.hub, self.rng.randrange(10, 2**60)))
        return self.guests[-1]

    def fresh(self, who: Stranger) -> tuple[Rollout, Sealed]:
        """A rollout that `who` might offer honestly now."""
        made = rollout(next(self.numbers), [words(self.rng)], self.node.now)
        return made, who.seal(made)

    def serve(self, who: Stranger, made: Rollout, sealed: Sealed, frame: bytes) -> None:
        """`who` announces the rollout in its own name and serves `frame` for it."""
        who.transport.hold(sealed.id, frame)
        who.announce(
            item_of(sealed, made)._replace(frame_bytes=len(frame)),
            created=self.node.now,
            round=self.rng.randrange(2**31),
        )


# --- forgeries: bytes that their author did not sign ---


def _flipped_bit(scene: Scene) -> tuple[Rollout, Sealed]:
    """Returns what the author signed."""
    made, sealed = scene.fresh(scene.honest)
    frame = bytearray(sealed.frame)
    frame[scene.rng.randrange(len(frame))] ^= 1 << scene.rng.randrange(8)
    scene.serve(scene.honest, made, sealed, bytes(frame))
    return made, sealed


def _another_body(scene: Scene) -> None:
    """The honest author's header and signature over a text of the thief's."""
    made, sealed = scene.fresh(scene.honest)
    other = scene.honest.seal(replace_text(made, words(scene.rng)))
    frame = sealed.frame[:HEADER_BYTES] + other.frame[HEADER_BYTES:]
    scene.serve(scene.honest, made, other, frame)


def _in_anothers_name(scene: Scene) -> None:
    """The thief's own frame with the honest author's key in its header."""
    one, sealed = scene.fresh(scene.thief)
    frame = sealed.frame[:2] + scene.honest.me.public_key + sealed.frame[34:]
    scene.serve(scene.honest, one, sealed, frame)


def _forged_announcement(scene: Scene) -> None:
    """Announced in the honest author's name, which it did not sign."""
    one, sealed = scene.fresh(scene.thief)
    scene.honest.transport.hold(sealed.id, sealed.frame)
    told = announcement([item_of(sealed, one)], scene.node.now, scene.rng.randrange(2**31))
    frame = scene.thief.seal(told).frame
    scene.honest.transport.publish(frame[:2] + scene.honest.me.public_key + frame[34:])


def _another_swarm(scene: Scene) -> None:
    one, _ = scene.fresh(scene.thief)
    sealed = seal(one, scene.thief.me.seed, bytes([9] * 32))
    scene.serve(scene.thief, one, sealed, sealed.frame)


def _another_version(scene: Scene) -> None:
    one, sealed = scene.fresh(scene.thief)
    version = scene.rng.choice([v for v in range(256) if v != 1])
    scene.serve(scene.thief, one, sealed, bytes((version,)) + sealed.frame[1:])


# --- thefts: another's texts under the thief's signature ---


def _re_signed(scene: Scene) -> None:
    """As it is, for the thief's question of some number."""
    made, _ = scene.any_honest()
    one = rollout(next(scene.numbers), made.texts, scene.node.now)
    sealed = scene.thief.seal(one)
    scene.serve(scene.thief, one, sealed, sealed.frame)


def _changed(scene: Scene) -> None:
    """Form changed and a word exchanged, for a question that is the same."""
    made, _ = scene.any_honest()
    thief = scene.guest()
    number = thief.number_for(question_of(scene, made))
    texts = [text.upper().replace(" ", "  ", 3) + " so" for text in made.texts]
    thief.offer(rollout(number, texts, scene.node.now), created=scene.node.now)


def _from_a_thief_without_past(scene: Scene) -> None:
    made, _ = scene.any_honest()
    number = scene.rng.randrange(2**32)
    scene.guest().offer(rollout(number, made.texts, scene.node.now), created=scene.node.now)


# --- replays: what was signed and said before ---


def _same_announcement(scene: Scene) -> None:
    scene.honest.transport.publish(scene.rng.choice(scene.frames))


def _anothers_announcement(scene: Scene) -> None:
    scene.thief.transport.publish(scene.rng.choice(scene.frames))


def _announced_anew(scene: Scene) -> None:
    """By its own author: a rollout that was taken."""
    made, sealed = scene.any_honest()
    scene.serve(scene.honest, made, sealed, sealed.frame)


def _announced_by_another(scene: Scene) -> None:
    made, sealed = scene.any_honest()
    scene.serve(scene.guest(), made, sealed, sealed.frame)


def _answered_again(scene: Scene) -> None:
    """A question that its author answered before, with another answer: its sequence went back."""
    made, _ = scene.any_honest()
    one = replace_text(made, words(scene.rng))
    one = msgspec.structs.replace(one, created=int(scene.node.now) + 1)
    sealed = scene.honest.seal(one)
    scene.honest.transport.hold(sealed.id, sealed.frame)
    told = announcement([item_of(sealed, one)], scene.node.now + 1, scene.rng.randrange(2**31))
    scene.honest.transport.publish(scene.honest.seal(told).frame)


def _chosen_number(scene: Scene) -> None:
    """A number far from all the author's others, chosen for the question it makes."""
    number = scene.rng.randrange(100_000, 2**32)
    one = rollout(number, [words(scene.rng)], scene.node.now)
    sealed = scene.honest.seal(one)
    scene.serve(scene.honest, one, sealed, sealed.frame)


KINDS: dict[str, Callable[[Scene], tuple[Rollout, Sealed] | None]] = {
    "flipped bit": _flipped_bit,
    "another body": _another_body,
    "in another's name": _in_anothers_name,
    "forged announcement": _forged_announcement,
    "another swarm": _another_swarm,
    "another version": _another_version,
    "re-signed": _re_signed,
    "re-signed and changed": _changed,
    "re-signed by a new key": _from_a_thief_without_past,
    "same announcement": _same_announcement,
    "another's announcement": _anothers_announcement,
    "announced anew": _announced_anew,
    "announced by another": _announced_by_another,
    "answered again": _answered_again,
    "chosen number": _chosen_number,
}
FORGERIES, THEFTS = list(KINDS)[:6], list(KINDS)[6:9]
REPLAYS = list(KINDS)[9:]


def _id_of(arrival: Arrival) -> bytes:
    """The id of what arrived, made anew from its content."""
    body = encode(arrival.rollout)
    return hashlib.sha256(signed_bytes(Kind.ROLLOUT, SWARM, arrival.origin.author, body)).digest()


def replace_text(made: Rollout, text: str) -> Rollout:
    return msgspec.structs.replace(made, texts=(text,) * len(made.texts))


def question_of(scene: Scene, made: Rollout) -> str:
    return rebuild(TASK, scene.honest.question(made.seed)).prompt


def measure(short: bool) -> list[Figure]:
    """Figures of the battery."""
    each = 100 if short else 33_334
    found = []
    for name, kinds in (("forgeries", FORGERIES), ("thefts", THEFTS), ("replays", REPLAYS)):
        scene = Scene()
        accepted = sum(scene.attempt(kinds[n % len(kinds)]) for n in range(each))
        of = f"of {each:,}" + f", {scene.respelt} as signed, in another form" * bool(scene.respelt)
        found.append(figure(f"{name} accepted", accepted, of, "==", 0))
    return found


if __name__ == "__main__":
    import sys

    from figures import show

    sys.exit(show(measure("--short" in sys.argv)) > 0)
