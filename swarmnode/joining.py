"""What `swarmnode join` does: settings and run directory from flags, then one node to its end."""

import gc
import logging
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.live import Live
from rich.text import Text

from swarmnode import config, deadline, log, manifest
from swarmnode.config import Settings
from swarmnode.errors import ConfigError, SwarmNodeError
from swarmnode.identity import Identity
from swarmnode.life import Phase
from swarmnode.manifest import Manifest
from swarmnode.report import RoundReport
from swarmnode.run_directory import RunDirectory, first_free
from swarmnode.swarm.transport import Transport
from swarmnode.terminal import above
from swarmnode.tracking import open_tracker, require

logger = logging.getLogger(__name__)


def join(
    flags: dict[str, dict[str, Any]],
    settings_file: Path | None,
    run: Path | None,
    *,
    resume: bool,
) -> int:
    """Runs a node until its rounds are done or a signal stops it; returns the exit code."""
    if flags["run"].get("until") is not None:
        flags["run"]["until"] = deadline.moment(flags["run"]["until"], datetime.now().astimezone())
    asked = _settings(flags, settings_file)  # wrong use is told before a folder is made
    if run is None:
        directory = first_free(_default_run_name(asked))
    else:
        directory = RunDirectory(run)
        directory.open()
    try:
        saved = directory.path / "config.toml"
        settings = _settings(flags, settings_file or (saved if saved.exists() else None))
        swarm = manifest.load(settings.swarm or default_swarm(settings.model.name))
        _check_resume(directory, resume)
        require(settings.run.tracker)
        deadline.check(settings.run.until)
        return _run(settings, swarm, directory)
    finally:
        directory.close()


def default_swarm(model_name: str) -> str:
    """The built-in swarm for a model: the small one for the small model."""
    return "demo" if model_name == "demo" else "reasoning"


def _run(settings: Settings, swarm: Manifest, directory: RunDirectory) -> int:
    """Runs the node and says in the run directory how it ended, whatever happens."""
    directory.tell(Phase.STARTING)
    try:
        code = _run_shown(settings, swarm, directory)
    except SwarmNodeError as error:
        directory.tell(Phase.FAILED, str(error))
        raise
    except BaseException as error:
        directory.tell(Phase.FAILED, f"a defect of the program: {error!r}")
        raise
    return code


def _run_shown(settings: Settings, swarm: Manifest, directory: RunDirectory) -> int:
    to_file = partial(
        log.setup,
        directory.log,
        max_bytes=settings.run.log_mb * 2**20,
        keep=settings.run.keep_logs,
    )
    if not sys.stderr.isatty():
        to_file()
        return _run_node(settings, swarm, directory, lambda r: logger.info("%s", round_line(r)))
    try:
        console = Console(stderr=True)
        with Live(console=console, refresh_per_second=4) as live:
            to_file(above(console))
            return _run_node(settings, swarm, directory, lambda r: live.update(Text(round_line(r))))
    finally:
        to_file()


def _run_node(
    settings: Settings,
    swarm: Manifest,
    directory: RunDirectory,
    on_report: Callable[[RoundReport], None],
) -> int:
    logger.info("starting run=%s model=%s", directory.path, settings.model.name)
    if deadline.is_past(settings.run.until, time.time()):
        logger.warning("its time was over at %s: --until never, or a later one", settings.run.until)
    with _made_to_stay():
        _check_memory(settings)
        # Imports torch and transformers: seconds, so only after the flags were found to be right.
        from swarmnode.node import Node

    def network(identity: Identity, swarm_id: bytes, label: str) -> Transport:
        from swarmnode import networking

        return networking.make_transport(
            settings.network, swarm.name, directory, identity, swarm_id, label
        )

    node = Node(settings, swarm, directory, network)
    tracker = None
    try:
        with _made_to_stay():
            node.open()
        tracker = open_tracker(settings.run.tracker, directory, msgspec.to_builtins(settings))
        stopped_by = node.run(_both(on_report, tracker.record))
    except KeyboardInterrupt:
        logger.warning("stopped at once; the last checkpoint is kept in %s", directory.path)
        directory.tell(Phase.STOPPED, "at once, without saving")
        return 130
    finally:
        if tracker is not None:
            tracker.close()
        node.close()
    if stopped_by is None:
        directory.tell(Phase.DONE)
    else:
        directory.tell(Phase.STOPPED, f"by {signal.Signals(stopped_by).name}")
    return 130 if stopped_by == signal.SIGINT else 0


@contextmanager
def _made_to_stay() -> Iterator[None]:
    """Leaves what is made inside out of garbage collection, now and later: a node's libraries are
    some 700,000 objects that all stay, and going through them is a fifth of a start's CPU time."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _check_memory(settings: Settings) -> None:
    """Says when the model may not fit; raises `ConfigError` when its weights alone do not."""
    from swarmnode.doctor import model
    from swarmnode.doctor.check import Level

    size = model.size_here(settings.model)
    if size is None or settings.sharing.role == "rollout":
        return
    check = model.memory(settings, size)
    if check.level is Level.PROBLEM:
        raise ConfigError(f"not enough memory: {check.found}: {check.fix}")
    if check.level is Level.WARNING:
        logger.warning("memory: %s; %s", check.found, check.fix)


def _both(
    first: Callable[[RoundReport], None], second: Callable[[RoundReport], None]
) -> Callable[[RoundReport], None]:
    def tell(report: RoundReport) -> None:
        first(report)
        second(report)

    return tell


def round_line(report: RoundReport) -> str:
    """One round in one line of `key=value`, the same for a terminal and a log."""
    external = "-" if report.external_reward is None else f"{report.external_reward:.3f}"
    refused = sum(report.totals.refused.values())
    line = (
        f"round={report.round} own_reward={report.own_reward:.3f} external_reward={external} "
        f"trained={report.own_groups_with_signal}+{report.external_groups_trained} "
        f"peers={report.peers} refused={refused} seconds={report.seconds['total']:.2f}"
    )
    if report.sharing_gain is not None:
        line += f" peers_give={report.sharing_gain:+.2f}±{report.sharing_gain_error:.2f}"
    return f"{line} waiting_for={report.waiting_for!r}" if report.waiting_for else line


def _settings(flags: dict[str, dict[str, Any]], settings_file: Path | None) -> Settings:
    """Flags over the settings file: the user's or, without one, the one that the run was started
    with before."""
    from swarmnode import networking
    from swarmnode.swarm.multiaddr import check_announced

    named = config.load(settings_file, {"model": flags["model"]}).model.name
    settings = config.load(settings_file, flags, config.preset(named))
    by_flag = flags["network"]["peers"] is not None
    networking.check(settings.network, "--peer" if by_flag else f"{settings_file}: `network.peers`")
    by_flag = flags["network"]["announce"] is not None
    for address in settings.network.announce:
        name = "--announce" if by_flag else f"{settings_file}: `network.announce`"
        check_announced(address, name)
    return settings


def _default_run_name(settings: Settings) -> str:
    swarm = manifest.load(settings.swarm or default_swarm(settings.model.name))
    model = Path(settings.model.name).name.lower()
    return f"join-{model}" if model == swarm.name else f"join-{swarm.name}-{model}"


def _check_resume(directory: RunDirectory, resume: bool) -> None:
    if not resume and any(directory.checkpoints.glob("round-*")):
        raise ConfigError(
            f"{directory.path} holds a run and --no-resume was given: "
            "choose a new directory with --run (nothing is overwritten)"
        )
