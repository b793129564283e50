"""Stand-ins and made-up records that several tests share. The first is held against the real thing
in `test_fakes.py`."""

from collections.abc import Sequence
from typing import Any

from swarmnode.report import RoundReport, Totals
from swarmnode.rollout import Completion, Group, Origin, Question


class FakeTasks:
    """One task whose question is its seed; every tenth seed is held out. As `TaskSet`, without
    files and generators."""

    names = ("add",)

    def digest(self, name: str) -> bytes:
        return b"add1"

    def question(self, name: str, seed: int) -> Question:
        digest = self.digest(name)
        return Question(name, digest, seed, f"{seed} + 1?", str(seed + 1), seed % 10 == 0)


def completion(text: str, **changes: Any) -> Completion:
    fields: dict[str, Any] = {"mean_logp": -0.5, "token_count": 3}
    return Completion(text, **(fields | changes))


def own_group(
    rewards: Sequence[float], texts: Sequence[str] = (), question: Question | None = None
) -> Group:
    """A group of this node, with a text and two token ids for each reward."""
    question = question or FakeTasks().question("add", 1)
    texts = texts or [f"answer {index}" for index in range(len(rewards))]
    completions = tuple(
        completion(text, token_ids=(7, index), logps=(-0.5, -0.25))
        for index, text in enumerate(texts)
    )
    return Group(question, completions, tuple(rewards), policy_version=4, temperature=1.0)


def peer_group(
    rewards: Sequence[float],
    texts: Sequence[str] = (),
    *,
    author: int = 1,
    created: float = 0.0,
    received_round: int = 0,
    question: Question | None = None,
) -> Group:
    """A group of peer number `author`."""
    texts = texts or [f"answer {index}" for index in range(len(rewards))]
    origin = Origin(bytes([author] * 32), bytes([author] * 32), "tiny", created, received_round)
    return Group(
        question or FakeTasks().question("add", 1),
        tuple(completion(text) for text in texts),
        tuple(rewards),
        policy_version=4,
        temperature=1.0,
        origin=origin,
    )


def round_report(round: int = 1, **changes: Any) -> RoundReport:
    """A round in which everything was measured, with distinct figures."""
    fields: dict[str, Any] = {
        "round": round,
        "time": 1_700_000_000.5,
        "policy_version": round,
        "own_reward": 0.25,
        "own_reward_by_task": {"add": 0.25},
        "own_groups": 4,
        "own_groups_with_signal": 3,
        "external_reward": 0.5,
        "external_groups": 2,
        "external_groups_trained": 1,
        "external_by_model": {"tiny": 2},
        "loss": -0.125,
        "grad_norm": 1.5,
        "kl": 0.001,
        "kl_external": 0.75,
        "engine": "vllm",
        "engine_given_up": False,
        "engine_restarts": 0,
        "handover_s": 0.25,
        "mismatch": 0.002,
        "mismatch_kl": 0.0005,
        "own_lag": 1,
        "entropy": 2.5,
        "clip_fraction": 0.0625,
        "staleness_s": 12.5,
        "staleness_rounds": 1.5,
        "effective_ratio": 0.875,
        "foreign_share": 0.5,
        "sharing_gain": 2.25,
        "sharing_gain_error": 0.75,
        "pool_groups": 5,
        "pool_age_s": 7.5,
        "peers": 2,
        "network_restarts": 0,
        "foreign_peers": 0,
        "network_dropped": {},
        "waiting_for": "",
        "alone": "",
        "alone_because": "",
        "seconds": {"generate": 1.5, "train": 0.5, "total": 2.0},
        "totals": Totals(),
    }
    return RoundReport(**(fields | changes))
