"""Nodes that only help, only generate or only train, and nodes that find no bootstrap: the real
program in subprocesses over the real network."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from safetensors.torch import load_file

from protocol.names import peer_id
from swarmnode.run_directory import read_rows
from swarmnode.swarm.ports import choose_port

pytestmark = [pytest.mark.slow, pytest.mark.network]

T = TypeVar("T")
DEADLINE_S = 600.0  # for busy machines; a passing test does not wait for it
QUICK = (
    "--host", "127.0.0.1", "--questions", "2", "--threads", "1", "--evaluate-every", "0",
    "--metrics-port", "-1", "--min-round-s", "0.5",
)  # fmt: skip


def until(condition: Callable[[], T], what: str) -> T:
    deadline = time.monotonic() + DEADLINE_S
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} did not come within {DEADLINE_S} s"
        time.sleep(0.1)
    return value


@contextmanager
def running(*arguments: object, error: Path) -> Iterator[subprocess.Popen[str]]:
    """The program in the background, interrupted at the end; `error` gets what it logs."""
    command = [sys.executable, "-m", "swarmnode", *map(str, arguments)]
    with error.open("w") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(120)
            finally:
                process.kill()
                process.communicate()


@contextmanager
def bootstrap(folder: Path, *more: object) -> Iterator[dict[str, Any]]:
    """A running bootstrap of the demo's swarm, and the line that it began with."""
    arguments = ("--swarm", "demo", "--host", "127.0.0.1", "--run", folder, "--json", *more)
    with running("bootstrap", *arguments, error=folder.with_suffix(".log")) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, folder.with_suffix(".log").read_text()
        yield json.loads(line) | {"pid": process.pid}


def tcp(told: dict[str, Any]) -> str:
    return next(address for address in told["addresses"] if "/tcp/" in address)


def rows(run: Path) -> list[dict[str, Any]]:
    return read_rows(run / "rounds.jsonl")


@pytest.mark.parametrize("backend", ["hivemind", "libp2p"])
def test_bootstrap_keeps_its_address_serves_metrics_loads_no_torch_and_ends_cleanly(
    tmp_path: Path, backend: str
) -> None:
    port = choose_port("127.0.0.1")
    more = ("--port", port, "--metrics-port", 0, "--network", backend)
    with bootstrap(tmp_path / "b", *more) as first:
        assert tcp(first) == f"/ip4/127.0.0.1/tcp/{port}/p2p/{first['peer_id']}"
        assert first["addresses"][0] == tcp(first)
        # The address is the program's own.
        page = urllib.request.urlopen(first["metrics"], timeout=30).read().decode()  # noqa: S310
        maps = Path(f"/proc/{first['pid']}/maps")
        assert not maps.exists() or "torch" not in maps.read_text()
    assert 'swarmnode_node_info{swarm="demo"} 1.0' in page
    assert 'swarmnode_alone{because="waiting"}' in page
    assert first["peer_id"] not in page
    assert "stop signal=2" in (tmp_path / "b.log").read_text()
    with bootstrap(tmp_path / "b", *more) as second:
        assert tcp(second) == tcp(first)


def has_trained(run: Path, *totals: str) -> bool:
    written = rows(run)
    return bool(written) and all(written[-1]["totals"][name] > 0 for name in totals)


def test_a_node_that_only_generates_and_one_that_only_trains_meet_through_a_bootstrap(
    tmp_path: Path,
) -> None:
    generating, training = tmp_path / "generating", tmp_path / "training"
    port = choose_port("127.0.0.1")
    with bootstrap(tmp_path / "b", "--port", port, "--metrics-port", -1) as helper:
        common = ("--peer", tcp(helper), "--sharing", "sapo", *QUICK)
        with (
            running(
                "join", "--run", generating, "--role", "rollout", *common, error=tmp_path / "g.log"
            ),
            running(
                "join", "--run", training, "--role", "train", *common, error=tmp_path / "t.log"
            ),
        ):
            until(
                lambda: has_trained(training, "external_groups_trained", "own_groups_trained"),
                "training on its own answers and on what the other wrote",
            )
    trained, generated = rows(training)[-1], rows(generating)[-1]
    assert trained["totals"]["published"] == 0
    assert trained["policy_version"] > 0
    assert trained["totals"]["own_groups_trained"] > 0
    assert trained["totals"]["refused"] == {}
    assert generated["totals"]["published"] == 2 * generated["round"]
    assert generated["totals"]["fetched"] == generated["totals"]["tokens_trained_own"] == 0
    assert generated["totals"]["rounds_without_step"] == 0
    assert {row["policy_version"] for row in rows(generating)} == {0}
    assert "no signal" not in generated["waiting_for"]
    weights = [load_file(run / "model" / "model.safetensors") for run in (generating, training)]
    shipped = load_file(_shipped())
    assert all(torch.equal(shipped[name], tensor) for name, tensor in weights[0].items())
    assert not all(torch.equal(shipped[name], tensor) for name, tensor in weights[1].items())


