"""The simulator as a user runs it, at a size that takes seconds, and what its checks see."""

import json
import math
import subprocess
import sys
from collections.abc import Container, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from fakes import peer_group

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "examples"))

from simulated_swarm.air import Air  # noqa: E402
from simulated_swarm.checks import Checks, Violation  # noqa: E402
from simulated_swarm.member import Member, Round, Setting, question  # noqa: E402
from simulated_swarm.signing import StandIn, public_key  # noqa: E402
from simulated_swarm.swarm import Plan, Swarm  # noqa: E402

from protocol.envelope import seal  # noqa: E402
from protocol.errors import ProtocolError  # noqa: E402
from protocol.messages import Announcement  # noqa: E402
from swarmnode.config import SharingSettings  # noqa: E402
from swarmnode.rollout import Group, Question  # noqa: E402
from swarmnode.swarm.admission import Offer  # noqa: E402
from swarmnode.swarm.asking import Asking  # noqa: E402
from swarmnode.swarm.bounded import RecentIds  # noqa: E402
from swarmnode.swarm.pool import Pool  # noqa: E402
from swarmnode.swarm.transport import FetchProblem  # noqa: E402

pytestmark = pytest.mark.slow

SMALL = Plan(nodes=12, rounds=12, warm_up=3, churn=0.02, liars=0.2, loss=0.02, max_age_s=300.0)


