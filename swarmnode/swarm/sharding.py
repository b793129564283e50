"""Which announcements this node hears and where its own go: one topic for a small swarm, shards of
it for a large one, so that what a node hears does not grow with the swarm (SPEC.md section 8).

Nobody decides the number of shards. Everyone hears the swarm's one topic, the *lobby*; once there
are shards, only the `SAMPLE` authors of lowest rank say there that they are present. How low their
ranks are tells everyone the same size of the swarm: of N uniform ranks the k-th lowest lies near
k / N (Bar-Yossef et al., "Counting distinct elements in a data stream", 2002). One liar moves it by
1 / SAMPLE. Whoever makes many keys of low rank makes the swarm look large; a node that finds the
shard that it hears whole, its own, nearly empty goes back to the lobby and counts who is there.

Pure: time and chance come from the caller.
"""

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from protocol.names import MAX_SHARDS, WHOLE, Shard, rank_of, shard_of

# Authors whose presence everyone hears. The estimate's standard error is 1 / √(SAMPLE − 2), 13 %,
# and the same for all; the cost is that many short messages in `BEACON_S`.
SAMPLE = 64
BEACON_S = 60.0
# Heard of the lobby below which nothing is concluded: 12 of 24 ranks below 1/8, by which a small
# swarm looks like one of 256, happen with probability 1e-5.
LEAST_SAMPLE = 24
# Nodes above which there is more than one topic. All is as if there were no shards until then.
SPLIT_ABOVE = 256
# Authors in a shard, as estimated, above which there are twice as many shards, and below which half
# as many. More than a factor of 2 apart, so that the number does not swing.
MOST_AUTHORS, LEAST_AUTHORS = 48, 20
# Authors heard in all, own shard included: what a swarm of a hundred gives everybody.
AUDIENCE = 100
# Without so many others in the own shard the lobby lied: of shards with 20 authors on average three
# in a million have fewer. Without `PEERS_TO_SPLIT` there will not be more shards.
LEAST_PEERS, PEERS_TO_SPLIT = 4, 16
# Seconds: how long an author counts after it was heard (the slowest honest round), how long shards
# are listened to before their emptiness says something, between draws of another shard, and how
# long a lobby that lied is not believed.
WINDOW_S, SETTLE_S, REDRAW_S, DISTRUST_S = 900.0, 900.0, 600.0, 3600.0
FIRST_REDRAW_S = 120.0
# Authors remembered. The lobby holds SPLIT_ABOVE and the swarm's growth in a window; a flood of
# keys pushes out those heard longest ago.
MAX_LOBBY, MAX_SHARD = 4096, 1024
_FIRST_SHARDS = 8


@dataclass(frozen=True, slots=True)
class Scale:
    """The numbers above, which all nodes of a swarm share: its manifest chooses by `audience`."""

    audience: int = AUDIENCE
    sample: int = SAMPLE
    beacon_s: float = BEACON_S
    least_sample: int = LEAST_SAMPLE
    split_above: int = SPLIT_ABOVE
    # Seconds for which there were so many: all had their turn, and nodes agree on the first count.
    split_after_s: float = 0.0
    most_authors: float = MOST_AUTHORS
    least_authors: float = LEAST_AUTHORS
    least_peers: int = LEAST_PEERS
    peers_to_split: int = PEERS_TO_SPLIT
    first_shards: int = _FIRST_SHARDS


LARGE = Scale()
# Where bytes count: what a node hears, and pays, is the same from 8 nodes on. Six: one copy of
# an announcement costs more where more listen. The price: estimates are worse (27 %) and shards
# uneven, so that a node hears some 3 to 11 authors; and who makes many keys isolates a node more
# easily, for 15 minutes each time. Of 12 nodes or fewer it counts all, so that they never split by
# bad luck.
SMALL = Scale(
    audience=6,
    sample=16,
    beacon_s=400.0,
    least_sample=12,
    split_above=12,
    split_after_s=60.0,
    most_authors=3,
    least_authors=0.9,
    least_peers=1,
    peers_to_split=2,
    first_shards=2,
)
SCALES = {scale.audience: scale for scale in (LARGE, SMALL)}


