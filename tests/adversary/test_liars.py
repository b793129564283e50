"""Liars lose standing and then the connection; honest nodes with bad luck do not."""

import pytest
from parts import NOW, Stranger, Victim, announcement, item_of, rollout, stranger, victim_on

from protocol.errors import Reason
from protocol.messages import Item
from swarmnode.config import TrustSettings
from swarmnode.swarm.memory import Hub

OFF = TrustSettings(standing=False)


def withholds(liar: Stranger, n: int) -> None:
    """Announces what it does not hold."""
    liar.announce(Item(n.to_bytes(32), b"add1", n, 300), created=NOW + n, round=n)


def lies_about_size(liar: Stranger, n: int) -> None:
    liar.offer(rollout(n, ["a"]), created=NOW + n, frame_bytes=9)


def lies_about_question(liar: Stranger, n: int) -> None:
    liar.offer(rollout(n, ["a"]), created=NOW + n, seed=n + 1)


def lies_about_task(liar: Stranger, n: int) -> None:
    liar.offer(rollout(n, ["a"], task=b"none"), created=NOW + n, task_digest=b"add1")


def offers_other_tasks(liar: Stranger, n: int) -> None:
    liar.offer(rollout(n, ["a"], task=b"none"), created=NOW + n)


def serves_garbage(liar: Stranger, n: int) -> None:
    liar.offer(rollout(n, ["a"]), b"\x01\x01" + bytes(200), created=NOW + n)


LIES = {
    withholds: 10,  # how many of them are one too many
    lies_about_size: 3,
    lies_about_question: 3,
    lies_about_task: 3,
    offers_other_tasks: 5,
    serves_garbage: 3,
}


def lie(node: Victim, liar: Stranger, tell: object, count: int, start: int = 0) -> None:
    for n in range(start, start + count):
        node.now = NOW + n
        tell(liar, n)  # type: ignore[operator]
        node.round()


def is_cut(node: Victim, liar: Stranger) -> bool:
    return liar.me.peer_id in node.transport._avoided


@pytest.mark.parametrize(("tell", "most"), LIES.items(), ids=[f.__name__ for f in LIES])
def test_who_lies_about_what_it_announces_is_cut_off(tell: object, most: int) -> None:
    hub = Hub()
    node, liar = victim_on(hub), stranger(hub, 1)
    # Points fade by a thousandth in some seconds: one more than the limit asks for is needed.
    lie(node, liar, tell, most - 1)
    assert not is_cut(node, liar)
    lie(node, liar, tell, 2, start=most - 1)
    assert is_cut(node, liar)
    assert node.exchange.offered() == []


@pytest.mark.parametrize("tell", LIES, ids=[f.__name__ for f in LIES])
def test_with_standing_off_a_liar_lies_on(tell: object) -> None:
    hub = Hub()
    node, liar = victim_on(hub, OFF), stranger(hub, 1)
    lie(node, liar, tell, 30)
    assert not is_cut(node, liar)


def test_whose_texts_break_the_scorer_is_cut_off() -> None:
    hub = Hub()
    node, liar = victim_on(hub), stranger(hub, 1)
    for n in range(4):
        liar.offer(rollout(n, ["a"]), created=NOW)
        node.exchange.collect(round=n, now=NOW)
        node.exchange.request(9, node.rng, NOW)
        for arrival in node.exchange.collect(round=n, now=NOW):
            node.exchange.refuse_unscorable(arrival, NOW)
    assert is_cut(node, liar)
    assert node.exchange.refused[Reason.UNSCORABLE] == 4


def test_a_flood_is_refused_cheaply_and_its_sender_cut_off() -> None:
    hub = Hub()
    node, flooder, honest = victim_on(hub), stranger(hub, 1), stranger(hub, 2)
    frames = [flooder.seal(announcement([], NOW, n)).frame for n in range(1000)]
    for frame in frames:
        flooder.transport.publish(frame)
    honest.offer(rollout(1, ["a"]))
    (arrival,) = node.round()
    assert arrival.origin.author == honest.me.public_key
    assert is_cut(node, flooder)
    # 60 heard; 0.1 points for each of 100 above make 10.
    refused = node.exchange.refused
    assert refused[Reason.OVER_QUOTA] == pytest.approx(100, abs=1)
    assert refused[Reason.AVOIDED] == 1000 - 60 - refused[Reason.OVER_QUOTA]


def test_without_quotas_every_announcement_of_a_flood_is_read() -> None:
    hub = Hub()
    node, flooder = victim_on(hub, TrustSettings(quotas=False)), stranger(hub, 1)
    for n in range(300):
        flooder.announce(round=n)
    node.round()
    assert not is_cut(node, flooder)
    assert node.exchange.refused.total() == 0
    assert node.exchange.sizes()["heard"] == 300


def test_a_node_that_restarts_and_has_lost_what_it_offered_is_not_cut_off() -> None:
    hub = Hub()
    node, honest = victim_on(hub), stranger(hub, 1)
    for n in range(2):  # the newest announcements, which are fetched from
        made = [rollout(8 * n + i, ["a"]) for i in range(8)]
        items = [item_of(honest.seal(one), one) for one in made]
        honest.announce(*items, round=n)
    node.round()
    assert node.exchange.missed == {"absent": 16}
    assert not is_cut(node, honest)
    honest.offer(rollout(99, ["a"]))
    assert len(node.round()) == 1


def test_standing_survives_a_restart_and_the_network_is_told_again() -> None:
    hub = Hub()
    node, liar = victim_on(hub), stranger(hub, 1)
    lie(node, liar, lies_about_size, 4)
    assert is_cut(node, liar)
    state = node.exchange.state()
    hub.leave(node.transport.peer_id)
    again = victim_on(hub)
    again.exchange.load_state(state)
    again.now = NOW + 100
    liar.offer(rollout(50, ["a"]), created=again.now)
    assert again.round() == []
    assert again.exchange.refused[Reason.AVOIDED] == 1
    assert is_cut(again, liar)


def test_memory_is_bounded_under_all_of_it() -> None:
    hub = Hub()
    trust = TrustSettings(max_authors=50)
    node = victim_on(hub, trust)
    for n in range(300):
        liar = stranger(hub, n)
        (withholds, lies_about_size)[n % 2](liar, n)
        node.round(4)
        liar.transport.close()
    sizes = node.exchange.sizes()
    assert sizes["standing"] <= 50
    assert sizes["budgets"] <= 3 * 50 + 1
    assert sizes["numbers"] <= 50 + 300
