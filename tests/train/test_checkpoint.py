import hashlib
import json
import os
import random
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from swarmnode.errors import SwarmNodeError
from swarmnode.train.checkpoint import (
    Checkpoint,
    Latest,
    Skipped,
    load_latest,
    peek,
    restore_rng,
    rng_state,
    save,
)

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}


def checkpoint(round_number: int, size: int = 8) -> Checkpoint:
    tensors = {"w": torch.full((size,), float(round_number))}
    return Checkpoint(round_number, tensors, {"exp_avg.w": tensors["w"] / 2}, {"seen": ["ab", 1]})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def latest_round(folder: Path) -> int | None:
    found = load_latest(folder).checkpoint
    return None if found is None else found.round


def test_loads_what_was_saved(tmp_path: Path) -> None:
    path = save(tmp_path / "checkpoints", checkpoint(42), keep=2)
    assert path.name == "round-00000042"
    latest = load_latest(tmp_path / "checkpoints")
    assert latest.skipped == ()
    found = latest.checkpoint
    assert found is not None
    assert (found.round, found.state) == (42, {"seen": ["ab", 1]})
    assert found.model["w"].tolist() == [42.0] * 8
    assert found.optimizer["exp_avg.w"].tolist() == [21.0] * 8


def test_keeps_dtypes_scalars_and_views(tmp_path: Path) -> None:
    model = {
        "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
        "scalar": torch.tensor(3.0),
        "transposed": torch.arange(6.0).view(2, 3).t(),
    }
    save(tmp_path, Checkpoint(1, model, {}, {}), keep=1)
    found = load_latest(tmp_path).checkpoint
    assert found is not None
    torch.testing.assert_close(dict(found.model), model, rtol=0, atol=0)
    assert found.optimizer == {}


def test_no_folder_and_an_empty_folder_hold_no_checkpoint(tmp_path: Path) -> None:
    assert load_latest(tmp_path / "none") == Latest(None, ())
    assert load_latest(tmp_path) == Latest(None, ())


def test_a_look_at_the_state_reads_the_newest_that_is_readable(tmp_path: Path) -> None:
    assert peek(tmp_path / "none") is None
    assert peek(tmp_path) is None
    for number in (1, 2):
        save(tmp_path, Checkpoint(number, {}, {}, {"number": number}), keep=2)
    assert peek(tmp_path) == {"number": 2}
    (tmp_path / "round-00000002" / "state.json").write_bytes(b'{"num')
    assert peek(tmp_path) == {"number": 1}


def test_retention_keeps_the_newest(tmp_path: Path) -> None:
    for round_number in (1, 5, 9, 10):
        save(tmp_path, checkpoint(round_number), keep=2)
    assert names(tmp_path) == ["round-00000009", "round-00000010"]


def test_rounds_beyond_eight_digits_are_newer(tmp_path: Path) -> None:
    for round_number in (99_999_999, 100_000_000):
        save(tmp_path, checkpoint(round_number), keep=5)
    assert latest_round(tmp_path) == 100_000_000


def test_leftovers_of_a_crash_are_removed_by_the_next_save(tmp_path: Path) -> None:
    save(tmp_path, checkpoint(1), keep=2)
    (tmp_path / ".saving-round-00000002").mkdir()
    (tmp_path / ".saving-round-00000002" / "model.safetensors").write_bytes(b"half")
    shutil.copytree(tmp_path / "round-00000001", tmp_path / ".removing-round-00000000")
    (tmp_path / "notes.txt").write_text("a person's")
    assert latest_round(tmp_path) == 1
    save(tmp_path, checkpoint(2), keep=2)
    assert names(tmp_path) == ["notes.txt", "round-00000001", "round-00000002"]


