"""Which topics the network process subscribes to, and how it finds neighbours for them.

The host is made up; that real ones subscribe, hear and leave is in `test_transport_contract`. Time
is trio's mock clock.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import anyio
import trio
from trio.testing import MockClock

from protocol.names import Shard, announcement_topic, discovery_cid
from swarmnode.swarm.host import Admits, HostError
from swarmnode.swarm.listening import Listening
from swarmnode.swarm.transport import Announced, AnyEvent

SWARM = bytes([7] * 32)
OWN, OTHER = Shard(8, 3), Shard(8, 5)


class MadeUpHost:
    """Knows providers by key; who is connected to subscribes to what it provides."""

    def __init__(self, providers: dict[bytes, list[str]]) -> None:
        self.providers = providers
        self.subscribed: list[str] = []
        self.connected: list[str] = []
        self.provided: list[bytes] = []
        self.looked: list[bytes] = []
        self.failures = 0  # subscriptions that fail before one succeeds
        self.unanswered: set[bytes] = set()  # keys that nobody in the table tells of

    async def subscribers(self, topic: str) -> list[str]:
        known = (OWN, OTHER, *(Shard(16, number) for number in range(16)))
        topics = {announcement_topic(SWARM, shard): shard for shard in known}
        listed = self.providers.get(discovery_cid(SWARM, topics[topic]), [])
        return [peer for peer in self.connected if peer in listed]

    async def peers(self) -> list[str]:
        return list(self.connected)

    async def provide(self, cid: bytes, timeout_s: int) -> None:
        self.provided.append(cid)

    async def find_providers(self, cid: bytes, count: int, timeout_s: int) -> dict[str, list[str]]:
        self.looked.append(cid)
        if cid in self.unanswered:
            raise HostError("no answer")
        return {peer: [f"/address/of/{peer}"] for peer in self.providers.get(cid, [])[:count]}

    async def connect(self, peer: str, addresses: list[str], timeout_s: int) -> None:
        if peer.startswith("gone"):
            raise HostError("gone")
        self.connected.append(peer)

    @asynccontextmanager
    async def subscribe(
        self, topic: str, admits: Admits
    ) -> AsyncIterator[AsyncIterator[tuple[str, bytes]]]:
        if self.failures:
            self.failures -= 1
            raise HostError("not now")
        self.subscribed.append(topic)
        try:
            yield self._messages(topic)
        finally:
            self.subscribed.remove(topic)

    async def _messages(self, topic: str) -> AsyncIterator[tuple[str, bytes]]:
        yield "speaker", topic.encode()
        await trio.sleep_forever()


def run_for(seconds: float, host: Any, act: Callable[[Listening], None]) -> list[AnyEvent]:
    """Lets a `Listening` run for so long; returns what it heard."""
    heard: list[AnyEvent] = []

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            one = Listening(host, SWARM, "me", lambda *_: True, heard.append, tasks, Random(1))
            tasks.start_soon(one.look_for_neighbours)
            act(one)
            await anyio.sleep(seconds)
            host.subscribed_at_the_end = sorted(host.subscribed)
            tasks.cancel_scope.cancel()

    trio.run(main, clock=MockClock(autojump_threshold=0))
    return heard


def test_hears_the_shards_asked_for_and_names_them() -> None:
    host = MadeUpHost({})
    heard = run_for(1, host, lambda one: one.listen_to([OWN, OTHER]))
    assert host.subscribed_at_the_end == sorted(announcement_topic(SWARM, s) for s in (OWN, OTHER))
    assert {event.shard for event in heard if isinstance(event, Announced)} == {OWN, OTHER}
    assert host.subscribed == []  # all are left at the end


def test_leaves_what_is_not_asked_for_any_more_and_keeps_the_rest() -> None:
    host = MadeUpHost({})

    def act(one: Listening) -> None:
        one.listen_to([OWN, OTHER])
        one.listen_to([OWN])

    run_for(1, host, act)
    assert host.subscribed_at_the_end == [announcement_topic(SWARM, OWN)]


def test_a_subscription_that_fails_is_tried_again() -> None:
    host = MadeUpHost({})
    host.failures = 2
    run_for(10, host, lambda one: one.listen_to([OWN]))
    assert host.subscribed_at_the_end == [announcement_topic(SWARM, OWN)]


def test_provides_its_own_shard_and_looks_for_neighbours_until_there_are_some() -> None:
    mates = [f"mate {number}" for number in range(20)]
    host = MadeUpHost({discovery_cid(SWARM, OWN): ["gone 1", *mates]})
    run_for(600, host, lambda one: one.listen_to([OWN]))
    assert host.provided == [discovery_cid(SWARM, OWN)]
    assert 5 <= len(host.connected) <= 8
    looks = len(host.looked)
    assert looks <= 3, "with enough neighbours it does not look"


def test_where_nobody_provides_a_shard_it_meets_others_of_the_swarm() -> None:
    members = [f"member {number}" for number in range(20)]
    host = MadeUpHost({discovery_cid(SWARM): members})
    run_for(40, host, lambda one: one.listen_to([OTHER]))
    assert host.connected
    assert set(host.connected) <= set(members)


def test_without_shards_it_does_nothing() -> None:
    host = MadeUpHost({discovery_cid(SWARM): ["member"]})
    run_for(600, host, lambda one: one.listen_to([]))
    assert (host.connected, host.provided, host.looked) == ([], [], [])


def test_at_rest_a_node_of_many_thin_shards_hardly_looks() -> None:
    # Ten shards with two authors each, who are all met; no more are to be found.
    shards = [Shard(16, number) for number in range(10)]
    host = MadeUpHost(
        {discovery_cid(SWARM, s): [f"author {s.number} {n}" for n in range(2)] for s in shards}
    )
    run_for(3600, host, lambda one: one.listen_to(shards))
    in_the_first_hour = len(host.looked)
    assert len(host.connected) == 20
    # One key for each shard to meet its authors; then one look in four minutes for all together.
    assert in_the_first_hour <= 10 + 3600 / 180
    assert set(host.looked) == {discovery_cid(SWARM, shard) for shard in shards}


def test_thin_shards_take_turns_until_all_have_what_there_is() -> None:
    shards = [Shard(16, number) for number in range(6)]
    listed = {discovery_cid(SWARM, s): [f"author {s.number} 0"] for s in shards}
    host = MadeUpHost(listed)
    run_for(60, host, lambda one: one.listen_to(shards))
    for number, shard in enumerate(shards):  # newcomers provide; nobody is told
        listed[discovery_cid(SWARM, shard)].append(f"author {number} 1")
    run_for(1800, host, lambda one: one.listen_to(shards))
    assert len(host.connected) == 12


def test_records_of_nodes_that_are_gone_do_not_keep_it_looking() -> None:
    host = MadeUpHost({discovery_cid(SWARM, OWN): ["mate", "gone 1", "gone 2"]})
    run_for(3600, host, lambda one: one.listen_to([OWN]))
    assert host.connected == ["mate"]
    assert len(host.looked) <= 5 + 3600 / 180


def test_a_look_that_fails_keeps_no_other_shard_from_its_turn() -> None:
    host = MadeUpHost({discovery_cid(SWARM, OTHER): ["mate"]})
    host.unanswered = {discovery_cid(SWARM, OWN)}
    run_for(20, host, lambda one: one.listen_to([OWN, OTHER]))
    assert host.connected == ["mate"]
