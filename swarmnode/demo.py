"""What `swarmnode demo` does: real node processes on this machine, over the real network.

Each node is a `swarmnode join` of its own in `<out>/node-<n>`; this process only starts them,
watches what they write, starts again what dies, and in the end writes `summary.json` and
`learning.png`. A node that a signal killed resumes at its last round; the others never wait.
"""

import json
import logging
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from swarmnode import config, log
from swarmnode.errors import SwarmNodeError
from swarmnode.identity import load_or_create
from swarmnode.run_directory import read_rows
from swarmnode.summary import check, summarise
from swarmnode.swarm.lifetime import dies_with_parent
from swarmnode.terminal import above

logger = logging.getLogger(__name__)

_POLL_S = 0.5
_PLAIN_EVERY_S = 10.0
# Restarts of one node before the demo gives up on it: what dies this often is broken.
_MAX_RESTARTS = 20


@dataclass(slots=True)
class _NodeProcess:
    """One node of the demo and what it has written so far."""

    number: int
    directory: Path
    arguments: list[str]
    process: subprocess.Popen[bytes] | None = None
    restarts: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)
    done: bool = False

    @property
    def name(self) -> str:
        return f"node-{self.number}"

    def start(self) -> None:
        with (self.directory / "console.log").open("ab") as console:
            self.process = subprocess.Popen(  # noqa: S603  our own program and arguments
                [sys.executable, "-m", "swarmnode", *self.arguments],
                stdout=console,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C reaches the demo alone, which passes it on
                # If the demo is killed, its nodes finish their round, save and end.
                preexec_fn=dies_with_parent(signal.SIGTERM),
            )

    def refresh(self) -> None:
        self.rows = read_rows(self.directory / "rounds.jsonl")


def run(
    out: Path, nodes: int, rounds: int, network: str | None = None, engine: str | None = None
) -> int:
    """Runs the demo; returns the exit code: 1 if a node gave up or learned from no peer.

    `network` and `engine` are settings of every node, None for the default.
    Raises `SwarmNodeError` when the folder cannot be written, `ConfigError` for another backend.
    """
    log.setup()
    # A wrong name is told at once.
    config.load(None, {"network": {"backend": network}, "generate": {"engine": engine}})
    aside = _set_aside(out)
    if aside is not None:
        logger.info("the finished demo that was here is now in %s", aside)
    swarm = _prepare(out, nodes, rounds, network, engine)
    try:
        for node in swarm:
            node.start()
        interrupted = _watch(swarm, rounds)
    finally:
        _stop(swarm)
    return _conclude(out, swarm, interrupted)


def _prepare(
    out: Path, nodes: int, rounds: int, network: str | None, engine: str | None
) -> list[_NodeProcess]:
    """The nodes' folders, identities and command lines; the first one is known to the others."""
    ports = _free_ports(nodes)
    swarm = []
    addresses: list[str] = []
    for number in range(nodes):
        directory = out / f"node-{number}"
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SwarmNodeError(
                f"cannot write to {directory} ({error.strerror}): choose another folder with --out"
            ) from error
        me = load_or_create(directory / "identity.key")
        arguments = ["join", "--model", "demo", "--run", str(directory), "--rounds", str(rounds)]
        arguments += ["--host", "127.0.0.1", "--port", str(ports[number]), "--threads", "1"]
        arguments += ["--metrics-port", "0", "--checkpoint-every", "1", "--min-round-s", "0.5"]
        arguments += [word for address in addresses[:1] for word in ("--peer", address)]
        arguments += ["--network", network] if network else []
        arguments += ["--engine", engine] if engine else []
        addresses.append(f"/ip4/127.0.0.1/tcp/{ports[number]}/p2p/{me.peer_id}")
        swarm.append(_NodeProcess(number, directory, arguments))
    return swarm


def _watch(swarm: Sequence[_NodeProcess], rounds: int) -> bool:
    """Until every node is done: restarts what dies, shows progress. True if interrupted."""
    on_terminal = sys.stderr.isatty()
    shown_at = 0.0
    try:
        console = Console(stderr=True)
        with Live(console=console, auto_refresh=False) as live:
            log.setup(stream=above(console) if on_terminal else None)
            while not all(node.done for node in swarm):
                time.sleep(_POLL_S)
                for node in swarm:
                    _look_after(node)
                if on_terminal:
                    live.update(_table(swarm, rounds), refresh=True)
                elif time.monotonic() - shown_at > _PLAIN_EVERY_S:
                    shown_at = time.monotonic()
                    for node in swarm:
                        logger.info("%s %s", node.name, _line(node))
    except KeyboardInterrupt:
        logger.warning("stopping: every node finishes its round and saves")
        return True
    finally:
        log.setup()
    return False