@pytest.mark.parametrize("round_number", [3, 2])
def test_never_overwrites_or_goes_behind_a_valid_checkpoint(
    tmp_path: Path, round_number: int
) -> None:
    save(tmp_path, checkpoint(3), keep=2)
    with pytest.raises(ValueError, match=f"round-00000003 exists, round {round_number} is not"):
        save(tmp_path, checkpoint(round_number), keep=2)
    assert names(tmp_path) == ["round-00000003"]


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def edit_manifest(path: Path, **changes: object) -> None:
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest | changes))


@pytest.mark.parametrize(
    ("file", "harm", "reason"),
    [
        ("model.safetensors", flip_a_bit, "model.safetensors has the wrong hash"),
        ("optimizer.safetensors", flip_a_bit, "optimizer.safetensors has the wrong hash"),
        ("state.json", cut, "state.json has the wrong size"),
        ("state.json", Path.unlink, "state.json is missing"),
        ("MANIFEST.json", Path.unlink, "MANIFEST.json is missing"),
        ("MANIFEST.json", cut, "MANIFEST.json is not valid"),
        ("MANIFEST.json", lambda p: p.write_text("[]"), "MANIFEST.json is not valid"),
        ("MANIFEST.json", lambda p: edit_manifest(p, files={}), "MANIFEST.json is not valid"),
        ("MANIFEST.json", lambda p: edit_manifest(p, format=2), "format 2, this program reads 1"),
        ("MANIFEST.json", lambda p: edit_manifest(p, round=7), "its manifest is of round 7"),
    ],
)
def test_walks_back_past_a_spoilt_checkpoint_and_says_why(
    tmp_path: Path, file: str, harm: object, reason: str
) -> None:
    save(tmp_path, checkpoint(1), keep=3)
    save(tmp_path, checkpoint(2), keep=3)
    assert callable(harm)
    harm(tmp_path / "round-00000002" / file)
    latest = load_latest(tmp_path)
    assert latest.checkpoint is not None
    assert latest.checkpoint.round == 1
    assert latest.skipped == (Skipped("round-00000002", reason),)


def test_without_the_hash_a_flipped_bit_is_trained_on(tmp_path: Path) -> None:
    path = save(tmp_path, checkpoint(2), keep=3)
    flip_a_bit(path / "model.safetensors")
    manifest = json.loads((path / "MANIFEST.json").read_text())
    data = (path / "model.safetensors").read_bytes()
    manifest["files"]["model.safetensors"]["sha256"] = hashlib.sha256(data).hexdigest()
    (path / "MANIFEST.json").write_text(json.dumps(manifest))
    found = load_latest(tmp_path).checkpoint
    assert found is not None
    assert found.model["w"].tolist() != [2.0] * 8


def test_all_spoilt_is_not_the_same_as_none(tmp_path: Path) -> None:
    path = save(tmp_path, checkpoint(1), keep=1)
    (path / "MANIFEST.json").unlink()
    latest = load_latest(tmp_path)
    assert latest.checkpoint is None
    assert len(latest.skipped) == 1


def test_training_goes_on_over_a_spoilt_checkpoint_which_is_kept_aside(tmp_path: Path) -> None:
    for round_number in (1, 2, 3):
        save(tmp_path, checkpoint(round_number), keep=5)
    for round_number in (2, 3):
        (tmp_path / f"round-0000000{round_number}" / "MANIFEST.json").unlink()
    save(tmp_path, checkpoint(2), keep=1)
    # Counted as one of the newest, the spoilt round 3 would have pushed the good round 2 out.
    assert names(tmp_path) == ["round-00000002", "spoilt-round-00000002", "spoilt-round-00000003"]
    assert load_latest(tmp_path).skipped == ()
    (tmp_path / "round-00000002" / "MANIFEST.json").unlink()
    save(tmp_path, checkpoint(2), keep=1)
    assert "spoilt-round-00000002-2" in names(tmp_path)


