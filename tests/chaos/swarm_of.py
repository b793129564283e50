"""A swarm of real exchanges over real networks whose every connection passes a proxy.

    with swarm_of(folder, ["hivemind", "libp2p"], seed=1) as swarm:
        swarm.step()                 # one round of every node: publish, ask, take
        swarm.nodes[0].link.fault = …
        swarm.settle()               # rounds without publishing, until nothing is owed

The nodes train nothing: their groups are made up. What they keep is who published and who took
what, which is what `owed` and `check` look at.
"""

import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psutil
from proxy import Fault, Link, Proxies
from remote_node import DEADLINE_S, SWARM, greeting, until

sys.path.append(str(Path(__file__).parents[1]))  # also when this is a program's part
from fakes import FakeTasks, completion

from swarmnode import identity
from swarmnode.config import NetworkSettings, SharingSettings
from swarmnode.errors import SwarmNodeError
from swarmnode.identity import Identity
from swarmnode.rollout import Group, Question
from swarmnode.swarm.exchange import Exchange, Published
from swarmnode.swarm.network_transport import NetworkTransport
from swarmnode.swarm.ports import choose_port

TASKS = FakeTasks()
# Per call into a node: its calls only take locks and seal frames. Far above what they need, far
# below the 30 s that a hang is.
MOST_CALL_S = 10.0
_STARTS = 3


@dataclass
class Member:
    """One node. `clock_ahead_s` is how far its clock is from everyone's."""

    me: Identity
    backend: str
    link: Link
    transport: NetworkTransport
    exchange: Exchange
    rng: random.Random
    clock_ahead_s: float = 0.0
    round: int = 0
    number: int = 1
    published: set[tuple[bytes, int]] = field(default_factory=set)  # (author, question number)
    taken: Counter[tuple[bytes, int]] = field(default_factory=Counter)
    slowest_call_s: float = 0.0

    @property
    def address(self) -> str:
        return f"/ip4/127.0.0.1/tcp/{self.link.port}/p2p/{self.me.peer_id}"

    @property
    def view(self) -> set[str]:
        return set(self.transport.status().peers)

    def step(self, groups: int, text_bytes: int, wanted: int) -> None:
        """One round: publishes so many groups, takes what came, asks for `wanted` offers."""
        started = time.monotonic()
        now = time.time() + self.clock_ahead_s
        self.round += 1
        offered = [self._group(text_bytes) for _ in range(groups)]
        self.exchange.publish(offered, round=self.round, now=now)
        self.published |= {(self.me.public_key, published.number) for published in offered}
        for arrival in self.exchange.collect(round=self.round, now=now):
            self.taken[(arrival.origin.author, arrival.rollout.seed)] += 1
        self.exchange.request(wanted, self.rng, now)
        self.slowest_call_s = max(self.slowest_call_s, time.monotonic() - started)

    def _group(self, text_bytes: int) -> Published:
        number = self.number
        self.number += 1
        question = Question("add", TASKS.digest("add"), number, "?", "!", held_out=False)
        # Random text, so that its bytes are bytes on the wire.
        texts = [f"{self.rng.getrandbits(4 * text_bytes):x}" for _ in range(2)]
        completions = tuple(completion(text) for text in texts)
        return Published(number, Group(question, completions, (1.0, 0.0), self.round, 1.0))


