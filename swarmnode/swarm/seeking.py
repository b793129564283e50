"""How a node finds more of its swarm, once it runs and for as long as it does.

Four sources of addresses, all in the background, none of which is believed beyond a dial: the book
of peers it was connected to before, the DHT under the swarm's name, what connected peers know
(`acquaintances.py`), and the local network (`lan.py`). It stops dialling at enough neighbours, so
what it costs does not grow with the swarm.
"""

import random
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress

import anyio

from protocol.names import discovery_cid, peers_protocol
from swarmnode.swarm.acquaintances import Told, ask
from swarmnode.swarm.address_book import AddressBook, Known
from swarmnode.swarm.bounded import Budget
from swarmnode.swarm.discovery import Neighbours
from swarmnode.swarm.host import Host, HostError
from swarmnode.swarm.reach import Reach, Scope

# Seconds before each look into the DHT, counted from the first connection; the last one repeats.
# A look costs some 10 KB in a small swarm. Provider records live a day, so what is repeated is
# for newcomers to be found, who are likelier to find this node by themselves. Who loses peers
# looks as at first.
_LOOKS_S = (1.0, 2.0, 7.0, 20.0, 60.0, 180.0, 600.0)
_LOOK_TIMEOUT_S = 20
_PROVIDERS = 32  # asked for at one look
# Connected peers of the swarm above which no more are sought: GossipSub keeps 6 to 12 neighbours.
_ENOUGH = 16
# A LAN has no DHT, so fetches reach connected peers only: it keeps more of them.
_ENOUGH_ON_A_LAN = 64
_CONNECT_S = 8
_DIALS_AT_ONCE = 8
# Dials to addresses that others named, in a minute: what a liar can make this node do.
_DIALS, _WINDOW_S = 60, 60.0
_NOT_AGAIN_S = 30.0  # after a dial that failed
_REMEMBERED = 256  # dialled peers whose address is kept until they turn out to be of the swarm
_CHECK_S = 1.0
# New peers are asked whom they know, so many at once; after that one in so many seconds, so that
# the answers, which name dozens in a large swarm, cost the same in any.
_ASKED_AT_ONCE = 2
_ASK_AGAIN_S = 60.0
_SAVE_S = 5.0  # between writes of the book
# Peers of earlier runs that are dialled however many others are connected, how many of them are
# wanted, and failed dials after which one is given up. Whoever is first at a node that starts, and
# tells it of more of its own kind, would else be all that it ever sees.
_ANCHORS, _ANCHORS_WANTED, _ANCHOR_TRIES = 8, 4, 24


