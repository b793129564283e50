"""Each fault once, on a swarm of both libraries, and what must hold after it: `make chaos`.

What was announced and is still held reaches everyone, nothing is taken twice, a node's own calls
return at once, and every swarm is whole again within the time it is given.
"""

import logging
import time
from collections.abc import Iterator

import pytest
from swarm_of import Fault, Swarm, swarm_of, until

from protocol.errors import Reason

pytestmark = [pytest.mark.network, pytest.mark.slow, pytest.mark.chaos]

MERGE_S = 60.0
HANG_S = 30.0
FAULTS = {
    "delay of 300 ms ± 200": Fault(delay_s=0.3, jitter_s=0.2),
    "a tenth of all packets lost": Fault(loss_ratio=0.1),
    "1 Mbit/s": Fault(bytes_per_s=125_000),
}


@pytest.fixture(scope="module")
def swarm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swarm]:
    """Two nodes of each library behind proxies, whole."""
    backends = ["hivemind", "libp2p", "libp2p", "hivemind"]
    with swarm_of(tmp_path_factory.mktemp("chaos"), backends) as made:
        made.meet()
        yield made


@pytest.fixture(autouse=True)
def _healed(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test on the shared swarm it is whole, and nothing was taken twice."""
    yield
    if "swarm" in request.fixturenames:
        shared: Swarm = request.getfixturevalue("swarm")
        for node in shared.nodes:
            node.link.fault = Fault()
        shared.merge()
        shared.meet()
        shared.check()


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_slow_and_lossy_links_deliver_everything(swarm, fault):
    for node in swarm.nodes:
        node.link.fault = fault
    since = swarm.numbers()
    for _ in range(3):
        swarm.step(groups=2, text_bytes=4000)
        time.sleep(0.3)
    swarm.settle(since)


def test_connections_cut_again_and_again_lose_nothing_that_was_heard(swarm):
    since = swarm.numbers()
    for node in swarm.nodes:
        node.link.fault = Fault(bytes_per_s=125_000)
    before = [node.exchange.announced for node in swarm.nodes]
    swarm.step(groups=4, text_bytes=20_000)
    expected = 4 * (len(swarm.nodes) - 1)
    until(
        lambda: (
            swarm.step(groups=0, wanted=0)
            or all(
                node.exchange.announced == count + expected
                for node, count in zip(swarm.nodes, before, strict=True)
            )
        ),
        "every announcement",
        pause_s=0.1,
    )
    for _ in range(2):  # below the number of times that one rollout is asked for
        swarm.step(groups=0)
        time.sleep(1.0)  # some frames came, others are on their way
        for node in swarm.nodes:
            node.link.cut()
    # Rounds of a length that occurs: one rollout is asked for a few times only, round by round.
    swarm.settle(since, round_s=5.0)


def test_half_open_links_hold_nobody_up_and_are_healed(swarm):
    quiet, *others = swarm.nodes
    quiet.link.fault = Fault(is_silent=True)
    started = time.monotonic()
    since = {n.me.public_key: n.number for n in others}
    for _ in range(3):
        swarm.step()
        time.sleep(0.2)
    # The others go on with one another; the quiet one's own connections may even still pass.
    until(
        lambda: (
            swarm.step(groups=0)
            or not {o for o in swarm.owed(since) if o[0] != quiet.me.peer_id and o[1] in since}
        ),
        "what the others owe one another",
        pause_s=0.2,
    )
    assert time.monotonic() - started < 4 * HANG_S
    quiet.link.fault = Fault()
    swarm.meet()
    since = swarm.numbers()
    swarm.step()
    swarm.settle(since)


def test_partitioned_swarm_goes_on_in_both_halves_and_merges(swarm):
    left, right = swarm.nodes[:2], swarm.nodes[2:]
    swarm.partition(left, right)
    before = swarm.numbers()
    swarm.step()
    until(
        lambda: (
            swarm.step(groups=0)
            or all(
                a.taken[b.me.public_key, before[b.me.public_key]]
                for a, b in (left, left[::-1], right, right[::-1])
            )
        ),
        "traffic within each half",
        pause_s=0.2,
    )
    # Long enough for keep-alives to find the other half dead.
    until(
        lambda: not any(n.view & {o.me.peer_id for o in right} for n in left),
        "the end of what connected the halves",
        pause_s=0.5,
    )
    swarm.merge()
    merged = time.monotonic()
    swarm.meet()
    took_s = time.monotonic() - merged
    print(f"views merged after {took_s:.0f} s")  # noqa: T201
    assert took_s < MERGE_S
    since = swarm.numbers()
    swarm.step()
    swarm.settle(since)


def test_clock_an_hour_ahead_is_refused_with_its_reason_and_said(swarm, caplog):
    odd, *others = swarm.nodes
    odd.clock_ahead_s = 3600.0
    since = swarm.numbers()
    try:
        with caplog.at_level(logging.WARNING):
            swarm.step()
            until(
                lambda: (
                    swarm.step(groups=0)
                    or all(n.exchange.refused[Reason.FROM_FUTURE] for n in others)
                ),
                "the refusal",
                pause_s=0.2,
            )
            until(
                lambda: (
                    swarm.step(groups=0)
                    or not {
                        (who, author)
                        for who, author, _ in swarm.owed(since)
                        if who != odd.me.peer_id and author != odd.me.public_key
                    }
                ),
                "what the others owe one another",
                pause_s=0.2,
            )
        said = [r.getMessage() for r in caplog.records if "clock" in r.getMessage()]
        assert any(odd.me.peer_id in text and "ahead" in text for text in said), said
        assert "this machine's clock is 36" in odd.exchange.clocks.problem(), "the odd one is told"
        assert not any(n.exchange.clocks.problem() for n in others)
    finally:
        odd.clock_ahead_s = 0.0
        for node in swarm.nodes:
            node.exchange.refused.clear()
            node.published = {k for k in node.published if k[1] < since[node.me.public_key]}
    assert sum(odd.taken.values()), "it goes on taking"


def test_swarm_survives_its_bootstraps_and_half_its_nodes(tmp_path):
    with swarm_of(tmp_path, ["hivemind", "libp2p", "hivemind", "libp2p"]) as swarm:
        swarm.meet()
        for node in swarm.nodes[:2]:  # those that everyone was given
            swarm.leave(node)
        survivors = [node.address for node in swarm.nodes]
        for backend in ("hivemind", "libp2p"):
            swarm.join(backend, *survivors)
        swarm.meet()
        since = swarm.numbers()
        swarm.step()
        swarm.settle(since)
        swarm.check()
