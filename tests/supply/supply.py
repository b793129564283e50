"""What the project is built from: the lock with hashes, the check of what is installed, the SBOM.

    python tests/supply/supply.py lock REPORT.json   requirements.lock from pip's report (make lock)
    python tests/supply/supply.py check              installed = constraints = lock, files unchanged
    python tests/supply/supply.py sbom OUT.json      CycloneDX 1.6 of what a node installs

`requirements.lock` holds the SHA-256 of every archive that pip takes on Linux x86-64 with Python
3.11, for `pip install --require-hashes --no-deps`. torch is not in it: where it comes from decides
between CPU and CUDA, and every build has another hash. It is pinned by version.
"""

import argparse
import base64
import hashlib
import json
import re
import sys
import uuid
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
CONSTRAINTS, LOCK = ROOT / "constraints.txt", ROOT / "requirements.lock"
# Their archives differ by where they are taken from.
UNHASHED = frozenset({"torch"})
# What sees strangers' bytes or keys: their installed files are compared with what their archive
# said. The rest would take a minute.
EXPOSED = (
    *("msgspec", "pynacl", "zstandard", "libp2p", "hivemind", "protobuf", "anyio", "trio"),
    *("tokenizers", "safetensors", "cryptography", "multiaddr"),
)
_LINE = re.compile(r"(\S+)==(\S+) --hash=sha256:([0-9a-f]{64})")
_HEAD = (
    "# Archives that pip may take for constraints.txt, by their SHA-256: `make lock` writes this.\n"
    "# pip install --require-hashes --no-deps -r requirements.lock, then torch by its version.\n"
)


def constraints() -> dict[str, str]:
    """Version by name."""
    lines = CONSTRAINTS.read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def locked() -> dict[str, tuple[str, str]]:
    """(version, SHA-256) by name; `ValueError` for a line that is neither that nor a comment."""
    found = {}
    for line in LOCK.read_text().splitlines():
        if line and not line.startswith("#"):
            match = _LINE.fullmatch(line)
            if match is None:
                raise ValueError(f"{LOCK.name}: {line!r} is no line of a lock")
            found[canonicalize_name(match[1])] = (match[2], match[3])
    return found


def lock(report: Mapping[str, Any]) -> str:
    """The text of the lock from what `pip install --report` wrote."""
    lines = []
    for item in report["install"]:
        name = canonicalize_name(item["metadata"]["name"])
        archive = item["download_info"].get("archive_info")
        if archive is None or name in UNHASHED:  # the project itself is a folder
            continue
        lines.append(f"{name}=={item['metadata']['version']} --hash=sha256:"
                     f"{archive['hashes']['sha256']}")  # fmt: skip
    return _HEAD + "\n".join(sorted(lines)) + "\n"


def problems() -> list[str]:
    """What does not agree among constraints, lock and installation; empty if all does."""
    pinned, hashed = constraints(), locked()
    found = [
        f"{name} {version} is locked, {pinned.get(name, 'nothing')} pinned"
        for name, (version, _) in hashed.items()
        if pinned.get(name) != version
    ]
    needed = {name: one for name, one in installed(["swarmnode"]).items() if name != "swarmnode"}
    for name, distribution in needed.items():
        if pinned.get(name) != distribution.version.partition("+")[0]:
            found.append(f"{name} {distribution.version} is installed, {pinned.get(name)} pinned")
        if name not in hashed and name not in UNHASHED:
            found.append(f"{name} is installed and not in the lock")
    for name in EXPOSED:
        found += [f"{name}: {path} was changed" for path in changed(metadata.distribution(name))]
    return found


def changed(distribution: metadata.Distribution) -> list[str]:
    """Installed files that are not what the archive's RECORD says."""
    found = []
    for file in distribution.files or ():
        if file.hash is None or file.hash.mode != "sha256":
            continue
        path = Path(str(distribution.locate_file(file)))
        digest = hashlib.sha256(path.read_bytes()).digest() if path.is_file() else b""
        if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != file.hash.value:
            found.append(str(file))
    return found


def installed(roots: Iterable[str]) -> dict[str, metadata.Distribution]:
    """All that these need here, by name: what their metadata ask for, as far as it applies."""
    found: dict[str, metadata.Distribution] = {}
    waiting = [(name, frozenset[str]()) for name in roots]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        distribution = metadata.distribution(name)
        found[canonicalize_name(name)] = distribution
        waiting += [
            (canonicalize_name(one.name), frozenset(one.extras))
            for one in _needs(distribution, extras)
        ]
    return found


def _needs(distribution: metadata.Distribution, extras: frozenset[str]) -> list[Requirement]:
    needed = [Requirement(text) for text in distribution.requires or ()]
    return [
        one
        for one in needed
        if one.marker is None
        or any(one.marker.evaluate({"extra": extra}) for extra in (extras or {""}))
    ]


def sbom() -> dict[str, Any]:
    """The CycloneDX document of what is installed for a node; the same for the same packages."""
    hashed, found = locked(), installed(["swarmnode"])
    names = sorted(name for name in found if name != "swarmnode")
    seal = "\n".join(f"{name}=={found[name].version}" for name in names)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, seal)}",
        "version": 1,
        "metadata": {"component": _component("swarmnode", found["swarmnode"], {}, "application")},
        "components": [_component(name, found[name], hashed, "library") for name in names],
        "dependencies": [
            {
                "ref": _purl(name, found[name]),
                "dependsOn": sorted({
                    _purl(canonicalize_name(one.name), found[canonicalize_name(one.name)])
                    for one in _needs(found[name], frozenset())
                }),
            }
            for name in ("swarmnode", *names)
        ],
    }  # fmt: skip


def _component(
    name: str,
    distribution: metadata.Distribution,
    hashed: Mapping[str, tuple[str, str]],
    kind: str,
) -> dict[str, Any]:
    about = distribution.metadata
    component: dict[str, Any] = {
        "type": kind,
        "bom-ref": _purl(name, distribution),
        "name": name,
        "version": distribution.version,
        "purl": _purl(name, distribution),
    }
    if licence := about.get("License-Expression"):
        component["licenses"] = [{"expression": licence}]
    elif licence := next(iter((about.get("License") or "").splitlines()), "").strip():
        component["licenses"] = [{"license": {"name": licence}}]
    version, sha256 = hashed.get(name, ("", ""))
    if version == distribution.version:
        component["hashes"] = [{"alg": "SHA-256", "content": sha256}]
    return component


def _purl(name: str, distribution: metadata.Distribution) -> str:
    return f"pkg:pypi/{name}@{distribution.version.replace('+', '%2B')}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("lock", "check", "sbom"))
    parser.add_argument("file", type=Path, nargs="?")
    given = parser.parse_args()
    if given.what == "check":
        found = problems()
        print("\n".join(found) or "installed, pinned and locked agree")
        return int(bool(found))
    if given.file is None:
        parser.error("lock takes pip's report, sbom the file to write")
    if given.what == "lock":
        LOCK.write_text(lock(json.loads(given.file.read_text())))
    else:
        given.file.write_text(json.dumps(sbom(), indent=1, ensure_ascii=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
