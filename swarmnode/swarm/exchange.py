"""This node's side of the exchange: publish own groups, note offers, fetch, admit, serve on.

Holds no model and scores nothing: `collect` returns rollouts whose question was rebuilt here and
that the caller still has to score. Everything it keeps is bounded. It counts what it refuses, by
reason, and what it never got, by problem; the caller turns counts into metrics.
"""

import hashlib
import logging
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from random import Random
from typing import Any

from protocol import envelope
from protocol.envelope import Opened, Sealed
from protocol.errors import ProtocolError, Reason
from protocol.messages import Announcement, Rollout
from protocol.names import peer_id, public_key_of, question_seed
from swarmnode.config import SharingSettings, TrustSettings
from swarmnode.rollout import Group, Origin, Question
from swarmnode.swarm.admission import (
    MAX_AHEAD_S,
    Offer,
    offers_of,
    refuse_announcement,
    refuse_item,
    refuse_rollout,
    refuse_unread,
)
from swarmnode.swarm.asking import Asking
from swarmnode.swarm.bounded import RecentIds
from swarmnode.swarm.clocks import Clocks
from swarmnode.swarm.conversion import Arrival
from swarmnode.swarm.offers import MAX_AUTHORS, Offers
from swarmnode.swarm.publishing import Published, Publisher
from swarmnode.swarm.sharding import AUDIENCE, SCALES, Sharding
from swarmnode.swarm.standing import Offence
from swarmnode.swarm.transport import (
    Announced,
    AnyEvent,
    Fetched,
    FetchFailed,
    FetchProblem,
    PeerNote,
    Transport,
)
from swarmnode.swarm.trust import Trust

log = logging.getLogger(__name__)

# Rollouts taken and announcements heard are remembered for as long as they could be admitted, so
# that none counts twice, and no more of each than this: 90 a second at the default `max_age_s`.
MAX_REMEMBERED = 65_536
# What an author's failure to serve what it announced says about it. Being unreachable says nothing.
_OFFENCES = {
    FetchProblem.ABSENT: Offence.WITHHELD,
    FetchProblem.MALFORMED: Offence.FALSE,
    FetchProblem.TIMEOUT: Offence.STALLED,
}
# Seconds after which the network is told again that an author is avoided: it forgets when it is
# restarted. And how many are told of.
_TELL_AGAIN_S, _MAX_TOLD = 60.0, 1024
_TRUST = TrustSettings()
Message = Announcement | Rollout


