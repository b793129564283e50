"""The command line. Heavy imports are inside the commands, so `--help` answers at once.

Exit codes: 0 done, 1 failed, 2 wrong use (one line says what, what is allowed, how to fix it),
130 interrupted.
"""

import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from typer.exceptions import TyperException

from swarmnode.errors import ConfigError, SwarmNodeError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Join a peer-to-peer swarm of language models that learn from each other's rollouts.",
)
keys_app = typer.Typer(no_args_is_help=True, help="Show, make, export or import an identity.")
app.add_typer(keys_app, name="keys")

NetworkOption = Annotated[
    str | None,
    typer.Option(
        help="auto: hivemind where its daemon runs, else libp2p; or one of these two.",
        rich_help_panel="Network",
    ),
]
LanOnlyOption = Annotated[
    bool | None,
    typer.Option(
        "--lan-only/--no-lan-only",
        help="Listen, dial and announce on private networks only.",
        rich_help_panel="Network",
    ),
]
MdnsOption = Annotated[
    str | None,
    typer.Option(
        help="Find peers on the local network: on, off, or auto (unless --host is loopback).",
        rich_help_panel="Network",
    ),
]
SwarmKeyOption = Annotated[
    Path | None,
    typer.Option(
        help="Key file of a private swarm (swarmnode keys swarm makes one).",
        rich_help_panel="Network",
    ),
]
EngineOption = Annotated[
    str | None,
    typer.Option(
        help="What generates: hf, vllm, or auto (vllm where it is installed and there is a GPU).",
        rich_help_panel="Learning",
    ),
]
RunOption = Annotated[
    Path | None, typer.Option("--run", help="Run directory.", rich_help_panel="Run")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def main() -> NoReturn:
    """The entry point of the `swarmnode` program."""
    try:
        result = app(standalone_mode=False)
    except ConfigError as error:
        _fail(str(error), 2)
    except SwarmNodeError as error:
        _fail(str(error), 1)
    except KeyboardInterrupt:
        _fail("stopped at once; the last checkpoint is kept", 130)
    except typer.Abort:
        _fail("aborted", 130)
    except TyperException as error:
        message = error.format_message()
        if not message:  # no command was given: the help has been printed
            sys.exit(error.exit_code)
        _fail(f"{message} (--help shows what is allowed)", error.exit_code)
    sys.exit(result if type(result) is int else 0)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"swarmnode {metadata.version('swarmnode')}")
        raise typer.Exit


