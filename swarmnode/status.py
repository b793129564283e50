"""What `swarmnode status` and `top` do: how a run stands, in words, once or again and again.

Works on what the run directory holds, so a run that is done, that crashed, or that another user or
container runs is shown as well as one on this terminal.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from swarmnode.life import Phase
from swarmnode.run_view import RunView, alone_because, mean_accuracy, nodes_of, view
from swarmnode.run_words import figure, lines, verdict

_COLOURS = {
    Phase.RUNNING: "green",
    Phase.STARTING: "cyan",
    Phase.DONE: "cyan",
    Phase.PAUSED: "yellow",
    Phase.WAITING: "yellow",
    Phase.FAILED: "red",
    Phase.CRASHED: "red",
}


def status(run: Path, *, as_json: bool) -> int:
    """Prints how the node in `run`, or each node of the demo there, stands. Exit code 0.

    Raises `ConfigError` for a folder that is no run.
    """
    views = [view(path) for path in _runs([run])]
    console = Console()
    if as_json:
        found = [as_dict(one) for one in views]
        console.print_json(data=found[0] if len(found) == 1 else {"nodes": found})
    elif len(views) == 1:
        _print_plainly(console, views[0])
    else:
        console.print(_overview(views))
    return 0


def top(runs: Sequence[Path], every_s: float) -> int:
    """Shows the runs again every `every_s` seconds until none is alive or Ctrl-C; exit code 0.

    Not on a terminal it prints a line per run and look.
    """
    console = Console()
    paths = _runs(runs)
    try:
        if console.is_terminal:
            with Live(console=console, auto_refresh=False, screen=True) as live:
                while _is_any_alive(views := [view(path) for path in paths]):
                    live.update(_screen(views), refresh=True)
                    time.sleep(every_s)
            console.print(_screen(views))
        else:
            while True:
                views = [view(path) for path in paths]
                for one in views:
                    print(f"{one.path} {_line(one)}", flush=True)  # noqa: T201  a stream of lines
                if not _is_any_alive(views):
                    break
                time.sleep(every_s)
    except KeyboardInterrupt:
        pass
    return 0


def as_dict(one: RunView) -> dict[str, Any]:
    """Everything `status` says, with names and numbers for a program."""
    row = one.row
    evaluation = one.evaluation
    return {
        "run": str(one.path),
        "life": asdict(one.life) | {"phase": one.life.phase.value},
        "verdict": verdict(one),
        "is_late": one.is_late,
        "swarm": one.swarm,
        "model": one.setting("model", "name", ""),
        "device": one.device,
        "until": one.setting("run", "until", ""),
        "rounds": one.setting("run", "rounds", 0),
        "round": row["round"] if row else 0,
        "quiet_s": one.quiet_s,
        "round_s": one.round_s,
        "own_reward": one.recent("own_reward"),
        "external_reward": one.recent("external_reward"),
        "held_out": mean_accuracy(evaluation) if evaluation else None,
        "held_out_round": evaluation["round"] if evaluation else None,
        "constant_baseline": (
            mean_accuracy(evaluation, "constant_baseline") if evaluation else None
        ),
        "peers_give": row.get("sharing_gain") if row else None,
        "peers_give_error": row.get("sharing_gain_error") if row else None,
        "waiting_for": row["waiting_for"] if row else "",
        "alone_because": alone_because(row) if row else "",
        "models": one.models(),
        "phases": one.phases(),
        "per_second": one.rates(),
        "metrics": {"url": one.metrics, "answers": one.answers},
        "last_row": row,
    }


def _runs(runs: Sequence[Path]) -> list[Path]:
    """The runs, with the folder of a demo replaced by its nodes."""
    return [path for run in runs for path in (nodes_of(run) or [run])]


def _is_any_alive(views: Sequence[RunView]) -> bool:
    return any(one.life.phase.is_alive for one in views)


def _print_plainly(console: Console, one: RunView) -> None:
    for heading, text in lines(one):
        console.print(Text(f"{heading:<11}{_printable(text)}"), soft_wrap=True, highlight=False)


def _screen(views: Sequence[RunView]) -> RenderableType:
    if len(views) > 1:
        return _overview(views)
    (one,) = views
    table = Table(box=None, show_header=False, pad_edge=False, title=str(one.path))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for heading, text in lines(one):
        style = _COLOURS.get(one.life.phase, "") if heading == "state" else ""
        table.add_row(heading, Text(_printable(text), style=style))
    return Group(table, Text(_curve(one), style="dim"))


def _overview(views: Sequence[RunView]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("node", "state", "round", "own", "external", "held-out", "peers", "now"):
        table.add_column(heading, overflow="fold")
    for one in views:
        row = one.row
        table.add_row(
            one.path.name,
            Text(one.life.phase, style=_COLOURS.get(one.life.phase, "")),
            str(row["round"]) if row else "-",
            figure(one.recent("own_reward")),
            figure(one.recent("external_reward")),
            figure(mean_accuracy(one.evaluation) if one.evaluation else None),
            str(row["peers"]) if row else "-",
            Text(_printable(verdict(one))),
        )
    return table


def _line(one: RunView) -> str:
    """A run in one line of `key=value`, for a log."""
    row = one.row
    return _printable(
        f"state={one.life.phase} round={row['round'] if row else 0} "
        f"own_reward={figure(one.recent('own_reward'))} "
        f"external_reward={figure(one.recent('external_reward'))} "
        f"peers={row['peers'] if row else 0} now={verdict(one)!r}"
    )


def _curve(one: RunView) -> str:
    """The own rewards of the last rounds as a row of blocks."""
    blocks = " ▁▂▃▄▅▆▇█"
    rewards = [row["own_reward"] for row in one.rows]
    bars = "".join(blocks[round(min(1.0, max(0.0, reward)) * 8)] for reward in rewards)
    return f"own reward of the last {len(rewards)} rounds, 0 to 1: {bars}" if rewards else ""


def _printable(text: str) -> str:
    """Without what could steer a terminal: labels and addresses come from peers."""
    return "".join(c if c.isprintable() else "�" for c in text)
