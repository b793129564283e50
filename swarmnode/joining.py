"""What `swarmnode join` does: settings and run directory from flags, then one node to its end."""

import logging
import re
import signal
import socket
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.live import Live
from rich.text import Text

from protocol.messages import Hello
from swarmnode import config, log, manifest
from swarmnode.config import Settings
from swarmnode.errors import ConfigError
from swarmnode.identity import Identity
from swarmnode.manifest import Manifest
from swarmnode.report import RoundReport
from swarmnode.run_directory import RunDirectory, first_free
from swarmnode.swarm.transport import Transport
from swarmnode.terminal import above

logger = logging.getLogger(__name__)


def join(
    flags: dict[str, dict[str, Any]],
    settings_file: Path | None,
    run: Path | None,
    *,
    resume: bool,
) -> int:
    """Runs a node until its rounds are done or a signal stops it; returns the exit code."""
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
        return _run(settings, swarm, directory)
    finally:
        directory.close()


def default_swarm(model_name: str) -> str:
    """The built-in swarm for a model: the small one for the small model."""
    return "demo" if model_name == "demo" else "reasoning"


def _run(settings: Settings, swarm: Manifest, directory: RunDirectory) -> int:
    if not sys.stderr.isatty():
        log.setup(directory.log)
        return _run_node(settings, swarm, directory, lambda r: logger.info("%s", round_line(r)))
    try:
        console = Console(stderr=True)
        with Live(console=console, refresh_per_second=4) as live:
            log.setup(directory.log, above(console))
            return _run_node(settings, swarm, directory, lambda r: live.update(Text(round_line(r))))
    finally:
        log.setup(directory.log)


def _run_node(
    settings: Settings,
    swarm: Manifest,
    directory: RunDirectory,
    on_report: Callable[[RoundReport], None],
) -> int:
    logger.info("starting run=%s model=%s", directory.path, settings.model.name)
    # Imports torch and transformers: seconds, so only after the flags were found to be right.
    from swarmnode.node import Node

    node = Node(
        settings, swarm, directory, lambda *who: _transport(settings, swarm, directory, *who)
    )
    try:
        node.open()
        stopped_by = node.run(on_report)
    except KeyboardInterrupt:
        logger.warning("stopped at once; the last checkpoint is kept in %s", directory.path)
        return 130
    finally:
        node.close()
    return 130 if stopped_by == signal.SIGINT else 0


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


def _transport(
    settings: Settings,
    swarm: Manifest,
    directory: RunDirectory,
    identity: Identity,
    swarm_id: bytes,
    label: str,
) -> Transport:
    if settings.network.backend == "off":
        from swarmnode.swarm.memory import Hub, MemoryTransport

        return MemoryTransport(Hub(), identity.peer_id)
    from swarmnode.swarm import backends
    from swarmnode.swarm.network_transport import NetworkTransport

    hello = Hello.build(
        swarm_id=swarm_id,
        swarm_name=swarm.name,
        software=f"swarmnode {metadata.version('swarmnode')}",
        model_label=label,
    )
    network = settings.network
    if network.port == 0:
        network = msgspec.structs.replace(network, port=_last_port(directory, network.host))
    backend = backends.choose(network.backend)
    return NetworkTransport(backend, directory.identity, identity.peer_id, hello, network)


def _last_port(directory: RunDirectory, host: str) -> int:
    """The port of this run's last start if it is free again, so that peers find the node; or 0."""
    try:
        found = re.search(r"/tcp/(\d+)/", (directory.path / "addresses.txt").read_text())
    except OSError:
        return 0
    port = int(found[1]) if found else 0
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(family, kind) as one:
            try:
                one.bind((host, port))
            except OSError:
                return 0
    return port


def _settings(flags: dict[str, dict[str, Any]], settings_file: Path | None) -> Settings:
    """Flags over the settings file: the user's or, without one, the one that the run was started
    with before."""
    from swarmnode.swarm.multiaddr import check_announced, split_peer

    named = config.load(settings_file, {"model": flags["model"]}).model.name
    settings = config.load(settings_file, flags, config.preset(named))
    by_flag = flags["network"]["peers"] is not None
    for peer in settings.network.peers:
        split_peer(peer, "--peer" if by_flag else f"{settings_file}: `network.peers`")
    if settings.network.upnp and settings.network.backend == "libp2p":
        raise ConfigError("--upnp needs --network hivemind: leave it out, or forward the port")
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
