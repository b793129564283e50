"""This node's side of the exchange: publish own groups, note offers, fetch, admit.

Holds no model and scores nothing: `collect` returns rollouts whose question was rebuilt here and
that the caller still has to score. Everything it keeps is bounded. It counts what it refuses, by
reason, and what it never got, by problem; the caller turns counts into metrics.
"""

import logging
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from protocol import envelope, limits
from protocol.envelope import Opened
from protocol.errors import ProtocolError, Reason
from protocol.messages import Announcement, Item, Rollout
from protocol.names import peer_id, question_seed
from swarmnode.config import SharingSettings
from swarmnode.rollout import Completion, Group, Origin, Question
from swarmnode.swarm import sampling
from swarmnode.swarm.admission import Offer, refuse_announcement, refuse_item, refuse_rollout
from swarmnode.swarm.transport import (
    Announced,
    Fetched,
    FetchFailed,
    FetchProblem,
    PeerNote,
    Transport,
)

log = logging.getLogger(__name__)

# Authors whose offers are remembered. With 64 offers each this is 64 MB at the very worst.
MAX_AUTHORS = 1024
# Ids of rollouts taken and of announcements heard, so that none counts twice. They are needed only
# for as long as offers live; this is hours at a few a second.
MAX_REMEMBERED = 65_536
# Seconds after which a fetch without an event is given up. The transport's own limit is shorter.
MAX_FETCH_S = 60.0


# Problems after which the same fetch is not tried again; the others pass.
_FINAL_PROBLEMS = frozenset((FetchProblem.ABSENT, FetchProblem.MALFORMED))


@dataclass(frozen=True, slots=True)
class Arrival:
    """A peer's rollout that was admitted: its question as rebuilt here, and whose it is."""

    question: Question
    rollout: Rollout
    origin: Origin

    @property
    def completions(self) -> tuple[Completion, ...]:
        rollout = self.rollout
        columns = zip(
            rollout.texts, rollout.mean_logps, rollout.token_counts, rollout.ended, strict=True
        )
        return tuple(
            Completion(text, mean_logp, token_count, ended=ended)
            for text, mean_logp, token_count, ended in columns
        )

    def scored(self, rewards: Sequence[float]) -> Group:
        """The group that this becomes with our rewards, one per completion."""
        return Group(
            self.question,
            self.completions,
            tuple(rewards),
            self.rollout.policy_version,
            self.rollout.temperature,
            self.origin,
        )


@dataclass(frozen=True, slots=True)
class Published:
    """An own group and the question number its question was drawn by."""

    number: int
    group: Group


