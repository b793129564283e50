"""What a person could have written instead of a field that a file of settings does not have."""

import re
from typing import Any

import msgspec
from msgspec import inspect


def known_fields(problem: str, root: type[msgspec.Struct]) -> str:
    """What msgspec could have read where it met an unknown field of a `root`; "" for other
    problems."""
    found = re.match(r"Object contains unknown field `[^`]*`(?: - at `\$(.*)`)?$", problem)
    if found is None:
        return ""
    kind: Any = inspect.type_info(root)
    for part in re.findall(r"[a-z0-9_]+|\[\.*\d*\]", found[1] or ""):
        is_item = part.startswith("[")
        kind = (
            kind.item_type
            if is_item
            else next(field.type for field in kind.fields if field.name == part)
        )
        while isinstance(kind, inspect.Metadata):
            kind = kind.type
    return ", ".join(field.name for field in kind.fields)