class Swarm:
    """Members, and what is to be true of them."""

    def __init__(self, folder: Path, proxies: Proxies, closing: ExitStack, seed: int) -> None:
        self.nodes: list[Member] = []
        self._folder = folder
        self._proxies = proxies
        closing.callback(self.close)
        self._seed = seed
        self._made = 0

    def join(self, backend: str, *peers: str) -> Member:
        """Starts one more node, which knows these addresses."""
        folder = self._folder / str(self._made)
        me = identity.load_or_create(folder / "identity.key")
        link = self._proxies.to(0)  # first: it must not be given the port that the node is to have
        port = link.target_port = choose_port("127.0.0.1")
        settings = NetworkSettings(
            host="127.0.0.1",
            port=port,
            peers=peers,
            announce=(f"/ip4/127.0.0.1/tcp/{link.port}",),
        )
        transport = self._opened(backend, folder, me, settings)
        # Everything that was announced may be taken, however long a fault lasted.
        sharing = SharingSettings(keep_announcements=100)
        exchange = Exchange(
            transport,
            sharing,
            swarm_id=SWARM,
            signing_key=me.seed,
            public_key=me.public_key,
            model_label="none",
            tasks=[TASKS.digest("add")],
            rebuild=lambda digest, seed: Question("add", digest, seed, "?", "!", held_out=False),
        )
        rng = random.Random(f"{self._seed} {self._made}")
        self._made += 1
        node = Member(me, backend, link, transport, exchange, rng)
        self.nodes.append(node)
        return node

    def _opened(
        self, backend: str, folder: Path, me: Identity, settings: NetworkSettings
    ) -> NetworkTransport:
        """An open transport; tried again where a busy machine was too slow to start it."""
        for attempt in range(_STARTS):
            made = NetworkTransport(
                backend, folder / "identity.key", me.peer_id, greeting(), settings
            )
            try:
                made.open()  # closes itself where it fails
            except SwarmNodeError:
                if attempt == _STARTS - 1:
                    raise
            else:
                return made
        raise AssertionError

    def close(self) -> None:
        """Ends all nodes."""
        for node in self.nodes:
            node.transport.close()

    def leave(self, node: Member) -> None:
        """Ends a node without a word to the others."""
        node.transport.close()
        self._proxies.end(node.link)
        self.nodes.remove(node)

    def step(self, groups: int = 1, text_bytes: int = 1000, wanted: int = 16) -> None:
        for node in self.nodes:
            node.step(groups, text_bytes, wanted)

    def meet(self) -> None:
        """Waits until everyone sees everyone."""

        def unseen() -> list[str]:
            return [
                f"{node.me.peer_id[-6:]} ({node.backend}) lacks"
                f" {other.me.peer_id[-6:]} ({other.backend})"
                for node in self.nodes
                for other in self.nodes
                if other is not node and other.me.peer_id not in node.view
            ]

        until(self.is_whole, "everyone's view of everyone", lacking=unseen)

    def is_whole(self) -> bool:
        ids = {node.me.peer_id for node in self.nodes}
        return all(node.view >= ids - {node.me.peer_id} for node in self.nodes)

    def owed(self, since: dict[bytes, int] | None = None) -> set[tuple[str, bytes, int]]:
        """(who misses it, author, number) for all that living nodes published and others lack;
        `since` are the first numbers that count."""
        return {
            (node.me.peer_id, author, number)
            for node in self.nodes
            for other in self.nodes
            if other is not node
            for author, number in other.published
            if number >= (since or {}).get(author, 0) and not node.taken[author, number]
        }

    def numbers(self) -> dict[bytes, int]:
        """The number of everyone's next group: what is published from now on."""
        return {node.me.public_key: node.number for node in self.nodes}

    def settle(self, since: dict[bytes, int] | None = None, round_s: float = 0.2) -> None:
        """Rounds in which nothing is published, until everyone has what it is owed."""

        def is_settled() -> bool:
            self.step(groups=0)
            return not self.owed(since)

        def missing() -> list[str]:
            owners = {node.me.public_key: node for node in self.nodes}
            return [
                f"{peer[-6:]} lacks {number} of {owners[author].me.peer_id[-6:]}"
                f" ({owners[author].backend})"
                for peer, author, number in sorted(self.owed(since))
            ]

        what = "what was announced and is still held"
        until(is_settled, what, pause_s=round_s, lacking=missing)

    def check(self) -> None:
        """What holds at all times: nothing is taken twice, nothing is refused, nothing blocks."""
        for node in self.nodes:
            twice = {key: count for key, count in node.taken.items() if count > 1}
            assert not twice, f"{node.me.peer_id} took twice: {twice}"
            assert not node.exchange.refused, node.exchange.refused
            assert node.slowest_call_s < MOST_CALL_S, "the node's own calls wait for nothing"

    def partition(self, *sides: Sequence[Member]) -> None:
        """Nothing passes between the sides any more, and nobody is told."""
        side = {node.transport: number for number, nodes in enumerate(sides) for node in nodes}
        for node in self.nodes:
            same = [n for n in self.nodes if side[n.transport] == side[node.transport]]
            node.link.admits = _Owners(same)

    def merge(self) -> None:
        for node in self.nodes:
            node.link.admits = lambda port: True


class _Owners:
    """Whether a port is one of a connection that these nodes' programs made; remembers what it
    found, since the answer does not change."""

    def __init__(self, nodes: Sequence[Member]) -> None:
        self._programs = [program for node in nodes for program in programs_of(node)]
        self._known: dict[int, bool] = {}

    def __call__(self, port: int) -> bool:
        if port not in self._known:
            self._known[port] = any(map(partial(_has, port=port), self._programs))
        return self._known[port]


def _has(program: psutil.Process, port: int) -> bool:
    try:
        found = program.net_connections("tcp")
    except psutil.NoSuchProcess:
        return False
    return any(connection.laddr and connection.laddr.port == port for connection in found)


def programs_of(node: Member) -> list[psutil.Process]:
    """The network process of a node and its daemon: those that listen on its port, and parents.

    Waited for: it may just be replaced."""
    port = node.transport._settings.port

    def found() -> list[psutil.Process]:
        for child in psutil.Process().children():
            try:
                family = [child, *child.children()]
                if any(
                    c.status == psutil.CONN_LISTEN and c.laddr.port == port
                    for program in family
                    for c in program.net_connections("tcp")
                ):
                    return family
            except psutil.NoSuchProcess:
                continue
        return []

    return until(found, f"who listens on {port}")


@contextmanager
def swarm_of(folder: Path, backends: Sequence[str], seed: int = 1) -> Iterator[Swarm]:
    """Nodes on these backends, all of which know the first two; not all connected yet."""
    with ExitStack() as closing:
        proxies = closing.enter_context(Proxies(seed))
        swarm = Swarm(folder, proxies, closing, seed)
        for backend in backends:
            swarm.join(backend, *(node.address for node in swarm.nodes[:2]))
        yield swarm


__all__ = ["DEADLINE_S", "Fault", "Member", "Swarm", "programs_of", "swarm_of", "until"]
