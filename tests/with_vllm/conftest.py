"""vLLM itself, on a CPU: `make test-vllm`, in an environment of its own."""

import sys
from pathlib import Path

import pytest

# What the tests without vLLM use, too: the contract of an engine.
sys.path.insert(0, str(Path(__file__).parents[1] / "generate"))

pytest.importorskip("vllm", reason="make test-vllm has it")
