"""What the attacks share: a victim with the real exchange, and strangers with keys of their own.

Nothing here is faked that a defence looks at: frames are sealed with Ed25519 and opened by
`protocol`, announcements go through the exchange, addresses are what the transport says.
"""

import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from protocol.envelope import Sealed, seal
from protocol.messages import Announcement, Item, Rollout
from protocol.names import question_seed
from swarmnode import identity
from swarmnode.config import SharingSettings, TrustSettings
from swarmnode.identity import Identity
from swarmnode.rollout import Question
from swarmnode.swarm.conversion import Arrival
from swarmnode.swarm.exchange import Exchange
from swarmnode.swarm.memory import Hub, MemoryTransport

sys.path.append(str(Path(__file__).parents[1]))  # these are programs, too
import offered
from offered import item_of as item_of

SWARM = bytes([7] * 32)
TASK = b"add1"
NOW = 1_790_000_000.0


def rebuild(digest: bytes, seed: int) -> Question:
    """The question with this generator's seed: one of 200, so that others ask the same."""
    number = seed % 200
    return Question("add", digest, seed, f"{number} + 1?", str(number + 1), held_out=False)


def person(number: int) -> Identity:
    """The identity with this number."""
    return identity.from_seed(number.to_bytes(32))


def rollout(number: int, texts: Sequence[str], created: float = NOW, task: bytes = TASK) -> Rollout:
    """Answers to its author's question `number`."""
    return offered.rollout(number, texts, created, task)


def announcement(items: Sequence[Item], created: float = NOW, round: int = 1) -> Announcement:
    return offered.announcement(items, created, round)


@dataclass
class Stranger:
    """A key and a transport, and the will to say anything."""

    me: Identity
    transport: MemoryTransport

    def seal(self, message: Announcement | Rollout, swarm: bytes = SWARM) -> Sealed:
        return seal(message, self.me.seed, swarm)

    def announce(self, *items: Item, created: float = NOW, round: int = 1) -> bytes:
        """Publishes an announcement of these items; returns its frame."""
        frame = self.seal(announcement(items, created, round)).frame
        self.transport.publish(frame)
        return frame

    def offer(
        self, made: Rollout, frame: bytes | None = None, *, created: float = NOW, **lies: Any
    ) -> Sealed:
        """Announces a rollout, with `lies` about it, and serves it, or `frame` in its place."""
        sealed = self.seal(made)
        self.transport.hold(sealed.id, frame or sealed.frame)
        round = int(created - NOW)
        self.announce(item_of(sealed, made)._replace(**lies), created=created, round=round)
        return sealed

    def number_for(self, prompt: str, start: int = 0) -> int:
        """A number of this author's questions that asks `prompt`, by trying."""
        number = start
        while rebuild(TASK, self.question(number)).prompt != prompt:
            number += 1
        return number

    def question(self, number: int) -> int:
        return question_seed(SWARM, self.me.public_key, TASK, number)


def stranger(hub: Hub, number: int, address: str = "") -> Stranger:
    """Stranger `number`, on the wire."""
    me = person(number)
    transport = MemoryTransport(hub, me.peer_id, address=address)
    transport.open()
    return Stranger(me, transport)


@dataclass
class Victim:
    """A node's exchange; `round` takes what it can get and scores the first answer right."""

    exchange: Exchange
    transport: Any
    now: float = NOW
    number: int = 0
    rng: random.Random = field(default_factory=lambda: random.Random(1))

    def round(self, count: int = 24, score: Callable[[str], float] | None = None) -> list[Arrival]:
        """Hears, asks, receives and scores: what arrived."""
        self.number += 1
        arrivals = self.exchange.collect(round=self.number, now=self.now)
        self.exchange.request(count, self.rng, self.now)
        arrivals += self.exchange.collect(round=self.number, now=self.now)
        for arrival in arrivals:
            texts = arrival.rollout.texts
            rewards = [score(t) for t in texts] if score else [1.0] + [0.0] * (len(texts) - 1)
            self.exchange.note_scored(arrival.scored(rewards), self.now)
        return arrivals


def victim(
    transport: Any, number: int = 999_999, trust: TrustSettings | None = None, **options: Any
) -> Victim:
    """A node over `transport`, with the default settings but `trust`."""
    me = person(number)
    exchange = Exchange(
        transport,
        SharingSettings(),
        swarm_id=SWARM,
        signing_key=me.seed,
        public_key=me.public_key,
        model_label="m",
        tasks=[TASK],
        rebuild=rebuild,
        trust=trust or TrustSettings(),
        **options,
    )
    return Victim(exchange, transport)


def victim_on(hub: Hub, trust: TrustSettings | None = None, **options: Any) -> Victim:
    """A node on the wire of `hub`."""
    transport = MemoryTransport(hub, person(999_999).peer_id)
    transport.open()
    return victim(transport, trust=trust, **options)