class Exchange:
    """What this node knows of its peers' offers, and its dealings with the transport.

    `rebuild(task_digest, generator_seed)` makes the question; `tasks` are the digests it knows.
    `trust` is what strangers are allowed.
    `seal`, `open_frame` and `read_offers` are others in simulations only, where a hundred nodes in
    one process would each do the same work.
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
        audience: int = AUDIENCE,
        rebuild: Callable[[bytes, int], Question],
        trust: TrustSettings = _TRUST,
        seal: Callable[[Message, bytes, bytes], Sealed] = envelope.seal,
        open_frame: Callable[[bytes, bytes], Opened] = envelope.open_frame,
        read_offers: Callable[[Opened], Sequence[Offer]] = offers_of,
    ) -> None:
        self._transport = transport
        self._settings = settings
        self._swarm_id = swarm_id
        self._signing_key = signing_key
        self._public_key = public_key
        self._tasks = frozenset(tasks)
        self._rebuild = rebuild
        self._seal_frame = seal
        self._open_frame = open_frame
        self._read_offers = read_offers
        # What is admitted at a time is created `MAX_AHEAD_S` later at most, and then ages.
        lifetime_s = settings.max_age_s + MAX_AHEAD_S
        self._trust = Trust(trust, lifetime_s)
        self._avoid_s = trust.avoid_s
        known = self._trust.standing.is_established
        self._offers = Offers(settings.keep_announcements, is_known=known)
        self._sharding = Sharding(public_key, SCALES[audience])
        self._publisher = Publisher(
            transport, self._sharding, self._seal, model_label, settings.max_age_s
        )
        # Newest policy version that an author announced; the author silent longest is forgotten.
        self._versions: OrderedDict[bytes, int] = OrderedDict()
        self._asking = Asking(transport, public_key)
        self._events: list[AnyEvent] = []  # arrived, for the next `collect`
        self._seen = RecentIds(MAX_REMEMBERED, lifetime_s)  # digests of announcements' frames
        self._told = RecentIds(_MAX_TOLD, _TELL_AGAIN_S)  # authors the network was told to avoid
        self._heard = RecentIds(MAX_REMEMBERED, lifetime_s)  # ids of announcements
        self._taken = RecentIds(MAX_REMEMBERED, lifetime_s)  # keys of offers that are done with
        self.clocks = Clocks()
        self.refused: Counter[Reason] = Counter()
        self.missed: Counter[str] = Counter()
        self.announced = 0  # offers heard of
        self.fetched = 0  # frames received
        self.published = 0  # rollouts offered

    def listen(self, rng: Random, now: float) -> None:
        """Takes note of what was announced and decides what to listen to from now on, and where to
        announce. Before `publish`, so that a newcomer does not announce to all of a large swarm."""
        arrived = self._transport.poll()
        for event in arrived:
            if type(event) is Announced:
                self._note_announcement(event, now)
            else:
                self._events.append(event)
        before = self._sharding.listening
        self._sharding.update(now, rng)
        if self._sharding.listening != before:
            self._transport.listen(self._sharding.listening)
            log.info(
                "shards=%d listening=%d nodes=%.0f",
                self.shards, len(self._sharding.listening), self._sharding.estimate,
            )  # fmt: skip

    def publish(self, groups: Sequence[Published], *, round: int, now: float) -> int:
        """Holds the groups for peers and announces them; returns how many rollouts that made."""
        count = self._publisher.publish(groups, round=round, now=now)
        self.published += count
        return count

    def request(self, count: int, rng: Random, now: float) -> int:
        """Fetches `count` offers; returns how many were asked for. First those that could not be
        had before and for which there is another try, then what `sampling` chooses, then what only
        peers have that are away."""
        current = self._expire(now)
        taken, tried = self._taken.ids, self._asking.tried  # looked up for each of many offers
        fresh = [o for key, o in current.items() if key not in taken and key not in tried]
        again, again_away = self._asking.opened(self._asking.wanted(), now)
        new, new_away = self._asking.opened(fresh, now)
        asked = again[:count]
        asked += self._trust.draw(new, _author_of, count - len(asked), now, rng)
        asked += [*again_away, *new_away][: count - len(asked)]
        return self._asking.ask(asked, now)

    def collect(self, *, round: int, now: float) -> list[Arrival]:
        """Takes in all that arrived since the last call; returns the admitted rollouts."""
        arrivals = []
        events, self._events = [*self._events, *self._transport.poll()], []
        for event in events:
            match event:
                case Announced():
                    self._note_announcement(event, now)
                case Fetched():
                    arrival = self._admit(event, round, now)
                    if arrival is not None:
                        arrivals.append(arrival)
                case FetchFailed():
                    self._note_failure(event, now)
                case PeerNote():
                    log.warning("%s", event.text)
        return arrivals

    @property
    def in_flight(self) -> int:
        """Rollouts asked for that have not come yet."""
        return len(self._asking)

    @property
    def peers_heard(self) -> int:
        """Peers with offers that this node could fetch from."""
        return self._offers.authors

    def sizes(self) -> dict[str, int]:
        """How many entries each thing that is remembered has, by name."""
        return {
            "authors": self._offers.authors,
            "offers": len(self._offers),
            "versions": len(self._versions),
            "heard": len(self._heard),
            "taken": len(self._taken),
            "in_flight": len(self._asking),
            "asking": self._asking.remembered,
            "kept": len(self._publisher),
            "sharding": self._sharding.known,
            "listening": len(self._sharding.listening),
            "seen": len(self._seen),
            **self._trust.sizes(),
        }

    def offered(self) -> list[Offer]:
        """What peers offer now, as far as this node heard."""
        return list(self._offers.current().values())

    def wanted(self) -> list[Offer]:
        """Offers that were asked for and are neither there nor too old; those given up, too."""
        return [offer for offer in self._asking.wanted() if offer.key not in self._taken]

    def given_up(self) -> list[tuple[Offer, frozenset[bytes]]]:
        """Offers that were asked for in vain and that nobody is left to be asked for, with the keys
        of the peers that were asked. A new holder opens them again."""
        return [
            (offer, self._asking.asked(offer))
            for offer in self.wanted()
            if self._asking.is_given_up(offer)
        ]

    def lag(self, group: Group) -> int:
        """Optimiser steps that a peer has taken since it answered, as far as it announced them."""
        assert group.origin is not None
        newest = self._versions.get(group.origin.author, group.policy_version)
        return max(0, newest - group.policy_version)

    def refuse_unscorable(self, arrival: Arrival, now: float) -> None:
        """Takes note that the scorer hung on these texts, or died."""
        self.refused[Reason.UNSCORABLE] += 1
        self._blame(arrival.origin.author, Offence.UNSCORABLE, now)

    def refuse_unscored(self) -> None:
        """Takes note that a rollout was not scored because too many waited: nobody's fault."""
        self.refused[Reason.UNSCORABLE] += 1

    def note_scored(self, group: Group, now: float) -> None:
        """Takes note of our rewards for an admitted rollout: an author that got something right is
        a newcomer no more after some rounds, and nobody else's copy of it is taken."""
        assert group.origin is not None
        self._trust.note_scored(group, group.origin.received_round, now)

    def state(self) -> dict[str, Any]:
        """What a resumed node needs: rollouts already taken and the counters, JSON-able."""
        return {
            "taken": {key.hex(): when for key, when in self._taken.times().items()},
            "trust": self._trust.state(),
            "refused": {reason.value: count for reason, count in self.refused.items()},
            "missed": dict(self.missed),
            "announced": self.announced,
            "fetched": self.fetched,
            "published": self.published,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restores what `state` returned."""
        for key, when in state["taken"].items():
            self._taken.add(bytes.fromhex(key), when)
        if "trust" in state:  # a checkpoint of before lacks it
            self._trust.load_state(state["trust"])
        self.refused = Counter({Reason(name): count for name, count in state["refused"].items()})
        self.missed = Counter(state["missed"])
        self.announced = state["announced"]
        self.fetched = state["fetched"]
        self.published = state["published"]

    @property
    def shards(self) -> int:
        """Topics that the swarm's announcements are spread over, as this node sees it."""
        return self._sharding.own.of

    def _seal(self, message: Announcement | Rollout) -> Sealed:
        return self._seal_frame(message, self._signing_key, self._swarm_id)

    def _note_announcement(self, event: Announced, now: float) -> None:
        if (reason := self._refuse_unread(event, now)) is not None:
            self.refused[reason] += 1
            return
        opened = self._open(event.frame)
        if opened is None:
            return
        reason = refuse_announcement(
            opened, event.peer, event.shard, self._public_key, now, self._settings.max_age_s
        )
        if reason is None and opened.id in self._heard:
            reason = Reason.DUPLICATE
        if reason is not None:
            self.refused[reason] += 1
            self._say_of_clocks(event.peer, opened, reason, now)
            return
        self.clocks.accept(event.peer)
        self._heard.add(opened.id, now)
        self._sharding.heard(opened.author, event.shard, now)
        message = opened.message
        assert type(message) is Announcement
        self._asking.note_held(opened.author, message.packed_held)
        offers = self._wanted(opened.author, self._read_offers(opened), message.created, now)
        self._offers.add(opened.author, offers)
        self._note_version(opened.author, message.policy_version)
        self.announced += len(offers)

    def _refuse_unread(self, event: Announced, now: float) -> Reason | None:
        """Why an announcement is refused before its signature is checked, or None."""
        publisher = refuse_unread(event.frame, event.peer, self._public_key)
        if isinstance(publisher, Reason):
            return publisher
        # Not by the frame alone: who repeats another's is told apart from who repeats its own.
        of, number = event.shard
        key = publisher + of.to_bytes(4) + number.to_bytes(4)
        seen = hashlib.blake2b(event.frame, key=key, digest_size=16).digest()
        if seen in self._seen:
            return Reason.DUPLICATE
        if publisher == self._public_key:
            return None  # our own, echoed
        reason = self._trust.refuse_unread(publisher, now)
        if reason is Reason.OVER_QUOTA:
            self._blame(publisher, Offence.FLOOD, now)
        elif reason is Reason.AVOIDED:
            self._cut(publisher, now)
        else:
            self._seen.add(seen, now)
        return reason

    def _wanted(
        self, author: bytes, offers: Sequence[Offer], created: int, now: float
    ) -> list[Offer]:
        """Those of an announcement's offers that may be fetched; counts and blames the others."""
        if (reason := self._trust.refuse_offers(author, len(offers), now)) is not None:
            self.refused[reason] += len(offers)
            return []
        wanted, foreign = [], False
        for offer in offers:
            reason = refuse_item(offer.item, self._tasks)
            foreign |= reason is not None
            reason = reason or self._trust.refuse_number(author, offer.item, created, now)
            if reason is not None:
                self.refused[reason] += 1
            elif offer.key not in self._taken:
                wanted.append(offer)
        if foreign:
            self._blame(author, Offence.UNKNOWN_TASK, now)
        return wanted

    def _blame(self, author: bytes, offence: Offence, now: float) -> None:
        """Holds an offence against `author`, and has nothing more to do with it if that is one too
        many."""
        if self._trust.blame(author, offence, now):
            log.info("avoiding peer=%s for_s=%g", peer_id(author), self._avoid_s)
            self._offers.drop(author)
            self._asking.drop(author)
            self._cut(author, now)

    def _cut(self, author: bytes, now: float) -> None:
        if not self._told.is_fresh(author, now):
            self._told.add(author, now)
            self._transport.avoid(peer_id(author), self._avoid_s)

    def _say_of_clocks(self, peer: str, opened: Opened, reason: Reason, now: float) -> None:
        if reason in (Reason.FROM_FUTURE, Reason.TOO_OLD):
            note = self.clocks.refuse(peer, float(opened.message.created), now)
            if note:
                log.warning("%s", note)

    def _note_version(self, author: bytes, version: int) -> None:
        self._versions[author] = max(version, self._versions.get(author, 0))
        self._versions.move_to_end(author)
        while len(self._versions) > MAX_AUTHORS:
            self._versions.popitem(last=False)

    def _note_failure(self, event: FetchFailed, now: float) -> None:
        peer, is_author = public_key_of(event.peer), False
        for id in event.ids:
            offer = self._asking.answered(peer, id)
            if offer is not None:  # else given up on, and counted, before
                is_author |= peer == offer.author
                self.missed[event.problem.value] += 1
                self._asking.failed(offer, peer, event.problem, now)
        offence = _OFFENCES.get(event.problem)
        if is_author and offence is not None:  # once, however much it was asked for
            self._blame(peer, offence, now)

    def _admit(self, event: Fetched, round: int, now: float) -> Arrival | None:
        peer = public_key_of(event.peer)
        offer = self._asking.answered(peer, event.id)
        if offer is None or offer.key in self._taken:
            return None  # answered after we gave up on it
        self.fetched += 1
        self._asking.note_there(peer)
        opened = self._open(event.frame)
        reason = None
        if opened is not None:
            reason = refuse_rollout(opened, len(event.frame), offer, now, self._settings.max_age_s)
        if reason is not None:
            self.refused[reason] += 1
        if peer == offer.author:
            self._trust.standing.locate(peer, event.address, now)
        if opened is None or reason is Reason.NOT_ANNOUNCED:
            self._blame(peer, Offence.FALSE, now)
            if peer != offer.author:  # what another served says nothing about the author
                self._asking.blame(offer, peer)
                return None
        self._taken.add(offer.key, now)
        if opened is None or reason is not None:
            return None
        rollout = opened.message
        assert type(rollout) is Rollout
        arrival = self._arrival(opened, self._trust.cleaned(rollout), round)
        if arrival is not None:
            self._publisher.serve_on(arrival.origin, event.frame)
        return arrival

    def _arrival(self, opened: Opened, rollout: Rollout, round: int) -> Arrival | None:
        seed = question_seed(self._swarm_id, opened.author, rollout.task_digest, rollout.seed)
        question = self._rebuild(rollout.task_digest, seed)
        if question.held_out:
            self.refused[Reason.HELD_OUT] += 1
            return None
        if (reason := self._trust.refuse_texts(opened.author, question, rollout.texts)) is not None:
            self.refused[reason] += 1
            return None
        network = self._trust.standing.network(opened.author)
        created = float(rollout.created)
        origin = Origin(opened.author, opened.id, rollout.model_label, created, round, network)
        return Arrival(question, rollout, origin)

    def _open(self, frame: bytes) -> Opened | None:
        try:
            return self._open_frame(frame, self._swarm_id)
        except ProtocolError as error:
            self.refused[error.reason] += 1
            log.debug("refused reason=%s detail=%s", error.reason, error.detail)
            return None

    def _expire(self, now: float) -> Mapping[bytes, Offer]:
        """Forgets what is too old; returns the offers that are current, by their keys."""
        oldest = now - self._settings.max_age_s
        self._offers.expire(oldest)
        lost = self._asking.expire(now)  # their events were lost to a full queue
        if lost:
            self.missed["no_answer"] += lost
        self._asking.forget(self._taken.ids, oldest)
        return self._offers.current()


def _author_of(offer: Offer) -> bytes:
    return offer.author
