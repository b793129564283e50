"""Benchmark scripts run: on the day a GPU is lent there is no time to find that they do not."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parent / "bench"


@pytest.mark.slow
def test_the_gpu_script_runs_dry(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    command = [sys.executable, BENCH / "gpu.py", "--device", "cpu", "--tiny", "--json", out]
    subprocess.run(command, check=True, timeout=300)
    found = json.loads(out.read_text())
    (row,) = found["rows"]
    assert found["peak_tflops"] > 0
    assert 0 < row["update_peak_share"] < 1
    assert 0 < row["generation_peak_share"] < 1
    assert row["generated_tokens_per_s"] == pytest.approx(2 * 4 * 6 / row["generation_s"])


def test_the_gpu_script_says_that_there_is_no_gpu() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is one")
    done = subprocess.run(
        [sys.executable, BENCH / "gpu.py"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 2
    assert "no GPU" in done.stderr
