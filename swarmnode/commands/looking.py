"""Commands that look at a node or at a run, let a node rest, or take its model."""

from pathlib import Path
from typing import Annotated, Any

import typer

from swarmnode.commands.options import JsonOption, NetworkOption

app = typer.Typer()

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="Run directory of a node.")]


@app.command()
def pause(run: RunArgument) -> int:
    """Let a node rest after its round until `resume`; its memory and its peers are kept.

    A paused node that is started again stays paused. To free its memory, stop it (Ctrl-C).
    """
    from swarmnode import pausing

    return pausing.run(run, is_pause=True)


@app.command()
def resume(run: RunArgument) -> int:
    """Let a paused node go on."""
    from swarmnode import pausing

    return pausing.run(run, is_pause=False)


@app.command()
def status(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="Run directory, or the folder of a demo.")
    ],
    as_json: JsonOption = False,
) -> int:
    """How a node stands: learning, sharing, and what it waits for or why it is alone.

    Reads the run directory, so a run that is done or crashed is told, too.
    """
    from swarmnode import status as run_status

    return run_status.status(run, as_json=as_json)


@app.command()
def top(
    run: Annotated[
        list[Path], typer.Argument(metavar="RUN…", help="Run directories, or folders of demos.")
    ],
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 2.0,
) -> int:
    """Watch nodes: like `status`, again and again, until they end or Ctrl-C.

    Not on a terminal it prints a line per node and look.
    """
    from swarmnode import status as run_status

    return run_status.top(run, every)


@app.command()
def doctor(
    model: Annotated[
        str | None, typer.Option(help="Model that join would be given; default: demo.")
    ] = None,
    swarm: Annotated[
        str | None, typer.Option(help="Built-in swarm or manifest file, for --peer.")
    ] = None,
    run: Annotated[
        Path, typer.Option("--run", help="Run directory: its settings, key and disk are checked.")
    ] = Path("runs"),
    peer: Annotated[
        list[str] | None, typer.Option(help="Address of a node, which is dialled.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda …")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    network: NetworkOption = None,
    as_json: JsonOption = False,
) -> int:
    """Look at all that a node needs here: each line ok, warning or problem, with the remedy.

    Asks nobody but the model's hub and the peers that are given. Exit code 1 for a problem.
    """
    from swarmnode import doctor as checkup

    saved = run / "config.toml"
    flags: dict[str, dict[str, Any]] = {
        "": {"swarm": swarm},
        "model": {"name": model, "device": device},
        "network": {
            "host": host,
            "port": port,
            "peers": tuple(peer) if peer else None,
            "backend": network,
        },
    }
    settings = checkup.settings_of(model, saved if saved.exists() else None, flags)
    return checkup.run(settings, run, as_json=as_json)


@app.command()
def report(
    run: Annotated[
        list[Path], typer.Argument(metavar="RUN…", help="Run directories, or folders of demos.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for report.html and its PNGs.")] = Path(
        "report"
    ),
) -> int:
    """One HTML page about runs: learning, sharing, time, traffic, refusals, how they differ.

    The page holds its pictures and loads nothing; they are beside it as PNGs, too.
    """
    from swarmnode import pages

    return pages.run(run, out)


@app.command()
def export(
    run: RunArgument,
    out: Annotated[Path, typer.Option(help="New folder for model, tokenizer and card.")],
    round: Annotated[
        int | None, typer.Option(help="Of which kept checkpoint; default: the newest.")
    ] = None,
    push: Annotated[
        str | None, typer.Option(metavar="OWNER/NAME", help="Also upload it to the hub.")
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="Make a new hub repository public.")
    ] = False,
    as_json: JsonOption = False,
) -> int:
    """Write the model of a run as a folder for transformers, with a model card.

    Nothing is uploaded without --push; a repository that it makes is private without --public.
    """
    from swarmnode import exporting

    return exporting.run(run, out, round, push, public=public, as_json=as_json)


@app.command("eval")
def evaluate(
    target: Annotated[
        str, typer.Argument(help="Run directory, checkpoint, model folder, hub name, or demo.")
    ],
    swarm: Annotated[
        str | None, typer.Option(help="Whose tasks; default: the run's, or as for join.")
    ] = None,
    questions: Annotated[int, typer.Option(min=1, help="Held-out questions per task.")] = 64,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda …")] = "auto",
    as_json: JsonOption = False,
) -> int:
    """Held-out accuracy per task, beside what the best constant answer would score."""
    from swarmnode import evaluating

    return evaluating.run(target, swarm, questions, device, as_json=as_json)


@app.command()
def inspect(
    source: Annotated[
        str, typer.Argument(help="A frame: file or - (bytes or hexadecimal text), or the text.")
    ],
    swarm: Annotated[
        str | None, typer.Option(help="Swarm to check the signature against (name or file).")
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Show what the bytes of one frame say, and whether they would be refused."""
    from swarmnode import inspection

    return inspection.run(source, swarm, as_json=as_json)
