"""The page of a report: one file that a browser shows offline, and that loads nothing.

All text is escaped: names of models, peers and runs are other people's.
"""

import base64
import time
from collections.abc import Sequence
from html import escape

from swarmnode.pages import figures
from swarmnode.pages.differences import differences
from swarmnode.pages.figures import Picture
from swarmnode.pages.history import Bin, History
from swarmnode.run_view import mean_accuracy, peers_trained_from

# The last share of a run that "now" in the table is a mean of.
_LATELY = 0.1

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff;
  max-width: 1400px; margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.6rem; margin: 0 0 .2rem; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .3rem; border-bottom: 1px solid #ddd; }
p { margin: .3rem 0 .6rem; color: #555; }
img { width: 100%; height: auto; display: block; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .55rem; border-bottom: 1px solid #eee; text-align: right;
  white-space: nowrap; }
th { color: #555; font-weight: 600; vertical-align: bottom; white-space: normal; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: #fff; }
td.text { text-align: left; max-width: 30rem; overflow: hidden; text-overflow: ellipsis; }
.dot { display: inline-block; width: .7rem; height: .7rem; border-radius: 50%;
  margin-right: .4rem; }
details summary { cursor: pointer; color: #555; }
"""
# Whatever ends up in the page, the browser fetches nothing and runs no program.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def page(histories: Sequence[History], pictures: Sequence[Picture]) -> str:
    """The whole page."""
    title = histories[0].name if len(histories) == 1 else f"{len(histories)} runs"
    written = time.strftime("%Y-%m-%d %H:%M %Z")
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>swarmnode: {escape(title)}</title><style>{_STYLE}</style></head><body>",
            f"<h1>{escape(title)}</h1>",
            f"<p>swarmnode report, written {escape(written)}. Own, external and held-out rewards "
            "are different things and never added up.</p>",
            *_summary(histories),
            *[part for picture in pictures for part in _section(picture)],
            *_tasks(histories),
            *_differences(histories),
            "</body></html>\n",
        ]
    )


def _summary(histories: Sequence[History]) -> list[str]:
    headings = [
        "run", "model", "sharing", "rounds", "hours", "own reward now", "external now",
        "held-out", "best constant", "peers give", "own + peers' groups", "peers", "tokens/s",
        "received", "sent", "refused", "missed",
    ]  # fmt: skip
    shades = figures.colours(len(histories))
    rows = [
        [_named(history.name, shade), *map(escape, _figures_of(history))]
        for history, shade in zip(histories, shades, strict=True)
    ]
    note = f"<p>“Now” is the mean of the last {_LATELY:.0%} of the rounds.</p>"
    return ["<h2>In figures</h2>", note, _table(headings, rows)]


def _figures_of(history: History) -> list[str]:
    last, lately = history.bins[-1], history.share(_LATELY)
    counts = last.counts
    hours = (last.time - history.began) / 3600
    evaluations = [dict(row) for row in history.evaluations]
    held_out, constant = "-", "-"
    if evaluations:
        first, newest = mean_accuracy(evaluations[0]), mean_accuracy(evaluations[-1])
        held_out = f"{first:.3f} → {newest:.3f}" if len(evaluations) > 1 else f"{newest:.3f}"
        constant = f"{mean_accuracy(evaluations[-1], 'constant_baseline'):.3f}"
    model = history.settings.get("model", {})
    gain = f"{history.gain[0]:+.2f} ± {history.gain[1]:.2f}" if history.gain else "-"
    tokens = counts["tokens_generated"] / max(1e-9, last.time - history.began)
    return [
        str(model.get("label") or model.get("name", "-")),
        str(history.settings.get("sharing", {}).get("rule", "-")),
        f"{history.rounds:,}", f"{hours:.2f}", _mean(lately, "own_reward"),
        _mean(lately, "external_reward"), held_out, constant, gain,
        f"{counts['own_groups_trained']:,} + {counts['external_groups_trained']:,}",
        peers_trained_from(history.trained_from, history.trained_from_others),
        f"{tokens:,.0f}" if hours else "-",
        _bytes(counts["bytes_in"]), _bytes(counts["bytes_out"]),
        f"{sum(history.refused.values()):,}", f"{sum(history.missed.values()):,}",
    ]  # fmt: skip


def _section(picture: Picture) -> list[str]:
    data = base64.b64encode(picture.png).decode()
    return [
        f"<h2>{escape(picture.title)}</h2>",
        f"<p>{escape(picture.text)}</p>",
        f'<img alt="{escape(picture.title)}" src="data:image/png;base64,{data}">',
    ]


def _tasks(histories: Sequence[History]) -> list[str]:
    """Held-out accuracy by task, before and after."""
    names = sorted({task for h in histories for row in h.evaluations for task in row["accuracy"]})
    if not names:
        return []
    rows = []
    for name in names:
        row = [escape(name)]
        for history in histories:
            values = [e["accuracy"][name] for e in history.evaluations if name in e["accuracy"]]
            constants = [e["constant_baseline"].get(name) for e in history.evaluations]
            row.append(f"{values[0]:.3f} → {values[-1]:.3f}" if values else "-")
        known = [value for value in constants if value is not None]
        row.append(f"{known[-1]:.3f}" if known else "-")
        rows.append(row)
    headings = ["task", *(history.name for history in histories), "best constant"]
    return ["<h2>Held-out accuracy by task</h2>", _table(headings, rows)]


def _differences(histories: Sequence[History]) -> list[str]:
    found = differences(histories)
    headings = ["setting", *(history.name for history in histories)]
    rows = [[escape(name), *map(escape, texts)] for name, texts in found.items()]
    if len(histories) == 1:
        table = _table(headings, rows, is_text=True)
        return [
            "<h2>Settings</h2>",
            f"<details><summary>all {len(rows)}</summary>{table}</details>",
        ]
    if not rows:
        return ["<h2>Differences</h2>", "<p>The runs have the same settings and versions.</p>"]
    return [
        "<h2>Differences</h2>",
        "<p>Settings, tasks and versions in which the runs differ.</p>",
        _table(headings, rows, is_text=True),
    ]


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, is_text: bool = False) -> str:
    """`rows` are escaped already."""
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    kind = ' class="text"' if is_text else ""
    body = "".join(f"<tr>{''.join(f'<td{kind}>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def _named(name: str, colour: str) -> str:
    return f'<span class="dot" style="background:{colour}"></span>{escape(name)}'


def _mean(bins: Sequence[Bin], key: str) -> str:
    """The mean over the rounds of the bins, `key` weighted by their number."""
    known = [(found.means[key], found.rounds) for found in bins if key in found.means]
    weight = sum(rounds for _, rounds in known)
    return f"{sum(mean * rounds for mean, rounds in known) / weight:.3f}" if weight else "-"


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
