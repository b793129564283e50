"""Each layer of the scorer's sandbox alone, in a process of its own, and the same without it."""

import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from swarmnode import identity
from swarmnode.tasks import sandbox
from swarmnode.tasks.scorer import missing_layers

ROOT = Path(__file__).parents[2]
# What a text that took over the process would try; each prints its name when it works.
ATTEMPTS = """
import os, socket, sys, mmap
#
def attempt(name, action):
    try:
        action()
    except (OSError, MemoryError, LookupError):
        return
    print(name, flush=True)
attempt("read key", lambda: open(sys.argv[1], "rb").read())
attempt("list", lambda: os.listdir("/"))
attempt("write", lambda: open(sys.argv[1] + ".new", "wb").close())
attempt("socket", lambda: socket.socket().close())
attempt("connect", lambda: socket.create_connection(("127.0.0.1", int(sys.argv[2])), 5).close())
attempt("fork", lambda: os.fork() or os._exit(0))
attempt("signal", lambda: os.kill(os.getppid(), 0))
attempt("executable memory", lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC))
"""
EVERYTHING = {
    *("read key", "list", "write", "socket", "connect", "fork", "signal", "executable memory")
}


@pytest.fixture
def key(tmp_path: Path) -> Path:
    identity.create(tmp_path / "identity.key")
    return tmp_path / "identity.key"


@pytest.fixture
def port() -> Iterator[int]:
    """Of a socket of this test that takes connections."""
    listening = socket.create_server(("127.0.0.1", 0))
    yield listening.getsockname()[1]
    listening.close()


def what_works(lock_down: str, key: Path, port: int) -> set[str]:
    program = ATTEMPTS.replace("#", f"from swarmnode.tasks import sandbox\n{lock_down}")
    done = subprocess.run(
        [sys.executable, "-c", program, str(key), str(port)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines())


@pytest.mark.network
def test_without_a_layer_everything_is_in_reach(key: Path, port: int) -> None:
    assert what_works("", key, port) == EVERYTHING


@pytest.mark.network
def test_landlock_alone_keeps_the_key_and_the_network_out_of_reach(key: Path, port: int) -> None:
    version = landlock_version()
    works = what_works("sandbox.no_new_privileges(); sandbox.landlock()", key, port)
    assert not {"read key", "list", "write"} & works
    assert "fork" in works
    if version >= 4:
        assert "connect" not in works
    if version >= 6:
        assert "signal" not in works


@pytest.mark.network
def test_the_system_call_filter_alone_leaves_nothing(key: Path, port: int) -> None:
    if not sandbox.program(sandbox.platform.machine()):
        pytest.skip("no filter for this architecture")
    works = what_works("sandbox.no_new_privileges(); sandbox.system_calls()", key, port)
    assert works == set()


@pytest.mark.network
def test_limits_alone_leave_no_file_and_no_socket(key: Path, port: int) -> None:
    works = what_works("sandbox.limits(2**28)", key, port)
    assert not {"read key", "list", "write", "socket", "connect"} & works


@pytest.mark.network
def test_a_network_of_its_own_has_no_way_out(key: Path, port: int) -> None:
    works = what_works("print('own', sandbox.network())", key, port)
    if "own True" not in works:
        pytest.skip("this machine lets nobody make a name space")
    assert "connect" not in works


def test_the_filter_refuses_what_is_not_on_its_list() -> None:
    """The instructions, run here: no kernel is needed to see what they decide."""
    for machine, (architecture, plain, looked_into) in sandbox._ALLOWED.items():
        decide = interpreter(sandbox.program(machine))
        for number in range(500):
            allowed = number in plain or number in looked_into
            assert decide(architecture, number, 3) == (
                sandbox._ALLOW if allowed else sandbox._REFUSE
            )
            executable = decide(architecture, number, 3 | 4)
            assert (executable == sandbox._ALLOW) == (number in plain)
        assert decide(architecture, plain[0] + 0x40000000, 0) == sandbox._REFUSE  # x32
        assert decide(0x40000003, plain[0], 0) == sandbox._KILL  # i386
    assert sandbox.program("sparc") == b""


def test_the_ruleset_grows_with_the_kernel() -> None:
    assert [len(sandbox.ruleset(version)) for version in (1, 3, 4, 5, 6, 7, 9)] == [
        *(8, 8, 16, 16, 24, 24, 24)
    ]
    assert sandbox.ruleset(1) == (2**13 - 1).to_bytes(8, sys.byteorder)
    assert sandbox.ruleset(5)[:8] == (2**16 - 1).to_bytes(8, sys.byteorder)


def test_what_a_kernel_lacks_is_named() -> None:
    assert missing_layers({"own_network": False, "landlock": 0}) == (
        *("own_network", "no_new_privileges", "landlock", "system_calls"),
    )


def interpreter(program: bytes) -> Callable[[int, int, int], int]:
    """A BPF machine, as much as the filter uses."""
    steps = list(struct.iter_unpack("=HBBI", program))

    def decide(architecture: int, number: int, protection: int) -> int:
        words = {
            sandbox._ARCHITECTURE_AT: architecture,
            sandbox._NUMBER_AT: number,
            sandbox._PROTECTION_AT: protection,
        }
        at, word = 0, 0
        while True:
            code, if_true, if_false, value = steps[at]
            at += 1
            if code == sandbox._RETURN:
                return value
            if code == sandbox._LOAD:
                word = words[value]
            else:
                holds = word == value if code == sandbox._JUMP_EQUAL else bool(word & value)
                at += if_true if holds else if_false

    return decide


def landlock_version() -> int:
    program = "from swarmnode.tasks import sandbox as s; s.no_new_privileges(); print(s.landlock())"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True
    )
    version = int(done.stdout)
    if version == 0:
        pytest.skip("this kernel has no Landlock")
    return version
