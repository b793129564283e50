"""What `swarmnode doctor` does: looks at all that a node needs before one is started.

| file | what it looks at |
|---|---|
| `check.py` | one finding: what, how bad, what was found, how to mend it |
| `machine.py` | Python, torch, GPU and driver, cores, open files, clock, disk, key, sandbox |
| `model.py` | whether the model can be had and fits into memory |
| `network.py` | the network library, ports, addresses and NAT, the peers that are given |

Nothing is changed and nothing is sent, but to the model's hub and to peers that are given.
"""

import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.text import Text

from swarmnode import config, life
from swarmnode.config import Settings
from swarmnode.doctor import machine, model, network
from swarmnode.doctor.check import Check, Level, ok

_COLOURS = {Level.OK: "green", Level.WARNING: "yellow", Level.PROBLEM: "red"}


def run(settings: Settings, directory: Path, *, as_json: bool) -> int:
    """Prints a line for each check of a node with these settings in `directory`.

    Exit code 1 if any is a problem, else 0.
    """
    console = Console()
    found: list[Check] = []
    for check in _checks(settings, directory):
        found.append(check)
        if not as_json:
            _print(console, check)
    problems = sum(check.level is Level.PROBLEM for check in found)
    warnings = sum(check.level is Level.WARNING for check in found)
    if as_json:
        console.print_json(data={"ok": not problems, "checks": [one.as_dict() for one in found]})
    elif problems or warnings:
        console.print(f"problems: {problems}, warnings: {warnings}", highlight=False)
    else:
        console.print("nothing stands in the way", highlight=False)
    return 1 if problems else 0


def settings_of(
    model_name: str | None, run_config: Path | None, flags: dict[str, dict[str, object]]
) -> Settings:
    """The settings that `join` would have. Raises `ConfigError` for what it would refuse."""
    named = config.load(run_config, {"model": {"name": model_name}}).model.name
    return config.load(run_config, flags, config.preset(named))


def _checks(settings: Settings, directory: Path) -> Iterator[Check]:
    """In the order in which a node needs the things."""
    yield machine.python()
    yield machine.packages()
    yield machine.gpu(settings.model.device)
    yield machine.cores(settings.run.threads)
    yield machine.open_files()
    yield machine.clock(time.time())
    yield machine.key(directory)
    yield machine.sandbox()
    hub = model.hub(settings.model)
    yield hub
    if hub.level is not Level.PROBLEM:
        size = model.size(settings.model)
        yield model.memory(settings, size)
        yield machine.disk(directory, model.disk_bytes(settings, size))
    yield network.library(settings.network.backend)
    yield _port(settings, directory)
    yield network.reachability(settings.network)
    for peer in settings.network.peers:
        yield network.dial(settings, peer)


def _port(settings: Settings, directory: Path) -> Check:
    if directory.is_dir() and life.look(directory).phase.is_alive:
        return ok("port", f"the node that runs in {directory} has it")
    return network.port(settings.network)


def _print(console: Console, check: Check) -> None:
    line = Text(f"{check.level:<8}", style=_COLOURS[check.level])
    line.append(f"{check.name}: {check.found}", style="default")
    console.print(line, soft_wrap=True, highlight=False)
    if check.fix:
        console.print(Text(f"{'':<8}→ {check.fix}"), soft_wrap=True, highlight=False)
