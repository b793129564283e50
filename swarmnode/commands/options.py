"""Options that commands of several families share."""

from typing import Annotated

import typer

NetworkOption = Annotated[
    str | None,
    typer.Option(
        help="auto: hivemind where its daemon runs, else libp2p; or one of these two.",
        rich_help_panel="Network",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