@contextmanager
def small_files_only() -> Iterator[None]:
    """Writing past 4 KiB of a file fails, as on a full disk (Python ignores SIGXFSZ).

    For one call only: pytest's own output may be a longer file.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_one_line_and_leaves_the_older_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, checkpoint(1), keep=1)
    error = pytest.raises(SwarmNodeError, match="cannot save a checkpoint")
    with error as caught, small_files_only():
        save(tmp_path, checkpoint(2, size=5000), keep=1)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is not None
    assert names(tmp_path) == ["round-00000001"]
    assert latest_round(tmp_path) == 1
    save(tmp_path, checkpoint(3), keep=1)
    assert latest_round(tmp_path) == 3


def test_a_folder_that_cannot_be_made_is_an_environment_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SwarmNodeError, match="cannot save a checkpoint") as caught:
        save(tmp_path / "file" / "checkpoints", checkpoint(1), keep=1)
    assert isinstance(caught.value.__cause__, NotADirectoryError)
    with pytest.raises(SwarmNodeError, match="cannot read the checkpoints"):
        load_latest(tmp_path / "file")


@pytest.mark.parametrize("state", [{"x": float("nan")}, {"x": {1, 2}}])
def test_state_that_is_not_json_is_a_bug_and_touches_nothing(
    tmp_path: Path, state: dict[str, object]
) -> None:
    with pytest.raises((ValueError, TypeError)):
        save(tmp_path / "checkpoints", Checkpoint(1, {}, {}, state), keep=1)
    assert not (tmp_path / "checkpoints").exists()


def test_random_generators_continue_where_they_were() -> None:
    rng, generator = random.Random(1), torch.Generator().manual_seed(2)
    torch.manual_seed(3)
    rng.gauss(0, 1)  # leaves a second Gaussian waiting inside
    state = json.loads(json.dumps(rng_state({"node": rng}, {"sampler": generator})))
    draws = [rng.gauss(0, 1), rng.random(), torch.rand(2, generator=generator), torch.rand(2)]
    other, blank = random.Random(), torch.Generator()
    torch.manual_seed(9)
    restore_rng(state, {"node": other}, {"sampler": blank})
    again = [other.gauss(0, 1), other.random(), torch.rand(2, generator=blank), torch.rand(2)]
    assert draws[:2] == again[:2]
    assert all(torch.equal(a, b) for a, b in zip(draws[2:], again[2:], strict=True))


def run_crashes(folder: Path, mode: str) -> dict[str, int]:
    program = [sys.executable, str(HERE / "crash_run.py"), str(folder), mode, "30", "1"]
    done = subprocess.run(program, capture_output=True, text=True, check=True, env=ENVIRONMENT)
    result: dict[str, int] = json.loads(done.stdout)
    return result


@pytest.mark.slow
def test_kill_9_at_any_moment_loses_nothing_durable(tmp_path: Path) -> None:
    result = run_crashes(tmp_path, "save")
    assert result["kills"] == 30
    assert result["spoilt"] == result["lost"] == 0
    assert result["saved"] > 30


@pytest.mark.slow
def test_kill_9_while_writing_in_place_spoils_checkpoints(tmp_path: Path) -> None:
    assert run_crashes(tmp_path, "in-place")["spoilt"] > 0


@pytest.mark.slow
def test_resuming_in_a_fresh_process_equals_never_stopping_bit_for_bit(tmp_path: Path) -> None:
    for part in ("first", "second"):
        program = [sys.executable, str(HERE / "resume_run.py"), str(tmp_path), part]
        subprocess.run(program, check=True, env=ENVIRONMENT)
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    assert names(straight) == ["round-00000006"]
    assert names(resumed) == ["round-00000003", "round-00000006"]
    for file in ("model.safetensors", "optimizer.safetensors", "state.json"):
        expected = (straight / "round-00000006" / file).read_bytes()
        assert (resumed / "round-00000006" / file).read_bytes() == expected
        assert (resumed / "round-00000003" / file).read_bytes() != expected
