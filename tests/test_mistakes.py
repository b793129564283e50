"""Mistakes of people who meet the program for the first time: each is one clear line that says what
was wrong and what to do, with the right exit code.

The command line runs in this process, so that all of them together cost little; what only a network
or a terminal shows is in test_cli.py.
"""

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarmnode import cli
from swarmnode.errors import ConfigError, SwarmNodeError

pytestmark = [pytest.mark.slow, pytest.mark.network]

QUICK = ("--model", "demo", "--offline", "--metrics-port", "-1", "--threads", "1")
TINY = ("--questions", "1", "--completions", "2", "--rounds", "1", "--evaluate-every", "0")
MANIFEST = """\
name = "tiny"
answer_format = "whole"

[[tasks]]
name = "lcm"
source = "reasoning_gym:lcm"
options = { min_numbers = 2, max_numbers = 2, min_value = 1, max_value = 9 }
"""


def join(*arguments: object) -> tuple[int, str]:
    """Exit code and last word of `swarmnode join …`, as `cli.main` would give them."""
    from typer.exceptions import TyperException

    words = ["join", *map(str, arguments)]
    try:
        return int(cli.app(words, standalone_mode=False) or 0), ""
    except ConfigError as error:
        return 2, str(error)
    except SwarmNodeError as error:
        return 1, str(error)
    except TyperException as error:
        return error.exit_code, error.format_message()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "swarm.toml").write_text(MANIFEST)
    return tmp_path


@pytest.fixture
def full_disk(here: Path) -> Iterator[Path]:
    disk = here / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a tmpfs (root)")
    with (disk / "filler").open("wb", buffering=0) as file:
        while True:
            try:
                if file.write(b"\0" * 4096) < 4096:
                    break
            except OSError:
                break
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_each_mistake_at_the_start_is_one_line_with_the_remedy(here: Path) -> None:
    (here / "bad.toml").write_text(MANIFEST.replace("options =", "optoins ="))
    (here / "file").write_text("")
    (here / "not.key").write_text("hello")
    (here / "not.key").chmod(0o600)
    (here / "settings.toml").write_text("[run]\nround = 3\n")
    for arguments, says in (
        (("--modle", "demo"), "No such option: --modle"),
        (("--model", "./absent", "--offline", "--run", "a"), "give the folder that holds config"),
        (("--swarm", "bad.toml", *QUICK, "--run", "b"), "known there: name, source, weight, opt"),
        (("--swarm", "swarm.tom", *QUICK, "--run", "c"), "neither built in (demo, reasoning) nor"),
        (("--peer", "1.2.3.4:4001"), "write it as /ip4/203.0.113.7/tcp/4001/p2p/"),
        (("--swarm-key", "not.key"), "it is no swarm key"),
        (("--swarm-key", "absent.key"), "make one with swarmnode keys swarm --out"),
        (("--run", "file/run", *QUICK), "choose another with --run, or make it writable"),
        (("--config", "settings.toml", *QUICK), "known there: rounds, until, seed"),
    ):
        code, told = join(*arguments)
        assert (code, told.count("\n")) == (2, 0), (arguments, told)
        assert says in told, (arguments, told)


def test_each_mistake_with_a_run_is_one_line_with_the_remedy(here: Path) -> None:
    quick = (*QUICK, "--swarm", "swarm.toml")
    assert join(*quick, *TINY, "--run", "run") == (0, "")
    rows = (here / "run" / "rounds.jsonl").read_bytes()

    wider(here / "wider")
    code, told = join(*quick, "--run", "run", "--model", "wider", "--rounds", "2")
    assert (code, told.count("\n")) == (2, 0)
    assert "give the --model that the run in run began with, or another --run" in told
    code, told = join(*quick, "--run", "run", "--swarm", "demo")
    assert code == 2
    assert "began in swarm 'tiny'" in told
    cli.app(["keys", "swarm", "--out", "ours.key"], standalone_mode=False)
    code, told = join(*quick, "--run", "run", "--swarm-key", "ours.key")
    assert code == 2
    assert "give the --swarm and --swarm-key it began with" in told

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, told = join(*quick, "--run", "other", "--metrics-port", port)
    assert code == 2
    assert f":{port}" in told
    assert "--metrics-port" in told
    (here / "run" / "identity.key").chmod(0o644)
    code, told = join(*quick, "--run", "run")
    assert code == 2
    assert "chmod 600 run/identity.key" in told
    assert (here / "run" / "rounds.jsonl").read_bytes() == rows


def test_a_full_disk_is_one_line(full_disk: Path) -> None:
    code, told = join(*QUICK, "--swarm", "swarm.toml", "--run", full_disk / "run")
    assert code in (1, 2), told
    assert "No space left on device" in told
    assert "\n" not in told


def wider(folder: Path) -> None:
    """A model of other shapes."""
    from importlib import resources

    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    shipped = str(resources.files("swarmnode") / "demo_model")
    config = AutoConfig.from_pretrained(shipped)
    config.intermediate_size *= 2
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(shipped).save_pretrained(folder)