def test_a_run_that_only_generated_goes_on_training(tmp_path: Path) -> None:
    run = tmp_path / "r"
    for role, rounds in (("rollout", 2), ("both", 6)):
        command = ("join", "--run", run, "--offline", "--role", role, "--rounds", rounds, *QUICK)
        many = (*command, "--questions", "8")  # of which some have a signal
        with running(*many, error=tmp_path / "log") as process:
            assert process.wait(DEADLINE_S) == 0, (tmp_path / "log").read_text()
    assert [row["round"] for row in rows(run)] == [1, 2, 3, 4, 5, 6]
    assert rows(run)[1]["policy_version"] == 0
    assert rows(run)[-1]["policy_version"] > 0
    assert rows(run)[-1]["alone"] == "offline"


def test_trains_from_the_start_with_every_bootstrap_dead_and_joins_when_one_returns(
    tmp_path: Path,
) -> None:
    port = choose_port("127.0.0.1")
    with bootstrap(tmp_path / "b", "--port", port, "--metrics-port", -1) as helper:
        where = tcp(helper)
    gone = f"/ip4/127.0.0.1/tcp/{choose_port('127.0.0.1')}/p2p/{peer_id(bytes([1] * 32))}"
    run = tmp_path / "r"
    flags = ("--run", run, "--peer", gone, "--peer", where, *QUICK)
    with running("join", *flags, error=tmp_path / "log"):
        until(lambda: len(rows(run)) >= 3, "rounds without a swarm")
        until(lambda: rows(run)[-1]["alone"] == "unreachable", "a word about it")
        assert "connection refused" in rows(run)[-1]["alone_because"]
        assert rows(run)[-1]["policy_version"] > 0
        with bootstrap(tmp_path / "b", "--port", port, "--metrics-port", -1):
            until(lambda: rows(run)[-1]["peers"] == 1, "the bootstrap's return")
            assert rows(run)[-1]["alone"] == rows(run)[-1]["alone_because"] == ""
    log = (tmp_path / "log").read_text()
    assert "training alone because=" in log
    assert "network state='connected to 1 peer'" in log


def test_a_private_swarm_is_joined_with_its_key_and_by_nobody_else(tmp_path: Path) -> None:
    key = tmp_path / "swarm.key"
    made = subprocess.run(
        [sys.executable, "-m", "swarmnode", "keys", "swarm", "--out", str(key)],
        capture_output=True, text=True, timeout=DEADLINE_S, check=True,
    )  # fmt: skip
    assert str(key) in made.stdout
    assert stat.S_IMODE(os.stat(key).st_mode) == 0o600
    port = choose_port("127.0.0.1")
    member, stranger = tmp_path / "member", tmp_path / "stranger"
    options = ("--port", port, "--metrics-port", -1, "--swarm-key", key)
    with bootstrap(tmp_path / "b", *options) as helper:
        assert key.read_text().split()[-1][:16] not in json.dumps(helper)
        with (
            running(
                "join", "--run", member, "--peer", tcp(helper), "--swarm-key", key, *QUICK,
                error=tmp_path / "m.log",
            ),
            running(
                "join", "--run", stranger, "--peer", tcp(helper), *QUICK, error=tmp_path / "s.log"
            ),
        ):  # fmt: skip
            until(lambda: rows(member) and rows(member)[-1]["peers"] == 1, "the member's entry")
            until(
                lambda: rows(stranger) and rows(stranger)[-1]["alone"] == "strangers",
                "the stranger's word about it",
            )
            assert rows(stranger)[-1]["peers"] == 0
    assert "--swarm-key" in (tmp_path / "s.log").read_text()
    # With the same key in the same folder it is the same swarm; without, another.
    again = subprocess.run(
        [sys.executable, "-m", "swarmnode", "join", "--run", str(stranger), "--swarm-key",
         str(key), *QUICK, "--rounds", "1"],
        capture_output=True, text=True, timeout=DEADLINE_S, check=False,
    )  # fmt: skip
    assert again.returncode == 2
    assert "began in swarm 'demo'" in again.stderr


def _shipped() -> Path:
    return next((Path(__file__).parents[1] / "swarmnode").rglob("model.safetensors"))
