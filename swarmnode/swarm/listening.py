"""What the network process hears besides the whole swarm's topic: shards' topics, as the node asks.

GossipSub passes a topic's messages between connected nodes that subscribe to it, so a topic needs
neighbours. They are found as the swarm's are (`discovery`): the authors of a shard provide its key
in the DHT, and who lacks neighbours for a topic looks there, or meets others of the swarm.
"""

import math
import random
from collections.abc import Callable, Sequence
from contextlib import suppress

import anyio
from anyio.abc import TaskGroup

from protocol.names import Shard, announcement_topic, discovery_cid
from swarmnode.swarm.host import Admits, Host, HostError
from swarmnode.swarm.transport import Announced, AnyEvent

_RETRY_S = 2.0
# Connected subscribers of a topic below which more are sought. GossipSub keeps 6 in its mesh.
_FEW = 5
_CONNECTED_AT_ONCE = 4  # new neighbours from one look
_PROVIDERS = 16
# Between looks; those that found nobody new wait twice as long each time, since some shards have no
# more. A look costs some 10 KB however large the swarm is, so only a topic that has nobody at all
# has pauses of its own; those with a few, which are most where shards are small, share theirs.
# A shard's key is provided again every half hour: records live a day, and nodes leave.
_LOOK_S, _LONGEST_LOOK_S, _PROVIDE_S = 15.0, 240.0, 1800.0
_LOOK_TIMEOUT_S = 20
_CONNECT_S = 8


class _Pause:
    """Between looks: as short as can be until one finds nobody new."""

    def __init__(self) -> None:
        self._due, self._pause_s = 0.0, _LOOK_S

    def is_over(self, now: float) -> bool:
        return now >= self._due

    def begin(self, now: float) -> None:
        self._due, self._pause_s = now + self._pause_s, min(2 * self._pause_s, _LONGEST_LOOK_S)


class Listening:
    """Subscriptions to shards. What arrives goes to `emit`, if `admits` takes it."""

    def __init__(
        self,
        host: Host,
        swarm_id: bytes,
        own_id: str,
        admits: Admits,
        emit: Callable[[AnyEvent], None],
        tasks: TaskGroup,
        rng: random.Random,
    ) -> None:
        self._host = host
        self._swarm_id = swarm_id
        self._own_id = own_id
        self._admits = admits
        self._emit = emit
        self._tasks = tasks
        self._rng = rng
        self._heard: dict[Shard, anyio.CancelScope] = {}
        self._deserted: dict[Shard, _Pause] = {}  # shards to which no neighbour listens
        self._thin = _Pause()  # of those to which a few do
        self._looked: dict[Shard, float] = {}  # when
        self._own: Shard | None = None
        self._provided: tuple[Shard, float] | None = None  # last, and when

    def listen_to(self, shards: Sequence[Shard]) -> None:
        """Hears these and no others; the first is this node's own."""
        self._own = shards[0] if shards else None
        for shard in self._heard.keys() - set(shards):
            self._heard.pop(shard).cancel()
        for shard in shards:
            if shard not in self._heard:
                self._heard[shard] = anyio.CancelScope()
                self._thin = _Pause()
                self._tasks.start_soon(self._hear, shard, self._heard[shard])

    async def look_for_neighbours(self) -> None:
        """Finds nodes that listen to the same, for ever."""
        while True:
            await anyio.sleep(_LOOK_S * self._rng.uniform(0.75, 1.25))
            await self._provide()
            with suppress(HostError):  # a host that is gone ends the process elsewhere
                await self._look()

    async def _look(self) -> None:
        """Meets more who listen to the shards that have few, where it is time to look again."""
        counts = {s: len(await self._host.subscribers(self._topic(s))) for s in list(self._heard)}
        deserted = [shard for shard, count in counts.items() if not count]
        self._deserted = {shard: self._deserted.get(shard, _Pause()) for shard in deserted}
        self._looked = {shard: at for shard, at in self._looked.items() if shard in counts}
        for shard, pause in list(self._deserted.items()):
            if pause.is_over(anyio.current_time()):
                pause.begin(anyio.current_time())
                if await self._meet(shard, anyone=True):
                    del self._deserted[shard]
        thin = [shard for shard, count in counts.items() if 0 < count < _FEW]
        now = anyio.current_time()
        if thin and self._thin.is_over(now):
            longest_ago = min(thin, key=lambda s: (self._looked.get(s, -math.inf), counts[s]))
            self._looked[longest_ago] = now
            self._thin.begin(now)
            if await self._meet(longest_ago, anyone=False):
                self._thin = _Pause()

    async def _hear(self, shard: Shard, scope: anyio.CancelScope) -> None:
        topic = self._topic(shard)
        with scope:
            while True:
                with suppress(HostError):  # a host that is gone ends the process elsewhere
                    async with self._host.subscribe(topic, self._admits) as messages:
                        async for peer, frame in messages:
                            self._emit(Announced(peer, frame, shard))
                await anyio.sleep(_RETRY_S)

    async def _provide(self) -> None:
        if self._own is None:
            return
        now = anyio.current_time()
        if self._provided is not None:
            shard, when = self._provided
            if shard == self._own and now < when + _PROVIDE_S:
                return
        with suppress(HostError):  # nobody in the table yet
            await self._host.provide(discovery_cid(self._swarm_id, self._own), _LOOK_TIMEOUT_S)
            self._provided = self._own, now

    def _topic(self, shard: Shard) -> str:
        return announcement_topic(self._swarm_id, shard)

    async def _meet(self, shard: Shard, *, anyone: bool) -> bool:
        """Connects to some who listen to `shard`, or else to `anyone` of the swarm; returns whether
        anybody new was met."""
        connected = set(await self._host.peers()) | {self._own_id}
        keys = [discovery_cid(self._swarm_id, shard)]
        if anyone:
            keys.append(discovery_cid(self._swarm_id))
        for cid in keys:
            found: dict[str, list[str]] = {}
            with suppress(HostError):  # nobody knows; other shards' turn comes all the same
                found = await self._host.find_providers(cid, _PROVIDERS, _LOOK_TIMEOUT_S)
            new = [peer for peer in found if peer not in connected]
            self._rng.shuffle(new)
            met = 0
            for peer in new[:_CONNECTED_AT_ONCE]:
                with suppress(HostError):  # records outlive nodes
                    await self._host.connect(peer, found[peer], _CONNECT_S)
                    met += 1
            if met:
                return True
        return False
