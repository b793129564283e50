"""The records that cross layers: question, completion, group. No torch, no I/O.

`tasks` makes a `Question`, `generate` answers it with `Completion`s, `tasks` scores them, and
the three become a `Group`, the unit that SAPO shares and trains on (one question with all its
completions; arXiv 2509.08721, section 3).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Question:
    """One verifiable question, regenerated bit-equal by any node from (task digest, seed).

    `digest` is the 4-byte digest of the task's configuration; `seed` is the generator's seed
    (the author's question number mixed with its key, see `protocol.names.question_seed`).
    `answer` and `metadata` never leave this machine. `held_out` questions are for evaluation
    only: they are never trained on and never published.
    """

    task: str
    digest: bytes
    seed: int
    prompt: str
    answer: str
    held_out: bool
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer. `mean_logp` is the sampler's mean log-probability per token, in nats (≤ 0),
    `token_count` counts the sampler's tokens, EOS included.

    `token_ids` and `logps` (one per token, same length) are present only for this node's own
    completions, exactly as sampled; a peer's completion is text and is encoded anew.
    `ended` is true when the sampler ended it by EOS; a completion cut by the length limit, own or
    a peer's, is trained without an EOS.
    """

    text: str
    mean_logp: float
    token_count: int
    token_ids: tuple[int, ...] | None = None
    logps: tuple[float, ...] | None = None
    ended: bool = True


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a peer's group came from. `author` is its 32-byte Ed25519 public key, `created` the
    author's clock in Unix seconds, `received_round` this node's round when it was admitted,
    `network` the /24 or /48 from which its author serves, "" while that is not known."""

    author: bytes
    rollout_id: bytes
    model_label: str
    created: float
    received_round: int
    network: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """One question, its completions and *our* rewards for them (0 or 1, same order).

    `origin` is None for this node's own groups. `policy_version` counts the sampler's optimiser
    steps; `temperature` is the sampler's.
    """

    question: Question
    completions: tuple[Completion, ...]
    rewards: tuple[float, ...]
    policy_version: int
    temperature: float
    origin: Origin | None = None

    @property
    def mean_reward(self) -> float:
        return sum(self.rewards) / len(self.rewards)

    @property
    def has_signal(self) -> bool:
        """Whether the group-relative advantage is non-zero: the rewards are not all equal."""
        return len(set(self.rewards)) > 1
