"""A real node as an operator meets it: watched, paused, killed, on a full disk, reported, exported.

Everything goes through the command line; nodes train the demo model, offline.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_hub import TOKEN, fake_hub

from swarmnode import life
from swarmnode.life import Phase
from swarmnode.run_directory import read_rows

pytestmark = pytest.mark.slow

QUICK = ("--questions", "2", "--threads", "1", "--evaluate-every", "0", "--offline")
GIVE_UP_S = 1800.0  # a busy machine takes minutes to import torch


def swarmnode(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "swarmnode", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=GIVE_UP_S, check=False,
        env={**os.environ, **environment},
    )  # fmt: skip


def start(run: Path, *arguments: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "swarmnode", "join", "--run", run, *QUICK, *arguments]
    # On another disk than the run, which a test fills.
    return subprocess.Popen(
        [str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def until(holds: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + GIVE_UP_S
    while not holds():
        assert time.monotonic() < deadline, f"after {GIVE_UP_S:.0f} s: {what}"
        time.sleep(0.2)


def rounds(run: Path) -> list[int]:
    return [row["round"] for row in read_rows(run / "rounds.jsonl")]


def status(run: Path) -> dict[str, Any]:
    result = swarmnode("status", run, "--json")
    assert result.returncode == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three rounds that is over."""
    run = tmp_path_factory.mktemp("done") / "run"
    result = swarmnode("join", "--run", run, *QUICK, "--rounds", 3, "--until", "2h")
    assert result.returncode == 0, result.stderr
    return run


def test_status_of_a_run_that_is_done(done: Path) -> None:
    found = status(done)
    assert found["life"]["phase"] == "done"
    assert (found["round"], found["rounds"], found["model"], found["swarm"]) == (
        3, 3, "demo", "demo",
    )  # fmt: skip
    rows = read_rows(done / "rounds.jsonl")
    assert found["own_reward"] == pytest.approx(sum(row["own_reward"] for row in rows) / 3)
    assert 0 <= found["held_out"] <= 1
    assert sum(found["phases"].values()) == pytest.approx(1)
    text = swarmnode("status", done).stdout
    for heading in ("state", "now", "round", "own reward", "external", "held-out", "peers give"):
        assert re.search(rf"^{heading} ", text, re.MULTILINE), heading
    assert "done" in text.splitlines()[0]


def test_top_off_a_terminal_prints_a_line_and_ends_with_the_run(done: Path) -> None:
    result = swarmnode("top", done)
    assert result.returncode == 0
    assert re.fullmatch(rf"{re.escape(str(done))} state=done round=3 .*\n", result.stdout)


