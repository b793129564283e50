"""A node that rests while a file is in its run directory: `swarmnode pause` makes it, `resume`
removes it.

A file and not a signal: it reaches a node in a container, and a node that is started again stays
paused. A paused node keeps its memory and its peers, and serves what it has published.
"""

import logging
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from swarmnode import life
from swarmnode.errors import ConfigError, SwarmNodeError
from swarmnode.life import Phase
from swarmnode.run_directory import RunDirectory

log = logging.getLogger(__name__)

PAUSED = "paused"
# Seconds between two looks of a paused node.
LOOK_S = 0.5


class Pause:
    """Whether the node in `directory` is to rest now. `on_change` hears of every change."""

    def __init__(self, directory: RunDirectory, on_change: Callable[[bool], None]) -> None:
        self._directory = directory
        self._on_change = on_change
        self._is_on = False

    def holds(self) -> bool:
        """Looks; says in log and `life.json` when that changed."""
        is_on = (self._directory.path / PAUSED).exists()
        if is_on != self._is_on:
            self._is_on = is_on
            log.info("%s run=%s", "paused" if is_on else "unpaused", self._directory.path)
            self._directory.tell(Phase.PAUSED if is_on else Phase.RUNNING)
            self._on_change(is_on)
        return is_on


def run(run: Path, *, is_pause: bool) -> int:
    """Pauses or resumes the node in `run`. Raises `ConfigError` for a folder that is no run."""
    if not (run / "lock").exists():
        raise ConfigError(
            f"{run} is no run directory: give the folder that join was given as --run"
        )
    file = run / PAUSED
    try:
        if is_pause:
            file.touch()
        else:
            file.unlink(missing_ok=True)
    except OSError as error:
        raise SwarmNodeError(f"cannot write {file}: {error.strerror}") from error
    Console().print(_outcome(run, is_pause), highlight=False, soft_wrap=True, markup=False)
    return 0


def _outcome(run: Path, is_pause: bool) -> str:
    if not life.look(run).phase.is_alive:
        return f"no node runs in {run}; " + (
            "started again it waits until swarmnode resume" if is_pause else "it is not paused now"
        )
    if is_pause:
        return f"pauses after its round; it keeps memory and peers. swarmnode resume {run}"
    return "goes on"
