"""The real program in a subprocess: what it prints, what it exits with, what it leaves behind."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from importlib.metadata import version
from pathlib import Path

import pytest

from swarmnode.identity import create
from swarmnode.run_directory import read_rows

pytestmark = pytest.mark.slow

QUICK = ("--questions", "2", "--threads", "1", "--evaluate-every", "0", "--metrics-port", "-1")
STRANGER = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"


def swarmnode(*arguments: object, **more: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "swarmnode", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, **more)  # type: ignore[call-overload,no-any-return]


def test_help_of_every_command_reads_and_loads_no_torch() -> None:
    commands = ("join", "bootstrap", "demo", "eval", "inspect", "keys", "doctor", "status", "top")
    for command in (*commands, "report", "export", "pause", "resume"):
        result = swarmnode(command, "--help")
        assert result.returncode == 0
        assert "Usage" in result.stdout
    code = "import sys, swarmnode.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_tells_its_version() -> None:
    result = swarmnode("--version")
    assert (result.returncode, result.stdout) == (0, f"swarmnode {version('swarmnode')}\n")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("join", "--rund", "3"), "No such option: --rund"),
        (("join", "--external", "-3"), "--external must be a whole number ≥ 0, not -3"),
        (("join", "--external", "some"), "valid integer"),
        (("join", "--sharing", "magic"), "--sharing must be one of "),
        (("join", "--swarm", "nowhere"), "built in"),
        (("join", "--model", "no/such/folder", "--offline"), "no/such/folder"),
        (("join", "--config", "absent.toml"), "absent.toml"),
        (("join", "--peer", "10.0.0.7:4001"), "--peer '10.0.0.7:4001' does not end in /p2p/"),
        (("join", "--host", "everywhere"), "everywhere"),
        (("join", "--announce", "1.2.3.4:4001"), "--announce '1.2.3.4:4001': an address starts"),
        (("join", "--announce", f"/ip4/1.2.3.4/tcp/1/p2p/{STRANGER}"), "told without /p2p/"),
        (("join", "--network", "libp2p", "--upnp"), "--upnp needs --network hivemind"),
        (("join", "--network", "pigeons"), "'pigeons'"),
        (("join", "--role", "boss"), "--role must be one of both, rollout, train"),
        (("join", "--mdns", "maybe"), "--mdns must be one of auto, off, on"),
        (("join", "--swarm-key", "absent.key"), "swarmnode keys swarm --out"),
        (("join", "--lan-only", "--peer", f"/ip4/1.1.1.1/tcp/1/p2p/{STRANGER}"), "--lan-only"),
        (("bootstrap", "--swarm", "nowhere", "--run", "b"), "built in"),
        (("bootstrap", "--network", "off"), "helps nobody"),
        (("bootstrap", "--port", "0"), "--port"),
        (("demo", "--network", "pigeons"), "'pigeons'"),
        (("join", "--max-upload", "fast"), "--max-upload must be like 500kB"),
        (("join", "--max-download", "5"), "--max-download must be like 500kB"),
        (("join", "--device", "cuda:9"), "cuda"),
        (("eval", "no/such/run"), "no/such/run"),
        (("inspect", "zz"), "hexadecimal"),
        (("keys", "show", "--key", "absent.key"), "absent.key"),
        (("demo", "--nodes", "1"), "nodes"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(
    tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    result = swarmnode(*arguments, cwd=tmp_path, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    assert result.returncode == 2, result.stderr
    last = result.stderr.strip().splitlines()[-1]
    assert says in last
    assert last.startswith("swarmnode: ")
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("join", "--peer", "10.0.0.7:4001"), "--peer '10.0.0.7:4001'"),
        (("join", "--offline", "--peer", f"/ip4/1.2.3.4/tcp/x/p2p/{STRANGER}"), "'x' is no port"),
        (("join", "--device", "gpu"), "--device must be auto, cpu, cuda or cuda:<number>"),
        (("eval", "demo", "--device", "gpu"), "--device must be auto, cpu, cuda or cuda:<number>"),
        (("join", "--config", "peer.toml"), "peer.toml: `network.peers` 'somebody'"),
        (("join", "--config", "device.toml"), "device.toml: `model.device` must be auto"),
    ],
)
def test_a_malformed_value_is_told_before_torch_is_imported_and_leaves_no_run(
    tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    stub = tmp_path / "stub"
    stub.mkdir()
    (stub / "torch.py").write_text("raise SystemExit('torch was imported')")
    (tmp_path / "peer.toml").write_text('[network]\npeers = ["somebody"]\n')
    (tmp_path / "device.toml").write_text('[model]\ndevice = "gpu"\n')
    before = {**os.environ, "PYTHONPATH": f"{stub}:{Path(__file__).parents[1]}"}
    result = swarmnode(*arguments, cwd=tmp_path, env=before)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1), result.stderr
    assert says in result.stderr
    assert not (tmp_path / "runs").exists()


def test_taken_port_says_which_and_what_to_do(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = swarmnode(
            "join", "--run", tmp_path / "r", "--host", "127.0.0.1", "--port", port, *QUICK
        )
    assert result.returncode == 2
    assert f"port {port}" in result.stderr
    assert "--port" in result.stderr


def test_taken_metrics_port_says_which_and_what_to_do(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = swarmnode(
            "join", "--run", tmp_path / "r", "--offline", *QUICK[:-1], port, "--rounds", 1
        )
    assert result.returncode == 2
    assert "--metrics-port" in result.stderr


def test_unwritable_run_directory_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    result = swarmnode("join", "--run", tmp_path / "file" / "run", "--offline", *QUICK)
    assert result.returncode == 2
    assert "--run" in result.stderr


@pytest.mark.network
def test_unreachable_peer_does_not_stop_training(tmp_path: Path) -> None:
    peer = f"/ip4/127.0.0.1/tcp/9/p2p/{STRANGER}"
    run = tmp_path / "r"
    result = swarmnode(
        "join", "--run", run, "--host", "127.0.0.1", "--peer", peer, "--rounds", 4,
        "--min-round-s", 1, *QUICK,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "127.0.0.1/tcp/9" in read_rows(run / "rounds.jsonl")[-1]["waiting_for"]


@pytest.mark.network
@pytest.mark.parametrize(
    ("flags", "says", "kept"),
    [
        (("--network", "libp2p"), "network backend=libp2p", 'backend = "libp2p"'),
        (("--network", "hivemind"), "network backend=hivemind", 'backend = "hivemind"'),
        ((), "network backend=", 'backend = "auto"'),
    ],
)
def test_network_flag_chooses_the_backend_and_the_log_says_which(
    tmp_path: Path, flags: tuple[str, ...], says: str, kept: str
) -> None:
    run = tmp_path / "r"
    result = swarmnode("join", "--run", run, "--host", "127.0.0.1", "--rounds", 1, *flags, *QUICK)
    assert result.returncode == 0, result.stderr
    assert says in result.stderr
    assert "/tcp/" in (run / "addresses.txt").read_text()
    assert kept in (run / "config.toml").read_text()


@pytest.mark.network
def test_peer_of_another_swarm_is_named_with_the_remedy(tmp_path: Path) -> None:
    manifest = tmp_path / "other.toml"
    manifest.write_text(
        'name = "other"\nanswer_format = "whole"\n'
        '[[tasks]]\nname = "lcm"\nsource = "reasoning_gym:lcm"\n'
    )
    port = _free_port()
    with _running(tmp_path / "a", "--host", "127.0.0.1", "--port", port) as first:
        peer = f"/ip4/127.0.0.1/tcp/{port}/p2p/{first}"
        result = swarmnode(
            "join", "--run", tmp_path / "b", "--host", "127.0.0.1", "--swarm", manifest,
            "--peer", peer, "--rounds", 8, "--min-round-s", 1, *QUICK,
        )  # fmt: skip
    assert result.returncode == 0, result.stderr
    notes = [line for line in result.stderr.splitlines() if "WARNING" in line and "swarm" in line]
    assert any("'demo'" in line and "--swarm" in line for line in notes), result.stderr


def test_ctrl_c_finishes_the_round_saves_and_resumes(tmp_path: Path) -> None:
    run = tmp_path / "r"
    command = [sys.executable, "-m", "swarmnode", "join", "--run", str(run), "--offline", *QUICK]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "round=2 " in line:
            break
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate()
    assert process.returncode == 130
    assert "saved=" in rest
    done = read_rows(run / "rounds.jsonl")[-1]["round"]
    again = swarmnode("join", "--run", run, "--offline", "--rounds", done + 2)
    assert again.returncode == 0, again.stderr
    assert f"resumed round={done} " in again.stderr
    assert [row["round"] for row in read_rows(run / "rounds.jsonl")] == list(range(1, done + 3))
    fresh = swarmnode("join", "--run", run, "--offline", "--no-resume")
    assert fresh.returncode == 2
    assert "--no-resume" in fresh.stderr


def test_sigkill_at_any_moment_loses_at_most_the_round_in_progress(tmp_path: Path) -> None:
    run = tmp_path / "r"
    arguments = ("join", "--run", str(run), "--offline", "--checkpoint-every", "1", *QUICK)
    for wanted in (1, 3, 6):
        process = subprocess.Popen(
            [sys.executable, "-m", "swarmnode", *arguments], stderr=subprocess.PIPE, text=True
        )
        assert process.stderr is not None
        for line in process.stderr:
            if f"round={wanted} " in line and "own_reward" in line:
                break
        process.kill()
        process.communicate()
        seen = read_rows(run / "rounds.jsonl")[-1]["round"]
        result = swarmnode(*arguments, "--rounds", seen + 1)
        assert result.returncode == 0, result.stderr
        resumed = int(result.stderr.split("resumed round=")[1].split()[0])
        assert seen - 1 <= resumed <= seen
        assert read_rows(run / "rounds.jsonl")[-1]["round"] == seen + 1


def test_offline_node_says_that_it_listens_nowhere(tmp_path: Path) -> None:
    run = tmp_path / "r"
    result = swarmnode("join", "--run", run, "--offline", "--rounds", 1, *QUICK)
    assert result.returncode == 0, result.stderr
    assert "offline: listening nowhere" in result.stderr
    assert "/memory" not in result.stderr
    assert "--peer" not in result.stderr
    assert (run / "addresses.txt").read_text() == ""


def test_two_nodes_in_one_folder_get_directories_of_their_own(tmp_path: Path) -> None:
    with _running(None, "--offline", cwd=tmp_path):
        result = swarmnode("join", "--offline", "--rounds", 1, *QUICK, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "runs/join-demo/rounds.jsonl").exists()
    assert len(read_rows(tmp_path / "runs/join-demo-2/rounds.jsonl")) == 1


def test_eval_reads_a_run_a_checkpoint_and_an_exported_model(tmp_path: Path) -> None:
    run = tmp_path / "r"
    assert swarmnode("join", "--run", run, "--offline", "--rounds", 2, *QUICK).returncode == 0
    found = []
    for target in (run, run / "checkpoints" / "round-00000002", run / "model"):
        result = swarmnode("eval", target, "--questions", 4, "--json")
        assert result.returncode == 0, result.stderr
        found.append(json.loads(result.stdout))
    assert found[0]["accuracy"].keys() == found[0]["constant_baseline"].keys()
    assert found[0]["accuracy"] == found[1]["accuracy"]
    assert found[0]["round"] == 2
    assert "best constant" in swarmnode("eval", run, "--questions", 2).stdout


def test_eval_of_a_demo_names_its_nodes(tmp_path: Path) -> None:
    for name in ("node-0", "node-1"):
        (tmp_path / "runs" / "four" / name / "checkpoints").mkdir(parents=True)
    (tmp_path / "runs" / "four" / "node-2").touch()  # no folder
    result = swarmnode("eval", "runs/four", cwd=tmp_path)
    assert result.returncode == 2, result.stderr
    assert "runs/four holds the nodes of a demo" in result.stderr
    assert "runs/four/node-0, runs/four/node-1\n" in result.stderr


def test_keys_are_made_shown_moved_and_never_overwritten(tmp_path: Path) -> None:
    key, copy, moved = tmp_path / "k" / "a.key", tmp_path / "b.key", tmp_path / "c.key"
    made = json.loads(swarmnode("keys", "new", "--key", key, "--json").stdout)
    assert key.stat().st_mode & 0o777 == 0o600
    assert swarmnode("keys", "new", "--key", key).returncode == 2
    assert swarmnode("keys", "export", "--key", key, "--out", copy).returncode == 0
    assert swarmnode("keys", "import", "--key", moved, "--from", copy).returncode == 0
    shown = json.loads(swarmnode("keys", "show", "--key", moved, "--json").stdout)
    assert shown["peer_id"] == made["peer_id"]
    secret = key.read_bytes()[4:36].hex()
    assert secret not in swarmnode("keys", "show", "--key", key).stdout
    key.chmod(0o644)
    refused = swarmnode("keys", "show", "--key", key)
    assert refused.returncode == 2
    assert "chmod" in refused.stderr


class _running:
    """A node in the background from its first round on; gives its peer id."""

    def __init__(self, run: Path | None, *arguments: object, cwd: Path | None = None) -> None:
        self._run, self._arguments, self._cwd = run, arguments, cwd

    def __enter__(self) -> str:
        where = ("--run", self._run) if self._run else ()
        peer_id = create(self._run / "identity.key").peer_id if self._run else ""
        command = [sys.executable, "-m", "swarmnode", "join", *where, *self._arguments, *QUICK]
        self._process = subprocess.Popen(
            [str(word) for word in command], cwd=self._cwd, stderr=subprocess.PIPE, text=True
        )
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if "round=1 " in line:
                break
        else:
            pytest.fail("the node ended before its first round")
        # From here on nobody waits for a line: keep the pipe from filling up.
        self._reader = threading.Thread(target=self._process.stderr.read)
        self._reader.start()
        return peer_id

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        self._reader.join()
        self._process.communicate()


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
