"""What `swarmnode report` does: one HTML page about one or several runs, with its pictures.

| file | what it is |
|---|---|
| `history.py` | a run's rows, in bins: a week's 100,000 rounds become 400 points |
| `figures.py` | the pictures, by matplotlib |
| `differences.py` | in which settings and versions runs differ |
| `html.py` | the page, everything inside it: nothing is loaded from anywhere |

Needs matplotlib (`pip install 'swarmnode[plots]'`).
"""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from swarmnode.errors import ConfigError, SwarmNodeError
from swarmnode.pages import figures, html
from swarmnode.pages.history import History, read
from swarmnode.run_view import nodes_of

PAGE = "report.html"
# More runs make no readable picture.
_MAX_RUNS = 64


def run(runs: Sequence[Path], out: Path) -> int:
    """Writes the page and its PNGs into `out`; exit code 0.

    The folder of a demo stands for its nodes. Raises `ConfigError` for what is no run or has no
    round, and without matplotlib; `SwarmNodeError` when the disk refuses.
    """
    paths = [path for one in runs for path in (nodes_of(one) or [one])]
    if len(paths) > _MAX_RUNS:
        raise ConfigError(f"{len(paths)} runs given, at most {_MAX_RUNS} fit one report")
    histories = [read(path, name) for path, name in zip(paths, names_of(paths), strict=True)]
    write(histories, out)
    Console().print(str(out / PAGE), highlight=False, soft_wrap=True, markup=False)
    return 0


def write(histories: Sequence[History], out: Path) -> None:
    """Draws and writes. Raises as `run`."""
    pictures = figures.draw(histories)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for picture in pictures:
            (out / f"{picture.name}.png").write_bytes(picture.png)
        (out / PAGE).write_text(html.page(histories, pictures), encoding="utf-8")
    except OSError as error:
        raise SwarmNodeError(f"cannot write the report to {out}: {error.strerror}") from error


def names_of(paths: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell them apart.

    >>> names_of([Path("a/node-0"), Path("b/node-0")]), names_of([Path("runs/x")])
    (['a/node-0', 'b/node-0'], ['x'])
    """
    full = [path.absolute().parts for path in paths]
    for length in range(1, max(map(len, full), default=1) + 1):
        names = ["/".join(parts[-length:]) for parts in full]
        if len(set(names)) == len(names):
            return names
    raise ConfigError("a run is given twice: give each once")
