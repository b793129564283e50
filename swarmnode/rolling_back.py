"""The way back: looks at the probe, keeps the last good checkpoint, and returns to it.

What a bad look is, and who is concerned, is decided in `probing.py`. Only weights and optimiser go
back; the policy's version goes on, so that peers and the generator see that it changed.
"""

import logging
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swarmnode.config import DefenceSettings
from swarmnode.probing import Look, Memory, Verdict, look_of
from swarmnode.rollout import Group, Question
from swarmnode.train import checkpoint
from swarmnode.train.trainer import TrainerState

if TYPE_CHECKING:
    from swarmnode.assembly import Parts

log = logging.getLogger(__name__)


class Rollback:
    """Remembers the last good look; its weights are in `folder`."""

    def __init__(self, settings: DefenceSettings, folder: Path) -> None:
        self._settings = settings
        self._folder = folder
        self._memory = Memory()

    def is_due(self, round: int) -> bool:
        """Whether to look at the end of this round."""
        every = self._settings.probe_every
        return every > 0 and round % every == 0

    def note(self, chosen: Sequence[Group], encode: Callable[[str], Sequence[int]]) -> None:
        """Takes in peers' groups that were trained on."""
        if self._settings.probe_every:
            texts = [[encode(c.text) for c in group.completions] for group in chosen]
            self._memory.note(zip(chosen, texts, strict=True))

    def look(self, parts: "Parts", round: int) -> Verdict | None:
        """Looks, and either keeps these weights as good or goes back; returns why it went back.

        Raises `SwarmNodeError` where generation, scoring or the disk fails.
        """
        parts.mixing.blame.forgive(self._settings.probe_every)
        now = self._seen(parts)
        found = self._memory.judge(now)
        if found is not None and self._return(parts, round, found):
            return found
        self._keep(parts, round)
        self._memory.accept(now, round)
        return None

    def state(self) -> dict[str, Any]:
        """What `load_state` restores, JSON-able."""
        return self._memory.state()

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes over what `state` returned."""
        self._memory.load_state(state)

    def _seen(self, parts: "Parts") -> Look:
        questions = self._questions(parts)
        answers = parts.generator.greedy(questions)
        rewards = [
            parts.scorer.score(question, [answer.text])[0]
            for question, answer in zip(questions, answers, strict=True)
        ]
        encode = parts.codec.encode
        return look_of(
            rewards,
            [encode(answer.text) for answer in answers],
            [[encode(question.prompt), encode(question.answer)] for question in questions],
        )

    def _questions(self, parts: "Parts") -> list[Question]:
        """The same ones always: the first held-out questions of every task."""
        count = math.ceil(self._settings.probe_questions / len(parts.tasks.names))
        return [q for name in parts.tasks.names for q in parts.tasks.held_out(name, count)]

    def _keep(self, parts: "Parts", round: int) -> None:
        trainer = parts.trainer.state()
        if self._folder.exists():
            latest = checkpoint.load_latest(self._folder).checkpoint
            if latest is not None and latest.round >= round:
                # A run that came back from an older checkpoint of its own does rounds again.
                shutil.rmtree(self._folder)
        kept = checkpoint.Checkpoint(round, trainer.model, trainer.optimizer, {})
        checkpoint.save(self._folder, kept, keep=1)

    def _return(self, parts: "Parts", round: int, found: Verdict) -> bool:
        """Puts the last good weights back. False: there are none."""
        good = checkpoint.load_latest(self._folder).checkpoint
        if good is None:
            log.warning("probe failed fault=%s and no good checkpoint is left", found.fault)
            return False
        concerned = self._memory.concerned(found)
        version = parts.trainer.policy_version + 1
        parts.trainer.load_state(TrainerState(good.model, good.optimizer, version))
        parts.generator.update(version)
        parts.mixing.blame.blame(concerned)
        dropped = parts.pool.drop(concerned)
        self._memory.reject()
        log.warning(
            "rollback round=%d to_round=%d fault=%s authors=%d pooled_groups_dropped=%d",
            round, good.round, found.fault, len(concerned), dropped,
        )  # fmt: skip
        return True