@app.callback()
def program(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """What may stand before a command."""


@app.command()
def join(
    model: Annotated[
        str | None,
        typer.Option(help='Hub name, local folder, or "demo" for the small model shipped inside.'),
    ] = None,
    peer: Annotated[
        list[str] | None,
        typer.Option(help="Address of a node of the swarm, as it prints it; may be repeated."),
    ] = None,
    role: Annotated[
        str | None,
        typer.Option(
            help="both; rollout: generate and publish, never train; train: publish nothing."
        ),
    ] = None,
    swarm: Annotated[
        str | None,
        typer.Option(
            help="Built-in swarm or manifest file; default: demo for model demo, else reasoning."
        ),
    ] = None,
    run: RunOption = None,
    settings_file: Annotated[
        Path | None, typer.Option("--config", help="Settings file (TOML); flags win over it.")
    ] = None,
    resume: Annotated[
        bool, typer.Option(help="Continue the run in the run directory, if there is one.")
    ] = True,
    rounds: Annotated[
        int | None, typer.Option(help="Stop after this many rounds; 0: until stopped.")
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(help="Stop after so long or then: 36h, 7d, 18:00, 2026-12-01T18:00; never."),
    ] = None,
    sharing: Annotated[
        str | None,
        typer.Option(
            help="hybrid: learn from what peers got right; sapo: as published; off: train alone."
        ),
    ] = None,
    questions: Annotated[
        int | None,
        typer.Option(help="Own questions per round (I of SAPO).", rich_help_panel="Learning"),
    ] = None,
    external: Annotated[
        int | None,
        typer.Option(help="Peers' groups per round (J of SAPO).", rich_help_panel="Learning"),
    ] = None,
    completions: Annotated[
        int | None, typer.Option(help="Completions per question (G).", rich_help_panel="Learning")
    ] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(help="Longest completion.", rich_help_panel="Learning")
    ] = None,
    lr: Annotated[
        float | None, typer.Option(help="Learning rate.", rich_help_panel="Learning")
    ] = None,
    engine: EngineOption = None,
    engine_device: Annotated[
        str | None,
        typer.Option(
            help="vLLM's device; auto: another GPU than the trainer's, if any.",
            rich_help_panel="Learning",
        ),
    ] = None,
    overlap: Annotated[
        bool | None,
        typer.Option(
            "--overlap/--no-overlap",
            help="Generate for the next round while this one is trained on (vLLM only).",
            rich_help_panel="Learning",
        ),
    ] = None,
    revision: Annotated[
        str | None,
        typer.Option(help="Commit, tag or branch of a hub model.", rich_help_panel="Model"),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(help="Model name that peers see, ≤ 16 bytes.", rich_help_panel="Model"),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu, cuda, cuda:1 …", rich_help_panel="Model")
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on.", rich_help_panel="Network")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(help="Port to listen on; 0: any free one.", rich_help_panel="Network"),
    ] = None,
    network: NetworkOption = None,
    announce: Annotated[
        list[str] | None,
        typer.Option(
            help="Address that peers are told instead of this machine's own, as "
            "/ip4/203.0.113.7/tcp/4001, where a router or container host forwards the port; "
            "may be repeated.",
            rich_help_panel="Network",
        ),
    ] = None,
    upnp: Annotated[
        bool | None,
        typer.Option(
            "--upnp/--no-upnp",
            help="Ask the router to forward the port (hivemind only). Nothing is asked without it.",
            rich_help_panel="Network",
        ),
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Do not open a network.", rich_help_panel="Network")
    ] = False,
    lan_only: LanOnlyOption = None,
    mdns: MdnsOption = None,
    swarm_key: SwarmKeyOption = None,
    max_upload: Annotated[
        str | None,
        typer.Option(
            help="Bytes that rollouts may take: 500kB (a second), 2GB/h; default: no limit.",
            rich_help_panel="Network",
        ),
    ] = None,
    max_download: Annotated[
        str | None,
        typer.Option(help="The same for what is fetched.", rich_help_panel="Network"),
    ] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            help="Prometheus port on 127.0.0.1; 0: any free one, -1: none.", rich_help_panel="Run"
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="0: derived from the identity.", rich_help_panel="Run")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads; 0: all.", rich_help_panel="Run")
    ] = None,
    min_round_s: Annotated[
        float | None,
        typer.Option(help="Rest after a round that took less, in seconds.", rich_help_panel="Run"),
    ] = None,
    checkpoint_every: Annotated[
        int | None,
        typer.Option(help="Rounds; 0: as often as costs at most 5 %.", rich_help_panel="Run"),
    ] = None,
    tracker: Annotated[
        str | None,
        typer.Option(help="Also tell each round to tensorboard or wandb.", rich_help_panel="Run"),
    ] = None,
    evaluate_every: Annotated[
        int | None,
        typer.Option(help="Rounds; 0: only first and last.", rich_help_panel="Run"),
    ] = None,
) -> int:
    """Train a model in a swarm (or alone until peers are there).

    The node prints its addresses; give one to another machine's --peer. Ctrl-C once finishes the
    round and saves, twice stops at once. Started again with the same --run it resumes.
    """
    flags: dict[str, dict[str, Any]] = {
        "": {"swarm": swarm},
        "model": {"name": model, "revision": revision, "label": label, "device": device},
        "generate": {
            "questions": questions,
            "completions": completions,
            "max_new_tokens": max_new_tokens,
            "engine": engine,
            "engine_device": engine_device,
            "overlap": overlap,
        },
        "sharing": {"rule": sharing, "external": external, "role": role},
        "train": {"lr": lr},
        "network": {
            "host": host,
            "port": port,
            "peers": tuple(peer) if peer else None,
            "backend": "off" if offline else network,
            "lan_only": lan_only,
            "mdns": mdns,
            "swarm_key": _absolute(swarm_key),
            "announce": tuple(announce) if announce else None,
            "upnp": upnp,
            "max_upload": max_upload,
            "max_download": max_download,
        },
        "run": {
            "rounds": rounds,
            "until": until,
            "tracker": tracker,
            "seed": seed,
            "threads": threads,
            "min_round_s": min_round_s,
            "checkpoint_every": checkpoint_every,
            "evaluate_every": evaluate_every,
        },
        "metrics": {"port": metrics_port},
    }
    from swarmnode import joining

    return joining.join(flags, settings_file, run, resume=resume)


