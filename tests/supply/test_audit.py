"""What counts as audited: a package that was looked up, and no other."""

from typing import Any

from audit import FOUND, NOT_AUDITED, verdict

NAMES = frozenset({"one", "two"})
WEAKNESS = {"id": "PYSEC-1", "fix_versions": ["1.1"], "aliases": [], "description": ""}


def report(*packages: tuple[str, list[Any] | None]) -> dict[str, Any]:
    """What pip-audit says of packages: their weaknesses, or None where it skipped one."""
    return {
        "dependencies": [
            {"name": name, "skip_reason": f"Dependency not found on PyPI: {name}"}
            if weaknesses is None
            else {"name": name, "version": "1.0", "vulns": weaknesses}
            for name, weaknesses in packages
        ]
    }


def test_all_looked_up_and_none_weak() -> None:
    assert verdict(report(("one", []), ("two", [])), NAMES, {})[0] == 0


def test_a_weakness_is_found_unless_it_is_accepted() -> None:
    weak = report(("one", []), ("two", [WEAKNESS]))
    assert verdict(weak, NAMES, {}) == (FOUND, ["two 1.0: PYSEC-1, mended in 1.1"])
    assert verdict(weak, NAMES, {"PYSEC-1": "not called"})[0] == 0


def test_an_acceptance_of_nothing_is_found() -> None:
    none = report(("one", []), ("two", []))
    assert verdict(none, NAMES, {"PYSEC-1": "not called"})[0] == FOUND


def test_what_was_not_looked_up_was_not_audited() -> None:
    # pip-audit itself exits with 0 on each of these, and says that it found nothing.
    for told in (report(), report(("one", None), ("two", None)), report(("one", []))):
        assert verdict(told, NAMES, {})[0] == NOT_AUDITED
    part = report(("one", [WEAKNESS]), ("two", None))
    assert verdict(part, NAMES, {})[0] == FOUND