class Seeker:
    """`notice` is told, in a line, what a person may want to know."""

    def __init__(
        self,
        host: Host,
        own_id: str,
        swarm_id: bytes,
        neighbours: Neighbours,
        book: AddressBook,
        reach: Reach,
        rng: random.Random,
        notice: Callable[[str], None],
    ) -> None:
        self._host = host
        self._own_id = own_id
        self._cid = discovery_cid(swarm_id)
        self._protocol = peers_protocol(swarm_id)
        self._neighbours = neighbours
        self._book = book
        self._reach = reach
        self._rng = rng
        self._notice = notice
        self._enough = _ENOUGH_ON_A_LAN if reach.lan_only else _ENOUGH
        self._suggested: dict[str, list[str]] = {}
        self._not_before: dict[str, float] = {}  # of failed dials, monotonic seconds
        self._dialled: OrderedDict[str, Sequence[str]] = OrderedDict()
        self._budget = Budget(_DIALS, _WINDOW_S)
        self._dialling: set[str] = set()
        self._asked: dict[str, float] = {}  # when, monotonic seconds
        self._anchors: dict[str, tuple[str, ...]] = {}  # peers of earlier runs, and where
        self._anchor_tries: Counter[str] = Counter()

    async def run(self) -> None:
        """For ever; writes the book a last time when cancelled."""
        self.anchor()
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._look_around)
                tasks.start_soon(self._redial)
                tasks.start_soon(self._make_acquaintance)
                tasks.start_soon(self._keep_book)
        finally:
            self._book.save()

    def anchor(self) -> None:
        """Chooses anchors among the peers in the book, as it was before anybody connected."""
        known = self._book.due(time.time())
        chosen = self._rng.sample(known, min(_ANCHORS, len(known)))
        self._anchors = {one.peer: one.addresses for one in chosen}

    def anchors_due(self) -> list[Known]:
        """The anchors to be dialled now, though there be enough neighbours."""
        connected, now = self._neighbours.connected, time.monotonic()
        if sum(peer in connected for peer in self._anchors) >= _ANCHORS_WANTED:
            return []
        due = [
            peer
            for peer in self._anchors
            if peer not in connected
            and self._not_before.get(peer, 0.0) <= now
            and self._anchor_tries[peer] < _ANCHOR_TRIES
        ]
        self._anchor_tries.update(due)
        return [Known(peer, self._anchors[peer]) for peer in due]

    def suggest(self, peer: str, addresses: list[str]) -> None:
        """Takes the addresses of a peer heard of elsewhere; dials them soon, if still wanted."""
        if addresses and len(self._suggested) < self._enough:
            self._suggested[peer] = addresses

    def met(self, peer: str, address: str) -> None:
        """Notes a connection that was made to `address`; the book has it once the peer turns out
        to be of this swarm."""
        self._note_dialled(peer, [address])

    def known(self) -> dict[str, tuple[str, ...]]:
        """Connected peers of the swarm, and where each can be dialled: for those who ask."""
        return {peer: self._book.addresses(peer) for peer in self._neighbours.members}

    async def _look_around(self) -> None:
        """Publishes this node in the DHT and connects to those who did the same."""
        looks = 0
        while True:
            if not self._neighbours.connected:
                looks = 0  # alone: the DHT is empty
                await anyio.sleep(_CHECK_S)
                continue
            pause_s = _LOOKS_S[min(looks, len(_LOOKS_S) - 1)]
            if await self._lost_some_within(pause_s * self._rng.uniform(0.75, 1.25)):
                looks = 0
                continue
            looks += 1
            with suppress(HostError):  # nobody in the table yet, or all gone: the next look tells
                await self._host.provide(self._cid, _LOOK_TIMEOUT_S)
            if not self._wants:
                continue
            with suppress(HostError):
                found = await self._host.find_providers(self._cid, _PROVIDERS, _LOOK_TIMEOUT_S)
                # Who told is not known, but a DHT answers for all networks: none is too narrow.
                await self._connect_some(found, Scope.LOOPBACK)

    async def _lost_some_within(self, pause_s: float) -> bool:
        """Waits so long, or until fewer peers of the swarm are connected than were before and more
        are wanted."""
        until = time.monotonic() + pause_s
        most = len(self._neighbours.members)
        while (left_s := until - time.monotonic()) > 0:
            await anyio.sleep(min(_CHECK_S, left_s))
            if len(self._neighbours.members) < most and self._wants:
                return True
            most = max(most, len(self._neighbours.members))
        return False

    async def _redial(self) -> None:
        """Dials the peers in the book, and those of the local network, while more are wanted."""
        while True:
            suggested, self._suggested = self._suggested, {}
            await self._connect_some(suggested, Scope.LOOPBACK)
            due = [
                known
                for known in self._book.due(time.time())
                if known.peer not in self._neighbours.connected and known.peer != self._own_id
            ]
            async with anyio.create_task_group() as tasks:
                for known in [*due[: min(self._wants, _DIALS_AT_ONCE)], *self.anchors_due()]:
                    tasks.start_soon(self._dial, known.peer, list(known.addresses))
            await anyio.sleep(_CHECK_S)

    async def _make_acquaintance(self) -> None:
        """Asks each neighbour where it is and whom it knows, and one of them now and then again."""
        while True:
            await anyio.sleep(_CHECK_S)
            now = time.monotonic()
            members = self._neighbours.members
            self._asked = {peer: at for peer, at in self._asked.items() if peer in members}
            unasked = [peer for peer in members if peer not in self._asked]
            chosen = self._rng.sample(unasked, min(_ASKED_AT_ONCE, len(unasked)))
            if not chosen and self._asked and now - max(self._asked.values()) > _ASK_AGAIN_S:
                chosen = [min(self._asked, key=self._asked.__getitem__)]
            async with anyio.create_task_group() as tasks:
                for peer in chosen:
                    self._asked[peer] = now
                    tasks.start_soon(self._get_to_know, peer)

    async def _get_to_know(self, peer: str) -> None:
        told = Told((), {})
        with suppress(HostError):  # it need not answer
            told = await ask(self._host, peer, self._protocol, self._own_id, self._reach)
        where = [*self._dialled.get(peer, ()), *told.own]
        self._book.connected(peer, where, time.time())
        await self._connect_some(told.others, Scope.LOOPBACK)

    async def _keep_book(self) -> None:
        problem = ""
        while True:
            before, problem = problem, self._book.save()
            if problem and problem != before:
                self._notice(problem)
            await anyio.sleep(_SAVE_S)

    @property
    def _wants(self) -> int:
        return max(0, self._enough - len(self._neighbours.members))

    async def _connect_some(self, found: dict[str, list[str]], told_from: Scope) -> None:
        """Dials those that are new, in no order that their teller chose, as far as budgets go."""
        now = time.monotonic()
        self._not_before = {peer: at for peer, at in self._not_before.items() if at > now}
        avoided = {self._own_id, *self._neighbours.connected, *self._not_before}
        new = [peer for peer in found if peer not in avoided]
        self._rng.shuffle(new)
        async with anyio.create_task_group() as tasks:
            for peer in new[: min(self._wants, _DIALS_AT_ONCE)]:
                if self._budget.allows("all", now):
                    tasks.start_soon(self._dial, peer, found[peer], told_from)

    async def _dial(
        self, peer: str, addresses: Sequence[str], told_from: Scope = Scope.LOOPBACK
    ) -> None:
        usable = self._reach.usable(addresses, told_from)
        knows_nothing = not addresses and not self._reach.lan_only  # the library may know more
        is_barred = peer in self._dialling or self._neighbours.avoids(peer)
        if is_barred or not (usable or knows_nothing):
            return
        self._dialling.add(peer)
        try:
            await self._host.connect(peer, usable, _CONNECT_S)
        except HostError:  # many addresses are of nodes that left
            self._not_before[peer] = time.monotonic() + _NOT_AGAIN_S
            self._book.failed(peer, time.time(), is_alone=not self._neighbours.connected)
        else:
            self._note_dialled(peer, usable)
        finally:
            self._dialling.discard(peer)

    def _note_dialled(self, peer: str, addresses: Sequence[str]) -> None:
        self._dialled.pop(peer, None)
        self._dialled[peer] = addresses
        while len(self._dialled) > _REMEMBERED:
            self._dialled.popitem(last=False)