def test_report_holds_its_pictures_and_loads_nothing(done: Path, tmp_path: Path) -> None:
    result = swarmnode("report", done, "--out", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    page = (tmp_path / "out" / "report.html").read_text()
    pictures = sorted(path.name for path in (tmp_path / "out").glob("*.png"))
    assert pictures == [
        "learning.png", "network.png", "sharing.png", "throughput.png", "training.png",
    ]  # fmt: skip
    assert page.count("data:image/png;base64,") == len(pictures)
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!data:)""", page)
    assert "@import" not in page
    assert "<script" not in page


def test_export_is_the_newest_checkpoint_as_transformers_loads_it(
    done: Path, tmp_path: Path
) -> None:
    """Also pushed, to a hub on loopback: what is there is the folder, in a private repository."""
    out = tmp_path / "model"
    with fake_hub() as hub:
        login = {
            "HF_ENDPOINT": hub.address, "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0",
        }  # fmt: skip
        result = swarmnode("export", done, "--out", out, "--push", "me/it", **login)
        assert result.returncode == 0, result.stderr
        assert f"pushed to {hub.address}/me/it" in result.stdout
        (created,) = hub.created
        assert created == {"organization": "me", "name": "it", "visibility": "private"}
        assert hub.commits == 1
        assert hub.files == {path.name: path.read_bytes() for path in out.iterdir()}
    code = (
        "import sys, json\n"
        "from safetensors.torch import load_file\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "model = AutoModelForCausalLM.from_pretrained(sys.argv[1])\n"
        "tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])\n"
        "saved = load_file(sys.argv[2])\n"
        "own = model.state_dict()\n"
        "equal = all(bool((own[name] == tensor).all()) for name, tensor in saved.items())\n"
        "print(json.dumps([len(saved) > 0, equal, len(tokenizer('1 + 1').input_ids) > 0]))\n"
    )
    weights = done / "checkpoints" / "round-00000003" / "model.safetensors"
    command = [sys.executable, "-c", code, str(out), str(weights)]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(loaded.stdout.splitlines()[-1]) == [True, True, True]
    card = (out / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\n")
    assert "after 3 rounds" in card
    assert "in the swarm `demo`" in card
    again = swarmnode("export", done, "--out", out)
    assert (again.returncode, "nothing is overwritten" in again.stderr) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("status", "absent"), "absent is no folder"),
        (("top", "absent"), "absent is no folder"),
        (("pause", "absent"), "absent is no run directory"),
        (("resume", "absent"), "absent is no run directory"),
        (("report", "absent", "--out", "out"), "absent is no folder"),
        (("export", "absent", "--out", "out"), "absent is no folder"),
        (("export", "DONE", "--out", "out", "--round", "77"), "no checkpoint of round 77"),
        (("export", "DONE", "--out", "out", "--push", "name"), "give owner/name"),
        (("export", "DONE", "--out", "out", "--push", "me/it"), "hf auth login"),
        (("report", "DONE", "DONE", "--out", "out"), "given twice"),
        (("join", "--offline", "--until", "soon"), "--until 'soon' is neither a duration"),
        (("join", "--offline", "--until", "2020-01-01"), "was before now"),
        (("join", "--offline", "--tracker", "paper"), "--tracker must be one of none, "),
    ],
)
def test_wrong_use_is_one_line(
    done: Path, tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    words = [str(done) if word == "DONE" else word for word in arguments]
    command = [sys.executable, "-m", "swarmnode", *words]
    clean = {"HF_HOME": str(tmp_path), "HF_TOKEN": ""}
    result = subprocess.run(
        command, capture_output=True, text=True, timeout=GIVE_UP_S, check=False, cwd=tmp_path,
        env={**os.environ, **clean},
    )  # fmt: skip
    assert result.returncode == 2, result.stderr
    assert says in result.stderr.strip().splitlines()[-1]
    assert "Traceback" not in result.stderr


def test_pauses_goes_on_and_is_seen_to_have_been_killed(tmp_path: Path) -> None:
    run = tmp_path / "run"
    node = start(run, "--min-round-s", "0.2", "--checkpoint-every", "1")
    try:
        until(lambda: rounds(run), "the node does no round")
        assert status(run)["life"]["phase"] == "running"
        assert swarmnode("pause", run).returncode == 0
        until(lambda: life.look(run).phase is Phase.PAUSED, "the node does not pause")
        before = rounds(run)
        found = status(run)  # some seconds pass: a node that goes on would do rounds
        assert "swarmnode resume" in found["verdict"]
        assert rounds(run) == before
        assert swarmnode("resume", run).returncode == 0
        until(lambda: len(rounds(run)) > len(before), "the node does not go on")
        node.send_signal(signal.SIGKILL)
        node.wait()
        found = status(run)
        assert found["life"]["phase"] == "crashed"
        assert "resumes it after round" in found["verdict"]
        assert "last words" in swarmnode("status", run).stdout
    finally:
        node.kill()
        node.wait()


def test_a_node_whose_time_is_over_evaluates_saves_and_ends(tmp_path: Path) -> None:
    run = tmp_path / "run"
    result = swarmnode("join", "--run", run, *QUICK, "--until", "1s")
    assert result.returncode == 0, result.stderr
    assert life.look(run).phase is Phase.DONE
    assert (run / "model" / "config.json").exists()
    assert len(rounds(run)) <= 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a tmpfs (root)")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill(disk: Path) -> Path:
    """Takes every free byte of the file system."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (2**16, 2**12, 1):
            try:
                while file.write(b"\0" * size) == size:
                    pass
            except OSError:
                continue
    return filler


def test_a_full_disk_is_told_waited_for_and_costs_no_checkpoint(small_disk: Path) -> None:
    """Full for a while: the node waits and goes on. Full for long: it ends with a word, its newest
    checkpoint is whole, and the same command resumes there."""
    run = small_disk / "run"
    more = ("--checkpoint-every", "1", "--min-round-s", "0.2", "--metrics-port", "-1")
    node = start(run, *more)
    try:
        until(lambda: len(rounds(run)) >= 2, "the node does no round")
        filler = fill(small_disk)
        until(lambda: life.look(run).phase is Phase.WAITING, "a full disk is not noticed")
        assert "No space left" in life.look(run).why
        filler.unlink()
        at = rounds(run)[-1]
        until(lambda: rounds(run)[-1] > at, "the node does not go on when there is room again")
        until(lambda: life.look(run).phase is Phase.RUNNING, "it does not say that it goes on")

        filler = fill(small_disk)
        until(lambda: node.poll() is not None, "the node does not give up")
        assert node.returncode == 1
    finally:
        node.kill()
        node.wait()
    seen = life.look(run)
    assert (seen.phase, "No space left" in seen.why) == (Phase.FAILED, True)
    told = status(run)["verdict"]
    saved = int(re.findall(r"resumes it after round (\d+)", told)[0])
    numbers = rounds(run)
    assert numbers == sorted(set(numbers))
    filler.unlink()
    again = swarmnode("join", "--run", run, *QUICK, *more, "--rounds", saved + 2)
    assert again.returncode == 0, again.stderr
    assert f"resumed round={saved} " in again.stderr
    assert rounds(run)[-2:] == [saved + 1, saved + 2]
    assert life.look(run).phase is Phase.DONE
