"""The whole swarm: the clock, joining and leaving, and what is measured."""

import hashlib
import heapq
import itertools
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from protocol.messages import Announcement
from protocol.names import WHOLE, rank_of
from simulated_swarm.air import Air, Count
from simulated_swarm.checks import Checks
from simulated_swarm.member import SWARM, Liar, Member, Setting, question
from simulated_swarm.signing import StandIn
from swarmnode.config import SharingSettings, TrustSettings
from swarmnode.rollout import Question
from swarmnode.swarm.sharding import AUDIENCE, SCALES
from swarmnode.swarm.transport import Announced

_START = 1_700_000_000.0
_WORDS = 20_000
_REMEMBERED = 10  # frames for each node: those of two to four rounds
_TRUSTING = TrustSettings(
    quotas=False, fair_shares=False, standing=False, numbers=False, copies=False, visible=False
)


@dataclass(frozen=True)
class Plan:
    """What is simulated. Chances are per node and round."""

    nodes: int
    rounds: int
    seed: int = 1
    round_s: float = 30.0
    churn: float = 0.005
    residents: int = 0  # nodes that neither leave nor lie
    loss: float = 0.01
    delay_s: float = 0.3
    liars: float = 0.02
    questions: int = 4  # of one node in a round, and groups of peers that it wants
    text_bytes: int = 60  # of one completion; longer ones are compared with all that were taken
    max_age_s: float = 600.0
    upload: float = float("inf")
    warm_up: int = 10  # rounds that are not measured
    # The rules for strangers (`TrustSettings`), which keep a third of what a node keeps.
    trust: bool = True
    audience: int = AUDIENCE  # authors that a node hears: one of `SCALES`
    max_authors: int = TrustSettings().max_authors  # that these rules remember