class Exchange:
    """What this node knows of its peers' offers, and its dealings with the transport.

    `rebuild(task_digest, generator_seed)` makes the question; `tasks` are the digests it knows.
    """

    def __init__(
        self,
        transport: Transport,
        settings: SharingSettings,
        *,
        swarm_id: bytes,
        signing_key: bytes,
        public_key: bytes,
        model_label: str,
        tasks: Iterable[bytes],
        rebuild: Callable[[bytes, int], Question],
    ) -> None:
        self._transport = transport
        self._settings = settings
        self._swarm_id = swarm_id
        self._signing_key = signing_key
        self._public_key = public_key
        self._model_label = model_label
        self._tasks = frozenset(tasks)
        self._rebuild = rebuild
        # author → its newest announcements, each a list of offers
        self._offers: OrderedDict[bytes, deque[list[Offer]]] = OrderedDict()
        self._heard: OrderedDict[bytes, None] = OrderedDict()  # announcements taken
        self._in_flight: dict[bytes, tuple[Offer, float]] = {}  # id → offer, when asked
        self._taken: OrderedDict[bytes, None] = OrderedDict()
        self.refused: Counter[Reason] = Counter()
        self.missed: Counter[str] = Counter()
        self.announced = 0  # offers heard of
        self.fetched = 0  # frames received
        self.published = 0  # rollouts offered

    def publish(self, groups: Sequence[Published], *, round: int, now: float) -> int:
        """Holds the groups for peers and announces them; returns how many rollouts that made.

        A group above the protocol's completions becomes several rollouts of one question.
        Questions of the held-out split are a bug of the caller (`ValueError`).
        """
        items: list[Item] = []
        for published in groups:
            if published.group.question.held_out:
                raise ValueError("a held-out question must not be published")
            for rollout in self._rollouts(published, now):
                sealed = envelope.seal(rollout, self._signing_key, self._swarm_id)
                self._transport.hold(sealed.id, sealed.frame)
                items.append(Item(sealed.id, rollout.task_digest, rollout.seed, len(sealed.frame)))
        version = groups[-1].group.policy_version if groups else 0
        announcement = Announcement.build(
            round=round,
            created=now,
            policy_version=version,
            model_label=self._model_label,
            items=items[: limits.MAX_ITEMS],
        )
        frame = envelope.seal(announcement, self._signing_key, self._swarm_id).frame
        self._transport.publish(frame)
        self.published += len(items)
        return len(items)

    def request(self, count: int, rng: Random, now: float) -> int:
        """Fetches `count` offers, chosen by `sampling`; returns how many were asked for."""
        self._expire(now)
        open_offers = [
            offer for announcements in self._offers.values() for offers in announcements
            for offer in offers if self._is_open(offer)
        ]  # fmt: skip
        chosen = sampling.choose_offers(open_offers, count, rng)
        by_author: dict[bytes, list[bytes]] = {}
        for offer in chosen:
            self._in_flight[offer.item.rollout_id] = (offer, now)
            by_author.setdefault(offer.author, []).append(offer.item.rollout_id)
        for author, ids in by_author.items():
            for start in range(0, len(ids), limits.MAX_FETCH_IDS):
                self._transport.fetch(peer_id(author), ids[start : start + limits.MAX_FETCH_IDS])
        return len(chosen)

    def collect(self, *, round: int, now: float) -> list[Arrival]:
        """Takes in all that arrived since the last call; returns the admitted rollouts."""
        arrivals = []
        for event in self._transport.poll():
            match event:
                case Announced():
                    self._note_announcement(event, now)
                case Fetched():
                    arrival = self._admit(event, round, now)
                    if arrival is not None:
                        arrivals.append(arrival)
                case FetchFailed():
                    for id in event.ids:
                        self._in_flight.pop(id, None)
                        if event.problem in _FINAL_PROBLEMS:
                            _remember_id(self._taken, id)
                    self.missed[event.problem.value] += len(event.ids)
                case PeerNote():
                    log.warning("%s", event.text)
        return arrivals

    @property
    def in_flight(self) -> int:
        """Rollouts asked for that have not come yet."""
        return len(self._in_flight)

    @property
    def peers_heard(self) -> int:
        """Peers with offers that this node could fetch from."""
        return len(self._offers)

    def refuse(self, reason: Reason) -> None:
        """Counts a refusal that the caller decided on (`unscorable`)."""
        self.refused[reason] += 1

    def state(self) -> dict[str, Any]:
        """What a resumed node needs: ids already taken and the counters, JSON-able."""
        return {
            "taken": [id.hex() for id in self._taken],
            "refused": {reason.value: count for reason, count in self.refused.items()},
            "missed": dict(self.missed),
            "announced": self.announced,
            "fetched": self.fetched,
            "published": self.published,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restores what `state` returned."""
        self._taken = OrderedDict((bytes.fromhex(id), None) for id in state["taken"])
        self.refused = Counter({Reason(name): count for name, count in state["refused"].items()})
        self.missed = Counter(state["missed"])
        self.announced = state["announced"]
        self.fetched = state["fetched"]
        self.published = state["published"]

    def _rollouts(self, published: Published, now: float) -> list[Rollout]:
        group, size = published.group, limits.MAX_COMPLETIONS
        parts = [
            group.completions[start : start + size]
            for start in range(0, len(group.completions), size)
        ]
        return [
            Rollout.build(
                task_digest=group.question.digest,
                seed=published.number,
                created=now,
                policy_version=group.policy_version,
                temperature=group.temperature,
                model_label=self._model_label,
                texts=[completion.text for completion in part],
                mean_logps=[completion.mean_logp for completion in part],
                token_counts=[completion.token_count for completion in part],
                ended=[completion.ended for completion in part],
            )
            for part in parts
        ]

    def _note_announcement(self, event: Announced, now: float) -> None:
        opened = self._open(event.frame)
        if opened is None:
            return
        message = opened.message
        if type(message) is not Announcement:
            self.refused[Reason.UNKNOWN_KIND] += 1
            return
        reason = refuse_announcement(
            opened.author, message, event.peer, self._public_key, now, self._settings.max_age_s
        )
        if reason is None and opened.id in self._heard:
            reason = Reason.DUPLICATE
        if reason is not None:
            self.refused[reason] += 1
            return
        _remember_id(self._heard, opened.id)
        offers = []
        for item in message.items:
            if (reason := refuse_item(item, self._tasks)) is not None:
                self.refused[reason] += 1
            elif item.rollout_id not in self._taken:
                offers.append(Offer(opened.author, item, float(message.created), opened.id))
        self._remember(opened.author, offers)
        self.announced += len(offers)

    def _remember(self, author: bytes, offers: list[Offer]) -> None:
        newest = self._offers.setdefault(author, deque(maxlen=self._settings.keep_announcements))
        newest.append(offers)
        self._offers.move_to_end(author)
        while len(self._offers) > MAX_AUTHORS:
            self._offers.popitem(last=False)

    def _admit(self, event: Fetched, round: int, now: float) -> Arrival | None:
        asked = self._in_flight.pop(event.id, None)
        if asked is None:
            return None  # answered after we gave up on it
        offer, _ = asked
        self.fetched += 1
        _remember_id(self._taken, event.id)
        opened = self._open(event.frame)
        if opened is None:
            return None
        reason = refuse_rollout(opened, len(event.frame), offer, now, self._settings.max_age_s)
        if reason is not None:
            self.refused[reason] += 1
            return None
        rollout = opened.message
        assert type(rollout) is Rollout
        return self._arrival(opened, rollout, round)

    def _arrival(self, opened: Opened, rollout: Rollout, round: int) -> Arrival | None:
        seed = question_seed(self._swarm_id, opened.author, rollout.task_digest, rollout.seed)
        question = self._rebuild(rollout.task_digest, seed)
        if question.held_out:
            self.refused[Reason.HELD_OUT] += 1
            return None
        origin = Origin(
            opened.author, opened.id, rollout.model_label, float(rollout.created), round
        )
        return Arrival(question, rollout, origin)

    def _open(self, frame: bytes) -> Opened | None:
        try:
            return envelope.open_frame(frame, self._swarm_id)
        except ProtocolError as error:
            self.refused[error.reason] += 1
            log.debug("refused reason=%s detail=%s", error.reason, error.detail)
            return None

    def _is_open(self, offer: Offer) -> bool:
        id = offer.item.rollout_id
        return id not in self._taken and id not in self._in_flight

    def _expire(self, now: float) -> None:
        for id, (_, asked) in list(self._in_flight.items()):
            if asked < now - MAX_FETCH_S:  # its event was lost to a full queue
                del self._in_flight[id]
                self.missed["no_answer"] += 1
        oldest = now - self._settings.max_age_s
        for author in list(self._offers):
            announcements = self._offers[author]
            while announcements and all(offer.created < oldest for offer in announcements[0]):
                announcements.popleft()
            if not announcements:
                del self._offers[author]


def _remember_id(ids: OrderedDict[bytes, None], id: bytes) -> None:
    ids[id] = None
    while len(ids) > MAX_REMEMBERED:
        ids.popitem(last=False)
