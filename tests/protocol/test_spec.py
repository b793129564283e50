"""SPEC.md says what the code does: limits, refusals; and `import protocol` stays light."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from protocol import limits
from protocol.errors import Reason

ROOT = Path(__file__).parents[2]
SPEC = (ROOT / "protocol" / "SPEC.md").read_text()


def section(number: int) -> str:
    match = re.search(rf"^## {number}\. .*?(?=^## |\Z)", SPEC, re.MULTILINE | re.DOTALL)
    assert match
    return match.group()


def test_refusals_are_the_enum_in_its_order() -> None:
    listed = re.findall(r"^\| `(\w+)` \| \S", section(9), re.MULTILINE)
    assert listed == [reason.value for reason in Reason]


def test_limits_are_those_of_the_code() -> None:
    listed = re.findall(r"^\| ([A-Z_]+) \| (\d+) \|", section(2), re.MULTILINE)
    assert len(listed) == 24
    assert {name: getattr(limits, name) for name, _ in listed} == {
        name: int(value) for name, value in listed
    }


def test_every_limit_of_messages_is_listed() -> None:
    defined = {name for name in vars(limits) if name.startswith("MAX_")}
    assert defined <= set(re.findall(r"^\| ([A-Z_]+) \|", section(2), re.MULTILINE))


def test_frame_is_small_enough_for_its_length_fields() -> None:
    assert limits.MAX_TEXT_BYTES < 2**16  # str 16
    assert limits.MAX_COMPLETIONS <= 15  # fixarray
    assert limits.MAX_COMPLETIONS <= 8 * limits.ENDED_BYTES
    assert limits.MAX_LABEL_BYTES <= 31  # fixstr
    assert limits.MAX_FETCH_RESPONSE_BYTES < 4 * 2**20  # one unary message


def test_importing_all_of_protocol_loads_nothing_heavy() -> None:
    program = (
        "import importlib, pkgutil, sys, protocol\n"
        "for module in pkgutil.iter_modules(protocol.__path__):\n"
        "    importlib.import_module('protocol.' + module.name)\n"
        "print(' '.join({name.partition('.')[0] for name in sys.modules}))"
    )
    loaded = _python("-c", program).split()
    heavy = {"torch", "transformers", "numpy", "swarmnode", "hivemind", "asyncio", "reasoning_gym"}
    assert "protocol" in loaded
    assert not heavy & set(loaded)


@pytest.mark.slow
def test_rollouts_are_at_most_half_of_plain_messagepack() -> None:
    rows = [
        json.loads(line)
        for line in _python("tests/bench/wire_size.py", "--json", "--questions", "8").splitlines()
    ]
    assert len(rows) == 24  # eight tasks, three styles
    assert max(row["frame_to_plain"] for row in rows) <= 0.5
    assert max(row["largest_overhead"] for row in rows) <= limits.ROLLOUT_OVERHEAD_BYTES


def _python(*arguments: str) -> str:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
