"""The node's key and the swarm's: in one file each, and in nothing that a run writes or says."""

import base64
import logging
import urllib.request
from pathlib import Path

import pytest

from protocol import private
from swarmnode import config, identity, manifest
from swarmnode.assembly import METRICS
from swarmnode.identity import Identity
from swarmnode.node import Node
from swarmnode.run_directory import RunDirectory
from swarmnode.swarm.memory import Hub, MemoryTransport


def spellings(secret: bytes) -> dict[str, bytes]:
    """How a secret would stand in a file or a line, each without what padding adds."""
    whole = len(secret) - len(secret) % 3
    return {
        "raw": secret,
        "hex": secret.hex().encode(),
        "capital hex": secret.hex().upper().encode(),
        "base64": base64.b64encode(secret[:whole]),
        "base64 for addresses": base64.urlsafe_b64encode(secret[:whole]),
        "escaped": repr(secret)[2:-1].encode(),
        "list of numbers": repr(list(secret))[1:-1].encode(),
    }


def found_in(data: bytes, secrets: dict[str, bytes]) -> list[str]:
    return [
        f"{name} in {spelling}"
        for name, secret in secrets.items()
        for spelling, text in spellings(secret).items()
        if text in data
    ]


@pytest.mark.slow
@pytest.mark.network
def test_no_secret_is_in_a_run_s_files_log_or_metrics(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key_file = tmp_path / "swarm.key"
    identity.write_secret(key_file, private.new_key_file().encode())
    flags = {
        "generate": {"questions": 2, "completions": 4},
        "network": {"swarm_key": str(key_file)},
        "run": {"threads": 1, "checkpoint_every": 1, "evaluate_questions": 2, "rounds": 2},
    }
    chosen = config.load(None, flags, config.preset("demo"))
    folder = tmp_path / "run"
    directory = RunDirectory(folder)
    directory.open()

    def transport(me: Identity, swarm_id: bytes, label: str) -> MemoryTransport:
        return MemoryTransport(Hub(), me.peer_id)

    one = Node(chosen, manifest.load("demo"), directory, transport)
    with caplog.at_level(logging.DEBUG):
        try:
            one.open()
            one.run()
            url = (folder / METRICS).read_text().strip()
            with urllib.request.urlopen(url) as answer:  # noqa: S310  our own loopback address
                metrics = answer.read()
            said = repr(one._parts.identity)
        finally:
            one.close()
            directory.close()
    me = identity.load(folder / "identity.key")
    secrets = {
        "node's key": me.seed,
        "swarm's key": private.read_key_file(key_file.read_text()),
    }
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert any("checkpoints" in path.parts for path in files)
    assert b"swarmnode_" in metrics
    for path in files:
        found = found_in(path.read_bytes(), secrets)
        assert found == (["node's key in raw"] if path.name == "identity.key" else []), path
    assert found_in(caplog.text.encode() + metrics + said.encode(), secrets) == []
    assert (folder / "identity.key").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("spelling", sorted(spellings(bytes(32))))
def test_a_secret_would_be_found_in_any_spelling(spelling: str) -> None:
    secret = bytes(range(200, 232))
    data = b"key=" + spellings(secret)[spelling] + b" and so on"
    assert any(spelling in one for one in found_in(data, {"key": secret}))
