"""Known weaknesses of what is pinned: pip-audit's report, judged package by package.

    python tests/supply/audit.py                     fails unless every package was looked up
    python tests/supply/audit.py --where-reachable   passes, and says so, where no service answers

pip-audit alone says "No known vulnerabilities found" and exits 0 when the advisory service knows
none of the packages, as a mirror without advisories does. Here a package that was not looked up is
one that was not audited. Weaknesses that do not concern this project are listed in `accepted.json`,
by id and each with its reason; what is listed there and was not found fails, too, lest it grow old.
torch, which has no hash in the lock, is looked up by its version like all others.

Exit codes: 0 audited and nothing found, 1 weaknesses, 3 not audited.
"""

import argparse
import json
import subprocess
import sys
import venv
from collections.abc import Mapping
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from supply import ROOT, constraints

ACCEPTED = Path(__file__).parent / "accepted.json"
_TOOL = "pip-audit==2.10.1"  # in an environment of its own: it is no part of what is audited
_WHERE = ROOT / ".venv-audit"
_LIMIT_S = 600
FOUND, NOT_AUDITED = 1, 3


class NotAudited(Exception):
    """The tool or the service is not there; the message says which."""


def verdict(
    report: Mapping[str, Any], names: frozenset[str], accepted: Mapping[str, str]
) -> tuple[int, list[str]]:
    """(exit code, what is to be said) of pip-audit's report on these packages."""
    packages = {one["name"]: one for one in report["dependencies"]}
    missed = sorted(n for n in names if n not in packages or "skip_reason" in packages[n])
    if len(missed) == len(names):
        return NOT_AUDITED, ["not audited: the advisory service knows none of the packages"]
    found = {
        weakness["id"]: f"{name} {one['version']}: {weakness['id']}, mended in "
        f"{', '.join(weakness['fix_versions']) or 'no version'}"
        for name, one in packages.items()
        for weakness in one.get("vulns", ())
    }
    said = [line for id, line in found.items() if id not in accepted]
    said += [f"{id} is accepted and was not found" for id in accepted if id not in found]
    said += [f"not audited: {name}" for name in missed]
    if len(said) > len(missed):
        return FOUND, said
    if missed:
        return NOT_AUDITED, said
    return 0, [f"{len(names)} packages audited, {len(accepted)} weaknesses accepted"]


def report(versions: Mapping[str, str]) -> dict[str, Any]:
    """What pip-audit says of these versions of packages; raises `NotAudited`."""
    program = _WHERE / "bin" / "pip-audit"
    if not program.exists():
        venv.create(_WHERE, with_pip=True)
        pip = [_WHERE / "bin" / "python", "-m", "pip", "install", "--quiet", _TOOL]
        if subprocess.run(pip, capture_output=True, check=False).returncode != 0:
            raise NotAudited(f"{_TOOL} cannot be installed")
    asked = [program, "--disable-pip", "--no-deps", "--progress-spinner", "off", "-f", "json"]
    lines = "".join(f"{name}=={version}\n" for name, version in versions.items())
    try:
        with NamedTemporaryFile("w", suffix=".txt") as pinned:
            pinned.write(lines)
            pinned.flush()
            done = subprocess.run(
                [*asked, "-r", pinned.name],
                capture_output=True,
                text=True,
                check=False,
                timeout=_LIMIT_S,
            )
    except subprocess.TimeoutExpired as error:
        raise NotAudited(f"the advisory service took more than {_LIMIT_S} s") from error
    try:
        told = json.loads(done.stdout)
    except ValueError as error:
        raise NotAudited((done.stderr.strip() or "no report").splitlines()[-1]) from error
    assert isinstance(told, dict)
    return told


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--where-reachable", action="store_true", help="else say so and pass")
    given = parser.parse_args()
    try:
        versions = constraints()
        accepted = json.loads(ACCEPTED.read_text())
        code, said = verdict(report(versions), frozenset(versions), accepted)
    except NotAudited as error:
        code, said = NOT_AUDITED, [f"not audited: {error}"]
    print("\n".join(said))
    return 0 if code == NOT_AUDITED and given.where_reachable else code


if __name__ == "__main__":
    sys.exit(main())
