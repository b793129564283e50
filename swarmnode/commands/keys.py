"""`swarmnode keys`: the Ed25519 key that is a node, and the key of a private swarm."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from swarmnode.commands.options import JsonOption

app = typer.Typer(no_args_is_help=True, help="Show, make, export or import an identity.")

KeyOption = Annotated[
    Path, typer.Option("--key", help="Key file; a node's is identity.key in its run directory.")
]


@app.command("show")
def keys_show(key: KeyOption, as_json: JsonOption = False) -> None:
    """Show the peer id and public key. The secret is not shown."""
    from swarmnode import identity

    me = identity.load(key)
    shown = {"peer_id": me.peer_id, "public_key": me.public_key.hex(), "file": str(key)}
    _print(shown, as_json)


@app.command("new")
def keys_new(key: KeyOption, as_json: JsonOption = False) -> None:
    """Make a new identity. An existing file is never overwritten."""
    from swarmnode import identity

    me = identity.create(key)
    _print({"peer_id": me.peer_id, "public_key": me.public_key.hex(), "file": str(key)}, as_json)


@app.command("export")
def keys_export(
    key: KeyOption, out: Annotated[Path, typer.Option(help="New file, readable by you alone.")]
) -> None:
    """Copy an identity to another file, to keep it safe or to move it. Whoever has it is you."""
    from swarmnode import identity

    identity.export(key, out)
    _print({"exported": str(out)}, False)


@app.command("import")
def keys_import(
    key: KeyOption, source: Annotated[Path, typer.Option("--from", help="Exported file.")]
) -> None:
    """Take over an exported identity. An existing file is never overwritten."""
    from swarmnode import identity

    me = identity.import_key(source, key)
    _print({"peer_id": me.peer_id, "file": str(key)}, False)


@app.command("swarm")
def keys_swarm(
    out: Annotated[Path, typer.Option(help="New file, readable by you alone.")],
) -> None:
    """Make the key of a private swarm. Whoever has it is a member: give it to members only."""
    from protocol import private
    from swarmnode import identity

    identity.write_secret(out, private.new_key_file().encode())
    _print({"swarm key": str(out), "use it with": f"--swarm-key {out}"}, False)


def _print(values: dict[str, Any], as_json: bool) -> None:
    console = Console()
    if as_json:
        console.print_json(data=values)
        return
    for name, value in values.items():
        console.print(f"{name.replace('_', ' ')}: {value}", highlight=False, soft_wrap=True)