class Sharding:
    """This node's view: how many shards there are, and which it listens to. `me` is its key."""

    def __init__(self, me: bytes, scale: Scale = LARGE) -> None:
        self._me = me
        self._scale = scale
        self._lobby: OrderedDict[bytes, float] = OrderedDict()  # author → when heard there
        self._mates: OrderedDict[bytes, float] = OrderedDict()  # the same of the own shard
        self._shards = 1
        self.own = WHOLE  # where this node's announcements go
        self._since = -math.inf  # when the number of shards changed
        self._many_since = math.inf  # from when on there were too many for one topic
        self._drawn: list[Shard] = []  # listened to, own shard first
        self._redraw_at = -math.inf
        self._beacon_at = -math.inf
        self._distrusts_until = -math.inf
        self.estimate = 0.0  # other nodes in the swarm

    @property
    def listening(self) -> tuple[Shard, ...]:
        """What is listened to besides the lobby: the drawn shards and, because others may have
        changed the number of shards a little earlier or later, their halves and doubles."""
        if self._shards == 1:
            near = self.estimate > 0.75 * self._scale.split_above
            return (
                tuple(Shard(self._scale.first_shards, n) for n in range(self._scale.first_shards))
                if near
                else ()
            )
        shards = dict.fromkeys(self._drawn)
        for count, number in self._drawn:
            if count > self._scale.first_shards:
                shards[Shard(count // 2, number // 2)] = None
            if count < MAX_SHARDS:
                shards |= dict.fromkeys(Shard(2 * count, 2 * number + half) for half in (0, 1))
        return tuple(shards)

    @property
    def known(self) -> int:
        """Authors remembered, for bounds and tests."""
        return len(self._lobby) + len(self._mates)

    def heard(self, author: bytes, shard: Shard, now: float) -> None:
        """Takes note of an announcement that `author` published in `shard`."""
        if shard == WHOLE:
            _note(self._lobby, author, now, MAX_LOBBY)
        if self._shards > 1 and shard_of(author, self._shards) == self.own:
            _note(self._mates, author, now, MAX_SHARD)

    def update(self, now: float, rng: Random) -> None:
        """Once a round: decides anew what there is to listen to. Nodes need different `rng`."""
        for known in (self._lobby, self._mates):
            while known and next(iter(known.values())) < now - WINDOW_S:
                known.popitem(last=False)
        self.estimate = estimated_size([rank_of(author) for author in self._lobby], self._scale)
        shards = self._next_shards(now)
        if shards != self._shards:
            self._change(shards, now)
        if shards > 1 and (now >= self._redraw_at or not self._drawn):
            # Soon after the first draw, when the own shard has told how many authors shards have.
            pause_s = REDRAW_S if self._drawn else FIRST_REDRAW_S
            self._redraw_at = now + pause_s * rng.uniform(0.5, 1.5)
            self._draw(rng)

    def owes_beacon(self, now: float) -> bool:
        """Whether this node has to say in the lobby that it is there; once in `BEACON_S`."""
        if self._shards == 1 or now < self._beacon_at:
            return False
        ranks = sorted(rank_of(author) for author in self._lobby)
        lowest = (
            ranks[self._scale.sample - 1]
            if len(ranks) >= self._scale.sample
            else self._scale.sample / max(self._scale.sample, self.estimate)
        )
        if rank_of(self._me) > lowest:
            return False
        self._beacon_at = now + self._scale.beacon_s
        return True

    def _next_shards(self, now: float) -> int:
        scale, shards = self._scale, self._shards
        if shards == 1:
            believed = self.estimate if now >= self._distrusts_until else len(self._lobby)
            if believed <= scale.split_above:
                self._many_since = math.inf
                return 1
            self._many_since = min(self._many_since, now)
            is_time = now >= self._many_since + scale.split_after_s
            return _shards_for(believed, scale) if is_time else 1
        if now < self._since + SETTLE_S:
            return shards
        authors = self.estimate / shards
        if authors < scale.least_authors:
            return shards // 2 if shards > scale.first_shards else 1
        if len(self._mates) < scale.least_peers:
            self._distrusts_until = now + DISTRUST_S
            return 1
        is_full = authors > scale.most_authors and len(self._mates) >= scale.peers_to_split
        return 2 * shards if is_full and shards < MAX_SHARDS else shards

    def _change(self, shards: int, now: float) -> None:
        known = {**self._lobby, **self._mates}
        self._shards, self._since, self._drawn, self._many_since = shards, now, [], math.inf
        self.own = shard_of(self._me, shards)
        self._mates.clear()
        if shards > 1:
            for author, when in sorted(known.items(), key=lambda item: item[1]):
                self.heard(author, self.own, when)

    def _draw(self, rng: Random) -> None:
        """Replaces one of the drawn shards by another, or draws all of them."""
        # The own shard is counted, the others' size is that of an estimate that all share: where
        # it is wrong it is for everybody.
        counted = len(self._mates) + 1 if self._drawn else self.estimate / self._shards
        scale = self._scale
        authors = max(scale.least_authors, min(scale.most_authors, counted))
        # Rounded up by some nodes and down by others, so that the mean is the audience.
        count = max(2, min(self._shards, math.floor(scale.audience / authors + rank_of(self._me))))
        kept = [shard for shard in self._drawn[1:] if shard != self.own]
        if kept:
            kept.pop(rng.randrange(len(kept)))
        chosen = dict.fromkeys([self.own, *kept[: count - 1]])
        while len(chosen) < count:
            chosen[Shard(self._shards, rng.randrange(self._shards))] = None
        self._drawn = list(chosen)


def estimated_size(ranks: Sequence[float], scale: Scale = LARGE) -> float:
    """Nodes in the swarm, from the ranks heard in the lobby in any order.

    While a newcomer has heard a part of the sample only, the middle of what it heard is at half of
    the ranks that are told. Uniform ranks of others, who do not know yet that there are shards,
    move the middle little.
    """
    heard = sorted(ranks)
    if len(heard) < scale.least_sample:
        return float(len(heard))
    by_middle = scale.sample / (2 * max(heard[len(heard) // 2], 1e-9))
    sample = scale.sample
    by_last = (sample - 1) / max(heard[sample - 1], 1e-9) if len(heard) >= sample else 0.0
    return max(float(len(heard)), by_middle, by_last)


def _shards_for(nodes: float, scale: Scale) -> int:
    """The fewest shards, above 1, of at most `MOST_AUTHORS` each."""
    shards = scale.first_shards
    while nodes > shards * scale.most_authors and shards < MAX_SHARDS:
        shards *= 2
    return shards


def _note(known: OrderedDict[bytes, float], author: bytes, now: float, limit: int) -> None:
    known[author] = now
    known.move_to_end(author)
    while len(known) > limit:
        known.popitem(last=False)
