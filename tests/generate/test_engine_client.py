"""The engine's process as the node sees it; `engine_program.py` stands in for the program."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
import torch

from swarmnode.generate import engine_client
from swarmnode.generate.choice import has_vllm
from swarmnode.generate.engine import Batch, EngineFailed, Request
from swarmnode.generate.engine_client import EngineProcess

PROGRAM = Path(__file__).with_name("engine_program.py")
BATCH = Batch((Request((1, 2), 11, 5), Request((1, 2), 12, 5)), 1.0)


@contextmanager
def engine(way: str = "well", silence_s: float = 20.0) -> Iterator[EngineProcess]:
    root = str(Path(__file__).resolve().parents[2])
    process = EngineProcess(
        {"model": "tiny"},
        {"PYTHONPATH": root},
        [7],
        silence_s=silence_s,
        command=(sys.executable, str(PROGRAM), way),
    )
    try:
        yield process
    finally:
        process.close()
        process.close()


def weights():
    """Of three types, one without elements but its own; sum of bytes: worked out below."""
    return [
        ("a", torch.tensor([1, 2, 3])),  # int64: 1 + 2 + 3
        ("b", torch.ones(2, 3)),  # float32 1.0 is 00 00 80 3f: 6 · (128 + 63)
        ("c", torch.ones(3, 2, dtype=torch.bfloat16).T),  # 80 3f, not contiguous: 6 · 191
        ("d", torch.tensor(1.0)),  # without a dimension: 191
    ]


SUM = 6 + 6 * 191 + 6 * 191 + 191


def answers(process: EngineProcess) -> list[list[int]]:
    process.send(BATCH)
    return [one.ids for one in process.receive()]


def test_weights_arrive_byte_by_byte_and_answers_in_order() -> None:
    with engine() as process:
        process.start(64)
        process.load(weights(), 1)
        assert answers(process) == [[SUM, 4, 11], [SUM, 4, 12]]
        process.load(weights()[:1], 2)
        assert answers(process) == [[6, 1, 11], [6, 1, 12]]


def test_weights_larger_than_the_window_come_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_client, "WINDOW_BYTES", 64)
    with engine() as process:
        process.start(64)
        # The second is larger than the window, which grows for it.
        many = [*weights(), ("e", torch.ones(100)), *weights(), ("f", torch.ones(1000))]
        process.load(many, 1)
        assert answers(process)[0] == [2 * SUM + 1100 * 191, 10, 11]


def test_shared_memory_has_no_name_and_is_given_back() -> None:
    with engine() as process:
        process.start(64)
        process.load(weights(), 1)
        assert "/memfd:swarmnode-weights (deleted)" in held_files()
    assert "/memfd:swarmnode-weights (deleted)" not in held_files()


def held_files() -> list[str]:
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the one that lists them
            found.append(os.readlink(descriptor))
    return found


@pytest.mark.parametrize(
    ("way", "reason"),
    [
        ("dies", "died, exit code 3; its last words: Segmentation fault, as it were"),
        ("hangs", r"said nothing for 0\.5 s"),
        ("garbage", "did not reply in JSON"),
        ("huge", "sent a reply of 4294967295 bytes"),
        ("words", "did not answer with ids and log-probabilities"),
        ("short", "did not answer every request in full"),
        ("halves", "died"),
    ],
)
def test_whatever_goes_wrong_is_one_failure_and_the_process_is_gone(way: str, reason: str) -> None:
    with engine(way, silence_s=0.5 if way == "hangs" else 20.0) as process:
        process.start(64)
        process.load(weights(), 1)
        pid = process.pid
        with pytest.raises(EngineFailed, match=reason):
            answers(process)
        assert not process.runs
        assert not psutil.pid_exists(pid or -1)
        with pytest.raises(EngineFailed, match="not running"):
            answers(process)
        process.start(64)  # another one comes up
        assert process.runs


def test_signs_of_life_come_before_the_answer() -> None:
    with engine("slow") as process:
        process.start(64)
        process.load(weights(), 1)
        assert answers(process) == [[SUM, 4, 11], [SUM, 4, 12]]


def test_what_the_engine_refuses_is_told() -> None:
    with engine("refuses") as process:
        with pytest.raises(EngineFailed, match="failed: ValueError: head size 24 is not supported"):
            process.start(64)
        assert not process.runs


def test_a_killed_engine_is_noticed_at_the_next_call() -> None:
    with engine() as process:
        process.start(64)
        process.load(weights(), 1)
        assert process.pid is not None
        psutil.Process(process.pid).kill()
        with pytest.raises(EngineFailed, match="died, exit code -9"):
            answers(process)


def test_all_that_it_started_dies_with_it() -> None:
    with engine("child") as process:
        process.start(64)
        assert process.pid is not None
        children = psutil.Process(process.pid).children()
        assert len(children) == 1
        process.kill()
        assert all(psutil.wait_procs(children, timeout=20)[0])


def test_a_program_that_is_not_there_is_a_failure() -> None:
    process = EngineProcess({}, {}, [7], silence_s=1.0, command=("/nonexistent/python",))
    with pytest.raises(EngineFailed, match="cannot be started"):
        process.start(64)
    process.close()


PARENT = """
import os, time
from swarmnode.generate.engine_client import EngineProcess
process = EngineProcess({}, {}, [7], 20.0)
process._spawn(os.memfd_create("weights"))
print(process.pid, flush=True)
time.sleep(600)
"""


def test_the_real_process_dies_with_a_node_that_was_killed() -> None:
    root = str(Path(__file__).resolve().parents[2])
    node = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": root},
    )
    assert node.stdout is not None
    with node.stdout as told:
        engine = psutil.Process(int(told.readline()))
        node.kill()
        node.wait()
    assert engine.wait(timeout=20) is None or not engine.is_running()


@pytest.mark.skipif(has_vllm(), reason="it would start")
def test_a_program_without_vllm_says_so() -> None:
    with engine_process() as process:
        with pytest.raises(EngineFailed, match="ModuleNotFoundError: No module named 'vllm'"):
            process.start(64)
        assert not process.runs


@contextmanager
def engine_process() -> Iterator[EngineProcess]:
    """The real program."""
    process = EngineProcess({"model": "tiny"}, {}, [7], 20.0)
    try:
        yield process
    finally:
        process.close()
