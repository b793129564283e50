"""The fuzz targets in seconds: the corpus, mutations of it, and Hypothesis's almost valid bodies.

`make fuzz` is the long form. Each kind of finding is planted once, to see that it would be seen.
"""

import random
import sys
from collections.abc import Mapping
from pathlib import Path

import fuzz
import fuzz_targets
import fuzz_worker
import pytest
from fuzz_seeds import CORPUS, seeds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocol import codec
from protocol.errors import ProtocolError, Reason

sys.path.append(str(Path(__file__).parents[1] / "protocol"))
from wire_strategies import almost_bodies, messages

CHANGED = 200  # mutations of each target's corpus
property_settings = settings(
    max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), database=None
)


@pytest.fixture(scope="module")
def targets() -> Mapping[str, fuzz_targets.Target]:
    return fuzz_targets.targets()


@pytest.mark.slow
@pytest.mark.parametrize("name", [*fuzz.COUNTED, *fuzz.BESIDE])
def test_corpus_and_mutations_raise_nothing_unexpected(
    targets: Mapping[str, fuzz_targets.Target], name: str
) -> None:
    rng = random.Random(name)
    corpus = [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]
    for data in corpus + [fuzz_worker.mutated(corpus, rng) for _ in range(CHANGED)]:
        targets[name](data)


@pytest.mark.slow
@property_settings
@given(body=almost_bodies() | messages.map(codec.encode), first=st.integers(0, 255))
def test_almost_valid_bodies_raise_nothing_unexpected(
    targets: Mapping[str, fuzz_targets.Target], body: bytes, first: int
) -> None:
    for name in ("message", "signed", "exchange"):
        targets[name](bytes((first,)) + body)
    targets["question"](body)


@pytest.mark.slow
@property_settings
@given(text=st.text(), which=st.integers(0, 3))
def test_no_text_becomes_a_control_token(
    targets: Mapping[str, fuzz_targets.Target], text: str, which: int
) -> None:
    targets["tokens"](bytes((which,)) + text.encode(errors="ignore"))


def test_the_corpus_holds_the_vectors() -> None:
    kept = {
        (folder.name, path.read_bytes()) for folder in CORPUS.iterdir() for path in folder.iterdir()
    }
    missing = [name for name, data in seeds() if len(data) <= 2048 and (name, data) not in kept]
    assert missing == []
    assert set(fuzz.COUNTED) | set(fuzz.BESIDE) == {name for name, _ in kept}


def test_a_planted_exception_escapes(tmp_path: Path) -> None:
    def planted(data: bytes) -> None:
        if data.startswith(b"\x91"):
            raise KeyError(data)

    target = fuzz_worker.Counted(planted, 10, tmp_path / "result")
    target(b"\x90")
    with pytest.raises(KeyError):
        target(b"\x91")


@pytest.mark.parametrize(
    ("name", "reason", "data"),
    [
        ("message", Reason.NOT_CANONICAL, b"\0\xa1"),
        ("frame", Reason.BAD_SIGNATURE, b"\1\1" + bytes(97)),
    ],
)
def test_a_refusal_of_any_other_kind_escapes(
    monkeypatch: pytest.MonkeyPatch, name: str, reason: Reason, data: bytes
) -> None:
    def refuses(*_: object) -> None:
        raise ProtocolError(reason, "planted")

    def breaks(*_: object) -> None:
        raise OverflowError("planted")

    target = fuzz_targets.targets(name)[name]
    for reader in ("open_frame", "read_unverified"):
        monkeypatch.setattr(fuzz_targets.envelope, reader, refuses)
    target(data)
    for reader in ("open_frame", "read_unverified"):
        monkeypatch.setattr(fuzz_targets.envelope, reader, breaks)
    with pytest.raises(OverflowError):
        target(data)


def test_shares_make_the_whole() -> None:
    assert sum(fuzz.COUNTED.values()) == pytest.approx(1.0)


def test_a_worker_that_dies_or_does_too_little_has_failed(tmp_path: Path) -> None:
    run = fuzz.fuzz_target("no such target", 10, "mutation", 1, counted=True, keep=False)
    assert run.failed
    assert "no such target" in run.detail