def _look_after(node: _NodeProcess) -> None:
    node.refresh()
    assert node.process is not None
    code = node.process.poll()
    if code is None or node.done:
        return
    if code == 0:
        node.done = True
        return
    node.restarts += 1
    if code > 0 or node.restarts > _MAX_RESTARTS:
        raise SwarmNodeError(f"{node.name} gave up (exit code {code}): {_last_words(node)}")
    logger.warning(
        "%s was killed by %s after round %d; starting it again",
        node.name, signal.Signals(-code).name, _round(node),
    )  # fmt: skip
    node.start()


def _stop(swarm: Sequence[_NodeProcess]) -> None:
    """Asks every node to finish its round and save, then waits; a second Ctrl-C ends them."""
    running = [node.process for node in swarm if node.process and node.process.poll() is None]
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in running:
            if process.poll() is None:
                process.send_signal(number)
        try:
            for process in running:
                process.wait(timeout=60)
            return
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            continue


def _conclude(out: Path, swarm: Sequence[_NodeProcess], interrupted: bool) -> int:
    console = Console(stderr=True)
    if interrupted:
        console.print(f"interrupted; the same command continues it ({out})", soft_wrap=True)
        return 130
    summary = summarise([node.directory for node in swarm])
    text = json.dumps(summary, indent=2, allow_nan=False) + "\n"
    (out / "summary.json").write_text(text, encoding="utf-8")
    from swarmnode.plots import learning_curves

    picture = out / "learning.png"
    learning_curves([node.directory for node in swarm], picture)
    findings = check(summary)
    for finding in findings:
        mark = "[green]yes[/green]" if finding.holds else "[red]no [/red]"
        console.print(f"{mark} {finding.claim}: {finding.figures}", highlight=False, soft_wrap=True)
    console.print(f"{out / 'summary.json'}  {picture}", highlight=False, soft_wrap=True)
    shared = [node["fetched"] and node["external_groups_trained"] for node in summary["nodes"]]
    return 0 if any(shared) else 1


def _set_aside(out: Path) -> Path | None:
    """Moves a finished demo out of the way; nothing is deleted. Returns where it went."""
    if not (out / "summary.json").exists():
        return None
    for number in range(1, 10_000):
        aside = out.with_name(f"{out.name}-{number}")
        if not aside.exists():
            out.rename(aside)
            return aside
    raise SwarmNodeError(f"too many finished demos beside {out}: delete some")


def _table(swarm: Sequence[_NodeProcess], rounds: int) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("node", "round", "own reward", "external", "peers", "trained", "state"):
        table.add_column(heading)
    for node in swarm:
        if not node.rows:
            table.add_row(node.name, "starting")
            continue
        row = node.rows[-1]
        own = _recent(node, "own_reward")
        table.add_row(
            node.name, f"{row['round']}/{rounds}", f"{own:.3f}",
            f"{_recent(node, 'external_reward'):.3f}", str(row["peers"]),
            f"{row['totals']['own_groups_trained']}+{row['totals']['external_groups_trained']}",
            "done" if node.done else row["waiting_for"],
        )  # fmt: skip
    return table


def _line(node: _NodeProcess) -> str:
    if not node.rows:
        return "starting"
    row = node.rows[-1]
    return (
        f"round={row['round']} own_reward={_recent(node, 'own_reward'):.3f} "
        f"external_reward={_recent(node, 'external_reward'):.3f} peers={row['peers']} "
        f"external_groups_trained={row['totals']['external_groups_trained']}"
    )


def _recent(node: _NodeProcess, key: str) -> float:
    """The mean of the last ten rounds: one round alone is noise."""
    values = [row[key] for row in node.rows[-10:] if row[key] is not None]
    return sum(values) / len(values) if values else 0.0


def _round(node: _NodeProcess) -> int:
    return node.rows[-1]["round"] if node.rows else 0


def _last_words(node: _NodeProcess) -> str:
    lines = (node.directory / "console.log").read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