class Swarm:
    """Runs a plan. Everything follows from its seed. `rebuild` and `kind` are others in tests of
    the checks."""

    def __init__(
        self,
        plan: Plan,
        rebuild: Callable[[bytes, int], Question] = question,
        kind: type[Member] = Member,
    ) -> None:
        self.plan = plan
        self._kind = kind
        self._rng = random.Random(plan.seed)
        self._air = Air(random.Random(plan.seed + 1), plan.loss, plan.delay_s, plan.upload)
        self._air.now = _START
        self._signing = StandIn(_REMEMBERED * plan.nodes)
        sharing = SharingSettings(max_age_s=plan.max_age_s, external=plan.questions)
        book = _book(self._rng)
        trust = TrustSettings(max_authors=plan.max_authors) if plan.trust else _TRUSTING
        self._setting = Setting(
            sharing, plan.questions, book, plan.text_bytes, rebuild, trust, plan.audience
        )
        self._checks = Checks(sharing, self._air, trust.max_authors, SCALES[plan.audience])
        self._due: list[tuple[float, int, Member]] = []
        self._numbers = itertools.count()
        self._node_rounds = 0
        self._bytes_in = self._bytes_out = 0
        self._trained = self._arrived = self._asked = 0
        self._met: dict[bytes, set[bytes]] = {}
        self._fed: dict[bytes, float] = {}  # when a node last trained on peers' groups, or came
        self._longest_hungry_s = 0.0
        self.residents: list[Member] = []
        self.sizes: list[dict[str, int]] = []  # largest of each tenth of the rounds

    def run(
        self, on_round: Callable[[dict[str, Any]], None] = lambda so_far: None
    ) -> dict[str, Any]:
        """Simulates it all; returns what was measured. Raises `Violation`. `on_round` is told what
        was measured so far after every round."""
        began = time.process_time()
        for _ in range(self.plan.nodes):
            self._join(self._rng.uniform(0, self.plan.round_s))
        self._tell_of_the_swarm()
        measured_from = _START + self.plan.warm_up * self.plan.round_s
        end = _START + (self.plan.warm_up + self.plan.rounds) * self.plan.round_s
        tenth = (end - _START) / 10
        next_tenth = _START + tenth
        is_measured = False
        next_round = _START + self.plan.round_s
        while self._due[0][0] < end:
            now, _, member = heapq.heappop(self._due)
            if now >= next_round:
                on_round(self._result(next_round, time.process_time() - began))
                next_round += self.plan.round_s
            if not is_measured and now >= measured_from:
                is_measured = True
                self._reset()
            if now >= next_tenth:
                next_tenth += tenth
                self.sizes.append(dict(self._checks.largest))
                self._checks.largest.clear()
            self._air.now = now
            self._step(member, now)
        self.sizes.append(dict(self._checks.largest))
        return self._result(end, time.process_time() - began)

    def _step(self, member: Member, now: float) -> None:
        if self._rng.random() < self.plan.churn and member not in self.residents:
            self._leave(member)
            self._join(self._rng.uniform(0, self.plan.round_s))
            return
        done = member.run_round(now)
        self._checks.check(member, done, now)
        if member.round % 10 == 0:
            self._checks.check_nothing_is_lost(member, now)
        if done.chosen:
            hungry_s = now - self._fed.get(member.public_key, now)
            self._longest_hungry_s = max(self._longest_hungry_s, hungry_s)
            self._fed[member.public_key] = now
        self._node_rounds += 1
        self._trained += len(done.chosen)
        self._arrived += len(done.arrived)
        self._asked += done.asked
        if not self.plan.residents:  # who stays meets more and more
            met = self._met.setdefault(member.public_key, set())
            met.update(group.origin.author for group in done.chosen if group.origin)
        pause = self.plan.round_s * self._rng.uniform(0.8, 1.2)
        heapq.heappush(self._due, (now + pause, next(self._numbers), member))

    def _join(self, after_s: float) -> None:
        number = next(self._numbers)
        key = hashlib.sha256(b"%d %d" % (self.plan.seed, number)).digest()
        lies = self._rng.random() < self.plan.liars
        stays = len(self.residents) < self.plan.residents
        kind = Liar if lies and not stays else self._kind
        member = kind(key, self._air, self._signing, self._setting)
        if stays:
            self.residents.append(member)
        member.transport.open()
        # It listens while it answers its first questions.
        first = self._air.now + after_s + self.plan.round_s
        self._fed[member.public_key] = first
        heapq.heappush(self._due, (first, number, member))

    def _leave(self, member: Member) -> None:
        self._bytes_in += member.transport.bytes_in
        self._bytes_out += member.transport.bytes_out
        member.transport.close()
        self._checks.forget(member)
        self._met.pop(member.public_key, None)
        self._fed.pop(member.public_key, None)

    def _tell_of_the_swarm(self) -> None:
        """A large swarm did not start at once: all have heard who was there before."""
        scale = SCALES[self.plan.audience]
        if self.plan.nodes <= scale.split_above:
            return
        members = [member for _, _, member in self._due]
        for member in heapq.nsmallest(scale.sample, members, key=lambda m: rank_of(m.public_key)):
            beacon = Announcement.build(
                round=0, created=_START, policy_version=0, model_label="", items=[]
            )
            frame = self._signing.seal(beacon, member.key, SWARM).frame
            event = Announced(member.transport.peer_id, frame, WHOLE)
            for other in members:
                if other is not member:
                    other.transport.inbox.append((_START, event))

    def _reset(self) -> None:
        self._air.count = Count()
        self._bytes_in = self._bytes_out = self._node_rounds = 0
        self._trained = self._arrived = self._asked = 0
        self._met.clear()
        self._longest_hungry_s = 0.0
        for _, _, member in self._due:
            member.transport.bytes_in = member.transport.bytes_out = 0
            member.exchange.missed.clear()

    def _result(self, now: float, seconds: float) -> dict[str, Any]:
        members = [member for _, _, member in self._due]
        rounds, count = max(1, self._node_rounds), self._air.count
        bytes_in = self._bytes_in + sum(m.transport.bytes_in for m in members)
        bytes_out = self._bytes_out + sum(m.transport.bytes_out for m in members)
        heard = count.announced + count.lost
        missed = sum(m.exchange.missed.total() for m in members)
        wanted = rounds * members[0].mixing.external
        shards = sorted(m.exchange.shards for m in members)
        met = [len(one) for one in self._met.values()]
        return {
            "nodes": self.plan.nodes,
            "rounds": round((now - _START) / self.plan.round_s) - self.plan.warm_up,
            "seed": self.plan.seed,
            "bytes_in_per_node_round": round(bytes_in / rounds),
            "bytes_out_per_node_round": round(bytes_out / rounds),
            "announcements_heard_per_node_round": round(count.announced / rounds, 1),
            "announcement_bytes_per_node_round": round(count.announced_bytes / rounds),
            "fetched_bytes_per_node_round": round(count.fetched_bytes / rounds),
            "announcements_delivered": round(count.announced / max(1, heard), 4),
            "fetches_delivered": round(count.delivered / max(1, count.asked), 4),
            "rollouts_asked_per_node_round": round(self._asked / rounds, 2),
            "rollouts_arrived_per_node_round": round(self._arrived / rounds, 2),
            "missed_per_node_round": round(missed / rounds, 3),
            "groups_trained_per_node_round": round(self._trained / rounds, 2),
            "places_filled": round(self._trained / wanted, 4),
            "peers_trained_from": round(sum(met) / max(1, len(met)), 1),
            "share_of_peers_reached": round(
                sum(met) / max(1, len(met)) / max(1, self.plan.nodes - 1), 4
            ),
            "longest_without_peers_groups_s": round(self._longest_hungry_s, 1),
            "shards_median": shards[len(shards) // 2],
            "shards_range": [shards[0], shards[-1]],
            "given_up": self._checks.count["given_up"],
            "given_up_though_held": self._checks.count["given_up_though_held"],
            "signatures_made": self._signing.signed,
            "signatures_checked": self._signing.verified,
            "largest": dict(self._checks.largest),
            "cpu_seconds": round(seconds, 1),
        }


def _book(rng: random.Random) -> str:
    """Made-up prose that compresses about as recorded reasoning does: to some 45 %."""
    letters = "etaoinshrdlucmfwygp"
    words = ["".join(rng.choices(letters, k=rng.randint(2, 9))) for _ in range(3000)]
    return " ".join(rng.choice(words) for _ in range(_WORDS))
