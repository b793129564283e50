"""The demo, whole: four node processes over the real network, one of them killed on the way."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from swarmnode.run_directory import read_rows
from swarmnode.summary import check

pytestmark = [pytest.mark.slow, pytest.mark.network]

FIELDS = {
    "peer_id", "rounds", "own_reward_first", "own_reward_last", "heldout_before", "heldout_after",
    "constant_baseline", "published", "fetched", "accepted", "refused", "external_groups_trained",
    "peers_trained_from", "bytes_in", "bytes_out", "tokens_per_s", "wall_s",
}  # fmt: skip
ROUNDS = 100


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, int]:
    """The folder of a finished demo, what it printed, and the round node-2 was killed after."""
    out = tmp_path_factory.mktemp("demo") / "run"
    command = [sys.executable, "-m", "swarmnode", "demo", "--out", str(out)]
    process = subprocess.Popen(
        [*command, "--rounds", str(ROUNDS)], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    printed, killed_at = [], 0
    for line in process.stderr:
        printed.append(line)
        if not killed_at and "node-2 round=" in line:
            _node(process.pid, out / "node-2").send_signal(signal.SIGKILL)
            killed_at = read_rows(out / "node-2" / "rounds.jsonl")[-1]["round"]
    process.communicate()
    assert process.returncode == 0, "".join(printed)
    return out, "".join(printed), killed_at


def test_learns_and_shares_as_promised(finished: tuple[Path, str, int]) -> None:
    summary = json.loads((finished[0] / "summary.json").read_text())
    assert [set(node) for node in summary["nodes"]] == [FIELDS] * 4
    for finding in check(summary):
        assert finding.holds, finding
    for node in summary["nodes"]:
        assert node["rounds"] == ROUNDS
        assert len(node["peers_trained_from"]) == 3
        assert node["bytes_in"] > 0


def test_killed_node_resumed_at_its_last_round_and_the_others_went_on(
    finished: tuple[Path, str, int],
) -> None:
    out, printed, killed_at = finished
    assert killed_at > 0
    assert "node-2 was killed by SIGKILL" in printed
    assert printed.count("starting it again") == 1
    log = (out / "node-2" / "node.log").read_text()
    resumed = int(log.split("resumed round=")[1].split()[0])
    assert killed_at - 1 <= resumed <= killed_at + 1
    for number in range(4):
        rows = read_rows(out / f"node-{number}" / "rounds.jsonl")
        assert [row["round"] for row in rows] == list(range(1, ROUNDS + 1))
    for number in (0, 1, 3):
        log = (out / f"node-{number}" / "node.log").read_text()
        assert "resumed" not in log
        assert log.count(" start ") == 1


def test_leaves_a_picture_and_every_file_of_a_run(finished: tuple[Path, str, int]) -> None:
    out = finished[0]
    assert (out / "learning.png").read_bytes().startswith(b"\x89PNG")
    for name in ("config.toml", "manifest.toml", "environment.json", "rounds.jsonl", "model"):
        assert (out / "node-0" / name).exists()
    assert len(list((out / "node-0" / "checkpoints").glob("round-*"))) == 2


def test_leaves_no_process_behind(finished: tuple[Path, str, int]) -> None:
    for process in psutil.process_iter(["cmdline"]):
        assert str(finished[0]) not in " ".join(process.info["cmdline"] or [])


def test_two_nodes_learn_from_each_other_over_libp2p(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "swarmnode", "demo", "--out", str(tmp_path / "run")]
    command += ["--nodes", "2", "--rounds", "13", "--network", "libp2p"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert all(node["external_groups_trained"] > 0 for node in summary["nodes"])
    assert not any(any(node["refused"].values()) for node in summary["nodes"])
    log = (tmp_path / "run" / "node-1" / "node.log").read_text()
    assert "network backend=libp2p" in log


def _node(demo_pid: int, directory: Path) -> psutil.Process:
    for child in psutil.Process(demo_pid).children():
        if str(directory) in child.cmdline():
            return child
    raise AssertionError(f"no process runs in {directory}")
