"""In which settings, tasks and versions runs differ: what a reader of two curves asks first."""

from collections.abc import Mapping, Sequence
from typing import Any

from swarmnode.pages.history import History

# Different on every node, and of no consequence for what it learns.
_OF_NO_CONSEQUENCE = frozenset(("network.port", "network.peers", "metrics.port"))


def differences(histories: Sequence[History]) -> dict[str, list[str]]:
    """What is not the same in all runs: dotted name → one text per run, "-" where a run lacks it.

    Of a single run, all its settings.
    """
    trees = [_flat({**h.settings, **_of(h)}) for h in histories]
    names = sorted({name for tree in trees for name in tree} - _OF_NO_CONSEQUENCE)
    found = {name: [tree.get(name, "-") for tree in trees] for name in names}
    if len(histories) == 1:
        return found
    return {name: texts for name, texts in found.items() if len(set(texts)) > 1}


def _of(history: History) -> dict[str, Any]:
    facts = history.facts
    kept = ("swarmnode", "python", "platform", "device", "threads", "packages")
    return {
        "environment": {key: facts[key] for key in kept if key in facts},
        "manifest": dict(history.manifest),
    }


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{name}.")
        elif isinstance(value, list) and value and all(isinstance(v, Mapping) for v in value):
            for number, each in enumerate(value):
                flat |= _flat(each, f"{name}.{each.get('name', number)}.")
        else:
            flat[name] = str(value)
    return flat
