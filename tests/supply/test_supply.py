"""The lock, the check of what is installed, and the bill of materials."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import supply


def test_what_is_installed_is_what_is_pinned_and_locked() -> None:
    assert supply.problems() == []


def test_every_pinned_package_is_locked_by_its_hash() -> None:
    pinned, hashed = supply.constraints(), supply.locked()
    assert set(pinned) - set(hashed) <= supply.UNHASHED
    assert all(len(sha256) == 64 for _, sha256 in hashed.values())


def test_another_version_and_a_missing_hash_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = supply.LOCK.read_text()
    msgspec = re.search(r"^msgspec==.*\n", text, re.MULTILINE)
    assert msgspec is not None
    changed = tmp_path / "requirements.lock"
    monkeypatch.setattr(supply, "LOCK", changed)
    changed.write_text(text.replace("msgspec==", "msgspec==9."))
    assert any("msgspec" in one and "locked" in one for one in supply.problems())
    changed.write_text(text.replace(msgspec[0], ""))
    assert "msgspec is installed and not in the lock" in supply.problems()
    changed.write_text(text.replace(msgspec[0], "msgspec==0.22.0\n"))
    with pytest.raises(ValueError, match="no line of a lock"):
        supply.locked()


def test_a_file_that_is_not_the_archives_is_found(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text("print('hello')\n")
    right = SimpleNamespace(mode="sha256", value="not the hash of this file")
    file = SimpleNamespace(hash=right)
    fake = SimpleNamespace(files=[file], locate_file=lambda one: tmp_path / "module.py")
    assert len(supply.changed(fake)) == 1  # type: ignore[arg-type]


def test_a_lock_is_made_of_pips_report() -> None:
    def item(name: str, archive: dict[str, dict[str, str]] | None) -> dict[str, object]:
        info = {"archive_info": archive} if archive else {"dir_info": {}}
        return {"metadata": {"name": name, "version": "1.0"}, "download_info": info}

    hashes = {"hashes": {"sha256": "ab" * 32}}
    report = {"install": [item("B_b", hashes), item("torch", hashes), item("swarmnode", None)]}
    lines = [line for line in supply.lock(report).splitlines() if not line.startswith("#")]
    assert lines == [f"b-b==1.0 --hash=sha256:{'ab' * 32}"]


def test_the_bill_of_materials_names_all_that_a_node_needs() -> None:
    bill = supply.sbom()
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert bill == supply.sbom()
    components = {one["name"]: one for one in bill["components"]}
    assert {"torch", "msgspec", "pynacl", "zstandard", "libp2p", "reasoning-gym"} <= set(components)
    assert "pytest" not in components
    assert components["msgspec"]["hashes"][0]["content"] == supply.locked()["msgspec"][1]
    known = {one["bom-ref"] for one in bill["components"]} | {
        bill["metadata"]["component"]["bom-ref"]
    }
    assert {one["ref"] for one in bill["dependencies"]} == known
    assert all(set(one["dependsOn"]) <= known for one in bill["dependencies"])
