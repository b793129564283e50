"""A run in words: the verdict a person needs first, and the lines below it."""

from pathlib import Path
from typing import Any

from swarmnode.life import Phase
from swarmnode.run_view import RunView, alone_because, mean_accuracy, peers_trained_from


def verdict(one: RunView) -> str:
    """What a person must know first: why the node does not run, does not learn, or is alone; or
    that all is well."""
    phase, why = one.life.phase, one.life.why
    saved = _newest_checkpoint(one.path)
    match phase:
        case Phase.CRASHED:
            return (
                "it was killed or its machine went down: it had said nothing of ending. The same "
                f"command resumes it {saved}"
            )
        case Phase.FAILED:
            return f"{why}. Once that is mended the same command resumes it {saved}"
        case Phase.STOPPED:
            return f"stopped {why}; the same command resumes it {saved}"
        case Phase.DONE:
            return "done: its rounds or its time are over"
        case Phase.PAUSED:
            return f"paused: swarmnode resume {one.path}"
        case Phase.WAITING:
            return f"a round failed and is tried again: {why}"
        case Phase.STARTING:
            return "starting: loads the model and opens the network"
        case Phase.UNKNOWN:
            return "no node runs here"
    return _verdict_of_running(one)


def lines(one: RunView) -> list[tuple[str, str]]:
    """What is shown of a run, as (heading, text)."""
    shown = [
        ("state", f"{one.life.phase}{_since(one)}"),
        ("now", verdict(one)),
        ("what", _what(one)),
    ]
    row = one.row
    if row is not None:
        shown += [
            ("round", _round(one, row)),
            ("own reward", _reward(one, "own_reward", "fresh answers of this node")),
            ("external", _reward(one, "external_reward", "peers' answers, scored here")),
            ("held-out", _held_out(one)),
            ("peers give", _gain(row)),
            ("trained on", _trained(row)),
            ("peers", _peers(one, row)),
            ("refused", _counts(row["totals"]["refused"])),
            ("missed", _counts(row["totals"]["missed"])),
            ("time", ", ".join(f"{name} {share:.0%}" for name, share in _shares(one))),
            ("traffic", _traffic(one, row)),
        ]
    if one.metrics and one.answers is not None:
        answer = "" if one.answers else " (does not answer)"
        shown.append(("metrics", f"{one.metrics}{answer}"))
    if one.life.phase in (Phase.CRASHED, Phase.FAILED, Phase.UNKNOWN) or one.is_late:
        shown.append(("last words", one.last_log_line or "none"))
    return shown


def duration(seconds: float) -> str:
    """A length of time for a person.

    >>> [duration(s) for s in (0.25, 7, 95, 7260, 200_000)]
    ['0.2 s', '7.0 s', '1 min 35 s', '2 h 1 min', '2 d 7 h']
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _verdict_of_running(one: RunView) -> str:
    row = one.row
    if one.is_late:
        quiet = one.quiet_s if one.quiet_s is not None else one.now - one.life.since
        return (
            f"no round for {duration(quiet)}, usual are {duration(one.round_s)}: it hangs, or the "
            "machine is far too busy; its last words are below"
        )
    if row is None:
        return "evaluates the model before its first round"
    if alone := alone_because(row) if one.setting("sharing", "rule", "") != "off" else "":
        return f"trains alone: {alone}"
    return f"waits for: {row['waiting_for']}" if row["waiting_for"] else "all is well"


def _since(one: RunView) -> str:
    ago = f" for {duration(one.now - one.life.since)}" if one.life.since else ""
    return f"{ago}, process {one.life.pid}" if one.life.phase.is_alive and one.life.pid else ago


def _what(one: RunView) -> str:
    model, rule = one.setting("model", "name", "?"), one.setting("sharing", "rule", "?")
    return (
        f"model {model} on {one.device or '?'}, swarm {one.swarm or '?'}, sharing {rule}, "
        f"{one.path}"
    )


def _round(one: RunView, row: dict[str, Any]) -> str:
    rounds, until = one.setting("run", "rounds", 0), one.setting("run", "until", "")
    of = f" of {rounds}" if rounds else ""
    ends = f", until {until}" if until else ""
    pace = f"; {one.rates()['rounds'] * 60:.3g} a minute" if one.rates() else ""
    return (
        f"{row['round']}{of}{ends}; the last ended {duration(one.quiet_s or 0.0)} ago and took "
        f"{duration(row['seconds']['total'])}{pace}"
    )


def _reward(one: RunView, key: str, what: str) -> str:
    return f"{figure(one.recent(key))} ({what}; mean of the last rounds)"


def _held_out(one: RunView) -> str:
    first, last = one.first_evaluation, one.evaluation
    if last is None:
        return "not evaluated yet"
    text = f"{mean_accuracy(last):.3f} at round {last['round']}"
    if first and first["round"] < last["round"]:
        text += f", {mean_accuracy(first):.3f} at round {first['round']}"
    return f"{text}; best constant answer {mean_accuracy(last, 'constant_baseline'):.3f}"


def _gain(row: dict[str, Any]) -> str:
    if row.get("sharing_gain") is None:
        return "not measured yet"
    return (
        f"{row['sharing_gain']:+.2f} ± {row['sharing_gain_error']:.2f} of its progress "
        "(0 nothing, 1 all, below 0 harm)"
    )


def _trained(row: dict[str, Any]) -> str:
    totals = row["totals"]
    text = (
        f"{totals['own_groups_trained']} own groups + {totals['external_groups_trained']} of "
        f"{_peers_trained_from(totals)} peers; pool {row['pool_groups']}"
    )
    if row["staleness_s"] is not None:
        text += f"; peers' were {duration(row['staleness_s'])} old"
    if row.get("staleness_rounds") is not None:
        text += f", {row['staleness_rounds']:.1f} steps"
    return text


def _peers_trained_from(totals: dict[str, Any]) -> str:
    return peers_trained_from(totals["trained_from"], totals.get("trained_from_others", 0))


def _peers(one: RunView, row: dict[str, Any]) -> str:
    models = ", ".join(f"{name} {count}" for name, count in one.models().items())
    return f"{row['peers']} connected; rollouts lately by model: {models or 'none'}"


def _shares(one: RunView) -> list[tuple[str, float]]:
    """The phases that took a percent or more, the longest first."""
    shares = sorted(one.phases().items(), key=lambda item: -item[1])
    return [(name, share) for name, share in shares if share >= 0.01]


def _counts(counts: dict[str, int]) -> str:
    by_kind = ", ".join(f"{kind} {count}" for kind, count in sorted(counts.items()) if count)
    return f"{sum(counts.values())}{f' ({by_kind})' if by_kind else ''}"


def _traffic(one: RunView, row: dict[str, Any]) -> str:
    totals, rates = row["totals"], one.rates()
    parts = []
    for name, key in (("in", "bytes_in"), ("out", "bytes_out")):
        pace = f" ({_bytes(rates[key])}/s)" if rates else ""
        parts.append(f"{name} {_bytes(totals[key])}{pace}")
    tokens = f"; {rates['tokens']:.0f} tokens/s generated" if rates else ""
    return ", ".join(parts) + tokens


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def figure(value: float | None) -> str:
    """A reward or an accuracy; "-" where there is none."""
    return "-" if value is None else f"{value:.3f}"


def _newest_checkpoint(run: Path) -> str:
    found = sorted(path.name for path in (run / "checkpoints").glob("round-*"))
    if not found:
        return "from its start: there is no checkpoint"
    return f"after round {int(found[-1].removeprefix('round-'))}"
