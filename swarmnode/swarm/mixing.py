"""How a node mixes its own groups with peers': the decisions of `sharing.rule`, round by round.

`off` takes nothing. `sapo` is the published rule (`sampling.py`). `hybrid` is ours; departures from
the published rule (arXiv 2509.08721, section 4), each with its switch in `config.HybridSettings`:

1. A peer's group whose answers are all right is kept where this node itself is mostly wrong at the
   task (`rescue_below`); the published rule drops it, as its advantage is zero.
2. Groups of tasks that this node does not practise are left out (`own_tasks_only`).
3. Where there are more useful groups than wanted, they are drawn by `priority`.
4. J grows up to `stretch` times what was asked for, as far as there are useful groups; below
   `fill` times what was asked for own questions take the place of missing ones.
5. Some of the own questions are peers' (`paired`): both groups then share their baseline
   (`samples.py`).
6. A fall of the own reward lowers the weight of peers' part (`guard`, `guard.py`).
7. A group may take part in more than one step (`max_uses`), and one whose author has moved on by
   more than `max_lag` policy versions in none.
8. No author and no question is more than its part of a round (`config.DefenceSettings`), and an
   author that was blamed less (`shares.py`).

How peers' completions enter the loss is in `train/foreign.py`.
"""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from swarmnode.config import DefenceSettings, HybridSettings, SharingSettings, TrustSettings
from swarmnode.rollout import Group
from swarmnode.swarm import sampling
from swarmnode.swarm.ability import Ability
from swarmnode.swarm.guard import Guard
from swarmnode.swarm.quota import fair_weights
from swarmnode.swarm.shares import Blame, limited

# The least chance of a group to be drawn, relative to the greatest: none is shut out for good.
_LEAST_PRIORITY = 0.02

Lag = Callable[[Group], int]


class Mixing:
    """What this node decides by `sharing.rule`, with what it remembers for it."""

    def __init__(
        self,
        sharing: SharingSettings,
        hybrid: HybridSettings,
        trust: TrustSettings | None = None,
        defence: DefenceSettings | None = None,
    ) -> None:
        self._fair_to = trust.authors_per_network if trust and trust.fair_shares else 0
        self._rule = sharing.rule
        stretch = hybrid.stretch if sharing.rule == "hybrid" else 1.0
        self.external = round(stretch * sharing.external)  # J at most
        self._fill_to = round(hybrid.fill * sharing.external)
        self._hybrid = hybrid
        self._defence = defence
        self.blame = Blame()
        self._chosen: int | None = None  # peers' groups in the last round
        self._paired: list[Group] = []  # of this round
        self.ability = Ability()
        self._guard = Guard()

    def own_questions(self, usual: int) -> int:
        """How many questions this node asks itself now, of which `usual` in every round.

        As many more as the last round had too few of peers' groups: those of this round are not
        known yet.
        """
        if self._rule != "hybrid" or self._chosen is None:
            return usual
        return usual + max(0, self._fill_to - self._chosen)

    def note_own(self, groups: Iterable[Group]) -> None:
        """Takes in this round's answers to own fresh questions, before any filtering."""
        fresh = list(groups)
        self.ability.note(fresh)
        self._guard.note(fresh)

    def is_useful(self, group: Group) -> bool:
        """Whether this node could learn from a peer's group."""
        if self._rule != "hybrid":
            return group.has_signal
        rate = self.ability.rate(group.question.task)
        if rate is None and self._hybrid.own_tasks_only:
            return False
        rescued = group.mean_reward == 1.0 and (rate or 0.0) < self._hybrid.rescue_below
        return group.has_signal or rescued

    def pair(self, pooled: Sequence[Group], lag: Lag, rng: random.Random) -> list[Group]:
        """Peers' groups whose questions this node answers itself this round; they are then chosen
        too. They take the place of own questions, one of which is left at least."""
        count = min(self._hybrid.paired, self.external) if self._rule == "hybrid" else 0
        self._paired = self._draw(pooled, count, lag, rng) if count else []
        return self._paired

    def choose(self, pooled: Sequence[Group], lag: Lag, rng: random.Random) -> list[Group]:
        """Which of the pooled groups this round trains on: `external` at most. `lag` gives the
        policy versions that a group's author has moved on by."""
        match self._rule:
            case "off":
                chosen = []
            case "sapo":
                chosen = sampling.choose_groups(pooled, self.external, rng)
            case "hybrid":
                paired = {id(group) for group in self._paired}
                others = [group for group in pooled if id(group) not in paired]
                count = self.external - len(self._paired)
                chosen = self._paired + self._draw(others, count, lag, rng)
                self._paired = []
        self._chosen = len(chosen)
        return chosen

    @property
    def foreign_share(self) -> float:
        """What the weight of peers' part of the loss is multiplied by."""
        return self._guard.share if self._rule == "hybrid" and self._hybrid.guard else 1.0

    def state(self) -> dict[str, Any]:
        """What `load_state` restores, JSON-able."""
        return {
            "chosen": self._chosen,
            "ability": self.ability.state(),
            "guard": self._guard.state(),
            "blame": self.blame.state(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes over what `state` returned."""
        self._chosen = state["chosen"]
        self.ability.load_state(state["ability"])
        self._guard.load_state(state["guard"])
        self.blame.load_state(state.get("blame", {}))  # older checkpoints lack it

    def _draw(
        self, pooled: Sequence[Group], count: int, lag: Lag, rng: random.Random
    ) -> list[Group]:
        useful = [
            group
            for group in pooled
            if self.is_useful(group) and lag(group) <= self._hybrid.max_lag
        ]
        weights = [self._priority(group) for group in useful]
        if (
            self._fair_to
        ):  # as what is fetched: else one author's many useful groups crowd out others
            owners = [(o.author, o.network) for o in (group.origin for group in useful) if o]
            shares = fair_weights(owners, self._fair_to)
            weights = [weight * share for weight, share in zip(weights, shares, strict=True)]
        drawn = sampling.choose_weighted(useful, weights, len(useful), rng)
        kept = self.blame.passed(drawn, rng)
        if limits := self._defence:
            kept = limited(kept, limits.author_share, limits.per_question, self.external)
        return kept[:count]

    def _priority(self, group: Group) -> float:
        mean = group.mean_reward
        match self._hybrid.priority:
            case "uniform":
                return 1.0
            case "balance":
                return max(_LEAST_PRIORITY, 4 * mean * (1 - mean))
            case "headroom":
                rate = self.ability.rate(group.question.task) or 0.0
                return max(_LEAST_PRIORITY, mean * (1 - rate))