def test_a_small_swarm_from_the_command_line(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    command = [sys.executable, "examples/swarm_simulator.py", "--nodes", "8", "--rounds", "6"]
    done = subprocess.run(
        [*command, "--warm-up", "3", "--out", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split()[0] == "nodes"
    (result,) = json.loads(out.read_text())["results"]
    assert result["shards_median"] == 1
    assert result["announcements_delivered"] > 0.9
    assert result["places_filled"] > 0.5
    assert result["signatures_checked"] > result["signatures_made"]


def test_the_same_seed_gives_the_same_figures_and_another_seed_others() -> None:
    def figures(seed: int) -> dict[str, object]:
        result = Swarm(Plan(nodes=8, rounds=6, warm_up=2, churn=0.05, seed=seed)).run()
        return {key: value for key, value in result.items() if key != "cpu_seconds"}

    assert figures(1) == figures(1)
    assert figures(1) != figures(2)


def test_with_churn_losses_and_liars_all_that_is_checked_holds() -> None:
    result = Swarm(SMALL).run()
    assert result["groups_trained_per_node_round"] > 1
    assert result["share_of_peers_reached"] > 0.3


def test_without_losses_nothing_is_given_up_that_its_author_holds() -> None:
    swarm = Swarm(Plan(nodes=12, rounds=12, warm_up=0, churn=0.05, liars=0.0, loss=0.0))
    result = swarm.run()
    assert result["given_up_though_held"] == 0
    assert result["fetches_delivered"] > 0.8


def test_a_swarm_above_the_limit_has_shards_and_they_agree() -> None:
    plan = Plan(nodes=400, rounds=3, warm_up=1, liars=0.0, churn=0.0, text_bytes=20)
    result = Swarm(plan).run()
    lowest, highest = result["shards_range"]
    assert lowest == highest in (8, 16)
    assert 60 <= result["announcements_heard_per_node_round"] <= 160
    assert result["places_filled"] > 0.15  # of three rounds the last one trains


# --- the checks see what they are for ---


def test_sees_an_accepted_held_out_question() -> None:
    def lenient(digest: bytes, seed: int) -> Question:
        return replace(question(digest, seed), held_out=False)

    swarm = Swarm(Plan(nodes=6, rounds=8, warm_up=0, liars=1.0, loss=0.0), rebuild=lenient)
    with pytest.raises(Violation, match="held-out"):
        swarm.run()


class Hoarding(Pool):
    """Keeps what was trained on."""

    def take(self, chosen: Sequence[Group]) -> None:
        del chosen


class Careless(RecentIds):
    """Remembers nothing."""

    def add(self, id: bytes, now: float) -> None:
        del id, now


class Forgetful(Asking):
    """Knows an offer only as long as it is in flight."""

    def forget(self, taken: Container[bytes], oldest: float) -> None:
        del oldest
        super().forget(taken, math.inf)


class Impatient(Asking):
    """Asks nobody twice."""

    def failed(self, offer: Offer, peer: bytes, problem: FetchProblem, now: float) -> None:
        del problem, now
        self.blame(offer, peer)


class Hoarder(Member):
    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.pool = Hoarding(256, 600.0, 5)


class CarelessOne(Member):
    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.exchange._taken = Careless(1, 1.0)


class ForgetfulOne(Member):
    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.exchange._asking = Forgetful(self.transport, self.public_key)


class ImpatientOne(Member):
    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.exchange._asking = Impatient(self.transport, self.public_key)


class Inventor(Member):
    """Says that it took what it never asked for."""

    def run_round(self, now: float) -> Round:
        done = super().run_round(now)
        for arrival in done.arrived[:1]:
            origin = replace(arrival.origin, rollout_id=self.rng.randbytes(32))
            done.arrived.append(replace(arrival, origin=origin))
        return done


@pytest.mark.parametrize(
    ("kind", "seen"),
    [
        (Inventor, "not asked for"),
        (Hoarder, "trained on twice"),
        (CarelessOne, "taken twice"),
        (ForgetfulOne, "forgotten that was asked for and can be had"),
        (ImpatientOne, "given up that can be had"),
    ],
)
def test_sees_nodes_that_break_what_must_hold(kind: type[Member], seen: str) -> None:
    """Half of the fetches are lost, so that much has to be asked for again."""
    plan = Plan(nodes=6, rounds=14, warm_up=0, churn=0.0, liars=0.0, loss=0.5, text_bytes=20)
    Swarm(plan).run()  # with the node's own code all holds
    with pytest.raises(Violation, match=seen):
        Swarm(plan, kind=kind).run()


def round_of(member: Member, *groups: Group) -> Round:
    return Round(arrived=[], chosen=list(groups), asked=0)


def test_sees_what_is_trained_on_twice_or_too_late_or_is_its_own() -> None:
    checks, one = checks_and_member()
    group = peer_group([1, 0], created=1000.0, received_round=one.round)
    checks.check(one, round_of(one, group), 1000.0)
    with pytest.raises(Violation, match="twice"):
        checks.check(one, round_of(one, group), 1001.0)
    old = peer_group([1, 0], author=2, created=1000.0)
    with pytest.raises(Violation, match="601 s old"):
        checks.check(one, round_of(one, old), 1601.0)
    late = peer_group([1, 0], author=3, created=1600.0, received_round=one.round - 6)
    with pytest.raises(Violation, match="waited"):
        checks.check(one, round_of(one, late), 1601.0)
    origin = replace(late.origin, author=one.public_key, received_round=0)
    with pytest.raises(Violation, match="its own"):
        checks.check(one, round_of(one, replace(late, origin=origin)), 1601.0)


def test_sees_what_grows() -> None:
    checks, one = checks_and_member(pool_groups=1)
    for author in (1, 2):
        one.pool.add(peer_group([1, 0], author=author))
    with pytest.raises(Violation, match="pool has 2 entries, more than 1"):
        checks.check(one, round_of(one), 0.0)


def checks_and_member(**sharing: Any) -> tuple[Checks, Member]:
    """A member with the usual settings, and checks for `sharing`."""
    air = Air(Random(1), 0.0, 0.1, float("inf"))
    setting = Setting(SharingSettings(max_age_s=600.0), 4, "x" * 2000, 10)
    member = Member(b"key", air, StandIn(), setting)
    member.transport.open()
    return Checks(SharingSettings(**{"max_age_s": 600.0, **sharing}), air, 4096), member


def test_the_stand_in_for_signatures_sees_changed_bytes_and_real_ones() -> None:
    signing, swarm_id = StandIn(), bytes(32)
    message = Announcement.build(
        round=1, created=1, policy_version=0, model_label="", items=[], held=[]
    )
    sealed = signing.seal(message, b"seed", swarm_id)
    opened = signing.open_frame(sealed.frame, swarm_id)
    assert (opened.id, opened.author, opened.message) == (sealed.id, public_key(b"seed"), message)
    real = seal(message, bytes(32), swarm_id)
    assert len(real.frame) == len(sealed.frame)
    changed = bytearray(sealed.frame)
    changed[Random(1).randrange(34, 98)] ^= 1
    for frame in (bytes(changed), real.frame):
        with pytest.raises(ProtocolError, match="signed"):
            signing.open_frame(frame, swarm_id)
