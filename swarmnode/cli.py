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

from swarmnode.commands import keys, looking
from swarmnode.commands.options import JsonOption, NetworkOption
from swarmnode.errors import ConfigError, SwarmNodeError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Join a peer-to-peer swarm of language models that learn from each other's rollouts.",
)

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
    lora_rank: Annotated[
        int | None,
        typer.Option(
            help="Train adapters of this rank instead of the weights; 0: the weights.",
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
        "model": {
            "name": model,
            "revision": revision,
            "label": label,
            "device": device,
            "lora_rank": lora_rank,
        },
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


app.add_typer(looking.app)
app.add_typer(keys.app, name="keys")


def _absolute(path: Path | None) -> str | None:
    """As the settings keep it: a run may be resumed from another folder."""
    return None if path is None else str(path.absolute())


def _fail(message: str, code: int) -> NoReturn:
    Console(stderr=True).print(
        f"swarmnode: {message}", highlight=False, soft_wrap=True, markup=False
    )
    sys.exit(code)
