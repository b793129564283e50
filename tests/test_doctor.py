"""What the doctor finds on this machine, and in situations that are made."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from swarmnode import config, doctor, identity, joining
from swarmnode.config import ModelSettings, NetworkSettings, Settings
from swarmnode.doctor import machine, model, network
from swarmnode.doctor.check import Level
from swarmnode.errors import ConfigError
from swarmnode.tasks import scorer

DEMO_PARAMETERS = 257_376  # as the README says


def settings(**flags: dict[str, object]) -> Settings:
    return config.load(None, flags, config.preset("demo"))


def test_the_demo_model_is_measured_by_its_files() -> None:
    size = model.size(ModelSettings())
    assert size.parameters == DEMO_PARAMETERS
    assert size.config["num_hidden_layers"] > 0


def test_a_model_that_does_not_fit_is_a_problem_and_a_tight_one_a_warning() -> None:
    """Against the memory that this machine has, whatever that is."""
    have, _ = model._available("cpu")
    layer = {"num_hidden_layers": 8, "hidden_size": 4096, "num_attention_heads": 32}
    for share, level in ((2.0, Level.PROBLEM), (0.9, Level.WARNING)):
        size = model.Size(int(share * (have - 10**9) / 16), is_bfloat16=False, config=layer)
        check = model.memory(settings(model={"device": "cpu"}), size)
        assert (check.level, bool(check.fix)) == (level, True)
    unknown = model.memory(settings(), model.Size(None, is_bfloat16=False))
    assert unknown.level is Level.WARNING


def model_folder(path: Path, parameters: int) -> str:
    """A folder that says how large its model is, without a weight in it."""
    header = json.dumps({"w": {"dtype": "F32", "shape": [parameters], "data_offsets": [0, 0]}})
    content = len(header).to_bytes(8, "little") + header.encode()
    (path / "model.safetensors").write_bytes(content)
    layers = {"num_hidden_layers": 8, "hidden_size": 4096, "num_attention_heads": 32}
    (path / "config.json").write_text(json.dumps(layers))
    return str(path)


def test_join_refuses_what_does_not_fit_and_warns_of_what_may_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    have, _ = model._available("cpu")

    def chosen(parameters: int) -> Settings:
        return settings(model={"name": model_folder(tmp_path, parameters), "device": "cpu"})

    with pytest.raises(ConfigError, match=r"not enough memory: .* needs .* GB, .* free in .*: "):
        joining._check_memory(chosen(int(2 * have / 16)))
    assert caplog.text == ""
    joining._check_memory(chosen(int(0.9 * (have - 10**9) / 16)))
    assert "it may be too little: try " in caplog.text
    caplog.clear()
    joining._check_memory(settings())  # the demo model
    assert caplog.text == ""


def test_a_copy_for_the_divergence_is_counted() -> None:
    size = model.Size(10**9, is_bfloat16=False)
    plain = model.memory(settings(model={"device": "cpu"}), size).found
    beside = model.memory(settings(model={"device": "cpu"}, train={"kl_weight": 0.1}), size).found
    assert "needs 16.61 GB and activations" in plain  # with 0.6 GB for the libraries
    assert "needs 20.61 GB and activations" in beside  # 4 bytes of 10⁹ parameters more


def test_a_folder_without_weights_and_a_hub_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert model.hub(ModelSettings()).level is Level.OK
    assert model.hub(ModelSettings(name=str(tmp_path))).level is Level.PROBLEM
    from huggingface_hub import constants

    with socket.socket() as closed:  # bound and not listening: nobody answers there
        closed.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{closed.getsockname()[1]}"
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        check = model.hub(ModelSettings(name="some/model"))
    assert (check.level, endpoint in check.found) == (Level.PROBLEM, True)


@pytest.mark.parametrize(
    ("status", "has_token", "fix"),
    [(401, False, "hf auth login"), (403, True, "ask for access"), (404, True, "spelling")],
)
def test_what_the_hub_refuses_has_a_remedy(status: int, has_token: bool, fix: str) -> None:
    check = model._refusal("some/model", status, has_token=has_token)
    assert (check.level, fix in check.fix) == (Level.PROBLEM, True)


@pytest.mark.parametrize(
    ("date", "level"), [("", Level.OK), ("Mon, 01 Jan 2024 00:00:00 GMT", Level.WARNING)]
)
def test_a_clock_that_is_not_the_hubs_is_told(date: str, level: Level) -> None:
    assert model._clock_of_hub("some/model", date).level is level


def test_a_clock_before_the_programs_own_time_is_a_problem() -> None:
    assert machine.clock(1_000_000_000.0).level is Level.PROBLEM


def test_a_key_that_others_can_read_is_a_problem(tmp_path: Path) -> None:
    assert "made at the first start" in machine.key(tmp_path).found
    identity.create(tmp_path / "identity.key")
    assert machine.key(tmp_path).level is Level.OK
    (tmp_path / "identity.key").chmod(0o644)
    check = machine.key(tmp_path)
    assert (check.level, "chmod 600" in check.found) == (Level.PROBLEM, True)


def test_a_disk_without_room_is_a_problem(tmp_path: Path) -> None:
    assert machine.disk(tmp_path / "not" / "yet", 1000).level is Level.OK
    assert machine.disk(tmp_path, 2**62).level is Level.PROBLEM


def test_disk_is_counted_for_the_kept_checkpoints_and_the_one_being_written() -> None:
    size = model.Size(10**6, is_bfloat16=False)
    two = settings(run={"keep_checkpoints": 2, "log_mb": 1})
    # (2 + 1) × 12 bytes and 4 for the export, of a million parameters each, and a MiB of log.
    assert model.disk_bytes(two, size) == 40 * 10**6 + 2**20


@pytest.mark.network
def test_a_taken_port_is_a_problem_and_a_free_one_is_not() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        used = NetworkSettings(host="127.0.0.1", port=taken.getsockname()[1])
        assert network.port(used).level is Level.PROBLEM
    assert network.port(used).level is Level.OK


@pytest.mark.parametrize(
    ("host", "level"),
    [("127.0.0.1", Level.WARNING), ("somewhere", Level.PROBLEM)],
)
def test_where_it_listens_decides_who_reaches_it(host: str, level: Level) -> None:
    assert network.reachability(NetworkSettings(host=host)).level is level


def test_a_kernel_without_a_layer_of_the_sandbox_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.sandbox().level is not Level.PROBLEM
    # A layer that no kernel has stands for one that this kernel lacks.
    monkeypatch.setattr(scorer, "LAYERS", (*scorer.LAYERS, "moat"))
    found = machine.sandbox()
    assert found.level is Level.WARNING
    assert "moat" in found.found


def test_too_many_threads_and_an_unknown_gpu_are_told() -> None:
    assert machine.cores(100_000).level is Level.WARNING
    assert machine.gpu("cuda:99").level is Level.PROBLEM
    assert machine.gpu("cpu").level is Level.OK


def test_exit_code_says_whether_there_is_a_problem(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quiet = settings(network={"backend": "off"}, model={"device": "cpu"})
    assert doctor.run(quiet, tmp_path, as_json=True) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ok"]
    names = [check["name"] for check in found["checks"]]
    assert names == [
        "python", "packages", "gpu", "cores", "open files", "clock", "key", "sandbox", "model",
        "memory", "disk", "network", "port", "reachable",
    ]  # fmt: skip
    identity.create(tmp_path / "identity.key")
    (tmp_path / "identity.key").chmod(0o644)
    assert doctor.run(quiet, tmp_path, as_json=False) == 1
    printed = capsys.readouterr().out
    assert "problem key: " in printed
    assert "problems: 1" in printed


@pytest.mark.slow
@pytest.mark.network
def test_dials_a_peer_that_is_not_there(tmp_path: Path) -> None:
    stranger = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"
    peer = f"/ip4/127.0.0.1/tcp/9/p2p/{stranger}"
    command = [
        sys.executable,
        "-m",
        "swarmnode",
        "doctor",
        "--run",
        str(tmp_path / "run"),
        "--json",
    ]
    command += ["--model", "demo", "--host", "127.0.0.1", "--peer", peer]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert result.returncode == 1, result.stderr
    last = json.loads(result.stdout)["checks"][-1]
    assert (last["name"], last["level"]) == ("peer", "problem")
    assert "tcp/9" in last["found"]
    assert not (tmp_path / "run").exists()  # the doctor changes nothing
