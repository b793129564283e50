"""Where a node stands, written into checkpoints and read back: a resumed run goes on as if it had
never stopped, as far as the network lets it."""

import base64
import copy
import json
import logging
import os
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from swarmnode.ahead import Ahead
from swarmnode.assembly import Parts
from swarmnode.config import RunSettings
from swarmnode.errors import ConfigError, SwarmNodeError
from swarmnode.report import Totals
from swarmnode.run_directory import RunDirectory
from swarmnode.swarm.publishing import Published
from swarmnode.train import checkpoint
from swarmnode.train.trainer import TrainerState

log = logging.getLogger(__name__)

# A checkpoint is due when its last duration is this share of the time since: 5 % of the run.
_CHECKPOINT_SHARE = 0.05


PUBLISHED = "published.json"


@dataclass(slots=True)
class Progress:
    """What a node counts itself; its parts remember the rest."""

    round: int = 0
    next_number: int = 0  # of the next question this node draws
    evaluated_round: int = -1
    totals: Totals = field(default_factory=Totals)
    ahead: Ahead | None = None  # in flight; a checkpoint is as if it were not asked yet


class PublishedBefore:
    """Which own questions peers have heard of, ahead of the checkpoints.

    A node that is killed does the rounds after its last checkpoint again, question by question. To
    publish them again would be to answer a question twice, which peers refuse. They remember that
    for `lifetime_s`, and so does this. It is a file of its own; a disk that refuses it is logged.
    """

    def __init__(self, path: Path, lifetime_s: float) -> None:
        self._path = path
        self._lifetime_s = lifetime_s
        self._up_to, self._at = -1, 0.0  # the last number, when (Unix seconds)

    def load(self) -> None:
        """Takes over what a process before this one wrote; nothing, if that is damaged."""
        try:
            found = json.loads(self._path.read_bytes())
            self._up_to, self._at = int(found["up_to"]), float(found["at"])
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError, KeyError) as error:
            log.warning("cannot read %s: %r", self._path, error)

    def new(self, groups: Sequence[Published], now: float) -> list[Published]:
        """Those that were not published before, which from now on they are."""
        is_known = now - self._at <= self._lifetime_s
        new = [one for one in groups if not is_known or one.number > self._up_to]
        if len(new) < len(groups):
            log.info("not published again: %d groups of before", len(groups) - len(new))
        if new:
            self._note(max(one.number for one in new), now)
        return new

    def _note(self, number: int, now: float) -> None:
        self._up_to, self._at = number, now
        temporary = self._path.with_suffix(".new")
        try:
            temporary.write_text(json.dumps({"up_to": number, "at": now}) + "\n")
            os.replace(temporary, self._path)
        except OSError as error:
            log.warning("cannot write %s: %s", self._path, error.strerror)


class Checkpoints:
    """Decides when a checkpoint is due; saves and restores `progress` and the parts."""

    def __init__(self, settings: RunSettings, directory: RunDirectory) -> None:
        self._settings = settings
        self._directory = directory
        self._saved_round = 0
        self._saved_at = time.monotonic()
        self._save_s = 0.0

    def is_due(self, round: int) -> bool:
        """Whether to save now, at the end of `round`."""
        every = self._settings.checkpoint_every
        if every:
            return round % every == 0
        return (time.monotonic() - self._saved_at) * _CHECKPOINT_SHARE >= self._save_s

    def save(self, progress: Progress, parts: Parts) -> None:
        """Makes the end of this round durable, unless it is. Raises `SwarmNodeError` when the disk
        refuses; earlier checkpoints stay."""
        if progress.round == self._saved_round:
            return
        started = time.monotonic()
        self._directory.flush_rows()
        trainer = parts.trainer.state()
        checkpoint.save(
            self._directory.checkpoints,
            checkpoint.Checkpoint(
                progress.round, trainer.model, trainer.optimizer, _state(progress, parts)
            ),
            self._settings.keep_checkpoints,
        )
        self._saved_round = progress.round
        self._saved_at = time.monotonic()
        self._save_s = self._saved_at - started

    def resume(self, parts: Parts) -> Progress:
        """From the newest checkpoint, whose state the parts take over; from the start, if there is
        none. Rows of later rounds are removed. Raises `SwarmNodeError` when every one is damaged,
        `ConfigError` when it is of another model.
        """
        latest = checkpoint.load_latest(self._directory.checkpoints)
        for skipped in latest.skipped:
            log.warning("checkpoint skipped name=%s reason=%s", skipped.name, skipped.reason)
        found = latest.checkpoint
        if found is None:
            if latest.skipped:
                raise SwarmNodeError(
                    f"every checkpoint in {self._directory.checkpoints} is damaged: restore one, "
                    "or start afresh with another --run"
                )
            self._directory.keep_rows_up_to(-1)
            return Progress()
        try:
            progress = _restored(found, parts)
        except SwarmNodeError as error:
            raise ConfigError(
                f"{error}; give the --model that the run in {self._directory.path} began with, or "
                "another --run"
            ) from error
        self._saved_round = found.round
        self._directory.keep_rows_up_to(found.round)
        parts.metrics.resume(copy.deepcopy(progress.totals))
        log.info("resumed round=%d run=%s", found.round, self._directory.path)
        return progress


def _state(progress: Progress, parts: Parts) -> dict[str, Any]:
    next_number, rng, chance = progress.next_number, parts.rng, parts.generator.state()
    if (ahead := progress.ahead) is not None:
        next_number, chance = ahead.next_number, ahead.chance
        rng = random.Random()  # noqa: S311  takes over the state of the node's own
        rng.setstate(ahead.rng)
    return {
        "swarm_id": parts.swarm_id.hex(),
        "policy_version": parts.trainer.policy_version,
        "next_number": next_number,
        "evaluated_round": progress.evaluated_round,
        "totals": asdict(progress.totals),
        "exchange": parts.exchange.state(),
        **{name: part.state() for name, part in _remembering(parts).items()},
        "generator": base64.b64encode(chance).decode(),
        "rng": checkpoint.rng_state({"node": rng}, {}),
    }


def _restored(found: checkpoint.Checkpoint, parts: Parts) -> Progress:
    state = found.state
    parts.trainer.load_state(TrainerState(found.model, found.optimizer, state["policy_version"]))
    parts.generator.restore(base64.b64decode(state["generator"]))
    parts.generator.update(parts.trainer.policy_version)
    checkpoint.restore_rng(state["rng"], {"node": parts.rng}, {})
    parts.exchange.load_state(state["exchange"])
    for name, part in _remembering(parts).items():
        if name in state:  # a checkpoint of before a part was added lacks it
            part.load_state(state[name])
    return Progress(
        found.round, state["next_number"], state["evaluated_round"], Totals(**state["totals"])
    )


def _remembering(parts: Parts) -> dict[str, Any]:
    """The parts that decide by what they saw, by their name in a checkpoint."""
    return {
        "mixing": parts.mixing,
        "gain": parts.gain,
        "breadth": parts.breadth,
        "rollback": parts.rollback,
    }