@app.command()
def bootstrap(
    swarm: Annotated[str, typer.Option(help="Built-in swarm or manifest file.")] = "reasoning",
    peer: Annotated[
        list[str] | None,
        typer.Option(help="Address of another node of the swarm; may be repeated."),
    ] = None,
    run: Annotated[
        Path, typer.Option(help="Where its key, its log and the peers it knew are kept.")
    ] = Path("runs/bootstrap"),
    host: Annotated[
        str | None, typer.Option(help="Address to listen on.", rich_help_panel="Network")
    ] = None,
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port, TCP and UDP.", rich_help_panel="Network")
    ] = 4001,
    network: NetworkOption = None,
    lan_only: LanOnlyOption = None,
    mdns: MdnsOption = None,
    swarm_key: SwarmKeyOption = None,
    metrics_port: Annotated[
        int | None, typer.Option(help="Prometheus port on 127.0.0.1; 0: any free one, -1: none.")
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Run a node that only helps others to meet: no model, little memory, an address that stays.

    It prints the addresses to hand out for --peer. Its key is in --run: keep it, and the addresses
    stay the same. With hivemind it also relays for nodes behind NAT. Ctrl-C stops it.
    """
    from swarmnode import bootstrapping

    flags: dict[str, dict[str, Any]] = {
        "network": {
            "host": host,
            "port": port,
            "peers": tuple(peer) if peer else None,
            "backend": network,
            "lan_only": lan_only,
            "mdns": mdns,
            "swarm_key": _absolute(swarm_key),
        },
        "metrics": {"port": metrics_port},
    }
    return bootstrapping.run(swarm, flags, run, as_json=as_json)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where the run is written.")] = Path("runs/demo"),
    nodes: Annotated[int, typer.Option(min=2, max=16, help="Node processes.")] = 4,
    rounds: Annotated[int, typer.Option(min=13, help="Rounds of each node.")] = 100,
    network: NetworkOption = None,
    engine: EngineOption = None,
) -> int:
    """Run a swarm of real nodes on this machine and watch it learn.

    Writes summary.json and learning.png into --out. A demo that was interrupted continues; a
    finished one is set aside first. A node that dies is started again and resumes.
    """
    from swarmnode import demo as demo_swarm

    return demo_swarm.run(out, nodes, rounds, network, engine)


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


KeyOption = Annotated[
    Path, typer.Option("--key", help="Key file; a node's is identity.key in its run directory.")
]


@keys_app.command("show")
def keys_show(key: KeyOption, as_json: JsonOption = False) -> None:
    """Show the peer id and public key. The secret is not shown."""
    from swarmnode import identity

    me = identity.load(key)
    shown = {"peer_id": me.peer_id, "public_key": me.public_key.hex(), "file": str(key)}
    _print(shown, as_json)


@keys_app.command("new")
def keys_new(key: KeyOption, as_json: JsonOption = False) -> None:
    """Make a new identity. An existing file is never overwritten."""
    from swarmnode import identity

    me = identity.create(key)
    _print({"peer_id": me.peer_id, "public_key": me.public_key.hex(), "file": str(key)}, as_json)


@keys_app.command("export")
def keys_export(
    key: KeyOption, out: Annotated[Path, typer.Option(help="New file, readable by you alone.")]
) -> None:
    """Copy an identity to another file, to keep it safe or to move it. Whoever has it is you."""
    from swarmnode import identity

    identity.export(key, out)
    _print({"exported": str(out)}, False)


@keys_app.command("import")
def keys_import(
    key: KeyOption, source: Annotated[Path, typer.Option("--from", help="Exported file.")]
) -> None:
    """Take over an exported identity. An existing file is never overwritten."""
    from swarmnode import identity

    me = identity.import_key(source, key)
    _print({"peer_id": me.peer_id, "file": str(key)}, False)


@keys_app.command("swarm")
def keys_swarm(
    out: Annotated[Path, typer.Option(help="New file, readable by you alone.")],
) -> None:
    """Make the key of a private swarm. Whoever has it is a member: give it to members only."""
    from protocol import private
    from swarmnode import identity

    identity.write_secret(out, private.new_key_file().encode())
    _print({"swarm key": str(out), "use it with": f"--swarm-key {out}"}, False)


def _absolute(path: Path | None) -> str | None:
    """As the settings keep it: a run may be resumed from another folder."""
    return None if path is None else str(path.absolute())


def _print(values: dict[str, Any], as_json: bool) -> None:
    console = Console()
    if as_json:
        console.print_json(data=values)
        return
    for name, value in values.items():
        console.print(f"{name.replace('_', ' ')}: {value}", highlight=False, soft_wrap=True)


def _fail(message: str, code: int) -> NoReturn:
    Console(stderr=True).print(
        f"swarmnode: {message}", highlight=False, soft_wrap=True, markup=False
    )
    sys.exit(code)
