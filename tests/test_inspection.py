"""What a person is shown of a frame, and what the exit code says."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from protocol import limits
from protocol.envelope import COMPRESSED_ROLLOUT, seal
from protocol.messages import Announcement, Item, Rollout
from swarmnode import identity, inspection
from swarmnode.errors import ConfigError

SWARM = bytes([7] * 32)
AUTHOR = identity.from_seed(bytes([1] * 32))


def announcement_frame() -> bytes:
    message = Announcement.build(
        round=3,
        created=1_700_000_000,
        policy_version=2,
        model_label="tiny",
        items=[Item(bytes([5] * 32), b"add1", 4, 300), Item(bytes([6] * 32), b"add1", 5, 301)],
    )
    return seal(message, AUTHOR.seed, SWARM).frame


def rollout_frame(*texts: str) -> bytes:
    message = Rollout.build(
        task_digest=b"add1",
        seed=4,
        created=1_700_000_000,
        policy_version=2,
        temperature=0.75,
        model_label="tiny",
        texts=texts,
        mean_logps=[-0.5] * len(texts),
        token_counts=[3] * len(texts),
        ended=[True] * (len(texts) - 1) + [False],
    )
    return seal(message, AUTHOR.seed, SWARM).frame


def shown(
    capsys: pytest.CaptureFixture[str], source: str, swarm: str | None = None
) -> tuple[int, dict[str, Any]]:
    code = inspection.run(source, swarm, as_json=True)
    return code, json.loads(capsys.readouterr().out)


def test_shows_a_rollout_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    frame = rollout_frame("42", "no")
    assert shown(capsys, frame.hex()) == (
        0,
        {
            "frame_bytes": len(frame),
            "signature": "not checked: give --swarm",
            "kind": "rollout",
            "author": AUTHOR.peer_id,
            "model_label": "tiny",
            "created": 1_700_000_000,
            "policy_version": 2,
            "task_digest": b"add1".hex(),
            "seed": 4,
            "temperature": 0.75,
            "completions": [
                {"text": "42", "tokens": 3, "mean_logp": -0.5, "ended": True},
                {"text": "no", "tokens": 3, "mean_logp": -0.5, "ended": False},
            ],
        },
    )


def test_shows_an_announcement_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    _, fields = shown(capsys, announcement_frame().hex())
    digest = b"add1".hex()
    assert fields["items"] == [
        {"id": "05" * 32, "task_digest": digest, "seed": 4, "frame_bytes": 300},
        {"id": "06" * 32, "task_digest": digest, "seed": 5, "frame_bytes": 301},
    ]


def test_a_rollouts_text_is_whole_in_json_and_short_for_a_person(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = "long " * 100 + "\x1b[2J\u202eé".replace("\x1b", "")
    frame = rollout_frame(text)
    assert shown(capsys, frame.hex())[1]["completions"][0]["text"] == text
    inspection.run(frame.hex(), None, as_json=True)
    assert capsys.readouterr().out.isascii()  # nothing that a terminal acts on
    inspection.run(frame.hex(), None, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if line.startswith("completions: ")]
    assert len(line) < 150
    assert line.endswith("… mean_logp=-0.500 tokens=3 ended=false")


def test_hexadecimal_text_is_read_from_a_file_and_standard_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = announcement_frame()
    text = "\n".join(frame.hex()[start : start + 60] for start in range(0, 2 * len(frame), 60))
    (tmp_path / "frame.hex").write_text(text.upper() + "\n")
    expected = shown(capsys, frame.hex())
    assert shown(capsys, str(tmp_path / "frame.hex")) == expected
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert shown(capsys, "-") == expected


def test_the_largest_frame_fits_as_hexadecimal_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = bytes([1, 2]) + bytes(limits.MAX_FRAME_BYTES - 2)
    (tmp_path / "frame.hex").write_text(frame.hex() + "\n")
    _, fields = shown(capsys, str(tmp_path / "frame.hex"))
    assert fields["frame_bytes"] == limits.MAX_FRAME_BYTES


def test_shows_an_announcement_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert inspection.run(announcement_frame().hex(), None, as_json=False) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "kind: announcement" in lines
    assert f"author: {AUTHOR.peer_id}" in lines
    assert "round: 3" in lines
    assert f"items: {'05' * 32} task={b'add1'.hex()} seed=4 bytes=300" in lines
    assert f"items: {'06' * 32} task={b'add1'.hex()} seed=5 bytes=301" in lines


def test_shows_a_compressed_rollout(capsys: pytest.CaptureFixture[str]) -> None:
    frame = rollout_frame(*["so we add one and one and so on " * 20] * 8)
    assert frame[1] == COMPRESSED_ROLLOUT
    code, fields = shown(capsys, frame.hex())
    assert (code, fields["kind"], len(fields["completions"])) == (0, "rollout", 8)


def test_a_peers_text_is_shown_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    frame = rollout_frame("a\nkind: forged", "[red]b[/red] :bomb: \u202e")
    assert inspection.run(frame.hex(), None, as_json=False) == 0
    out = capsys.readouterr().out
    assert r"completions: 'a\nkind: forged'" in out
    assert r"completions: '[red]b[/red] :bomb: \u202e'" in out
    assert out.splitlines().count("kind: rollout") == 1


def test_reads_a_file_and_standard_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = announcement_frame()
    (tmp_path / "frame").write_bytes(frame)
    expected = shown(capsys, frame.hex())
    assert shown(capsys, str(tmp_path / "frame")) == expected
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(frame)))
    assert shown(capsys, "-") == expected


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b"", "malformed"),
        (b"\x01", "malformed"),
        (b"\x63" * 200, "wrong_version"),
        (b"\x01\x63" * 99, "unknown_kind"),
        (announcement_frame()[:-1], "malformed"),
        (announcement_frame() + b"\0", "malformed"),
        (bytes([1, 2]) + bytes(limits.MAX_ANNOUNCEMENT_BYTES), "too_large"),
        (bytes([1, COMPRESSED_ROLLOUT]) + bytes(200), "bad_compression"),
    ],
)
def test_names_why_a_frame_is_refused(
    capsys: pytest.CaptureFixture[str], frame: bytes, reason: str
) -> None:
    code, fields = shown(capsys, frame.hex())
    assert (code, fields["refused"]) == (1, reason)
    assert fields["why"]
    assert "author" not in fields


def test_a_file_that_is_too_large_is_not_read_to_its_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "frame").write_bytes(b"\x01\x01" + bytes(3 * limits.MAX_FRAME_BYTES))
    code, fields = shown(capsys, str(tmp_path / "frame"))
    assert (code, fields["refused"]) == (1, "too_large")
    assert fields["frame_bytes"] == limits.MAX_FRAME_BYTES + 1


@pytest.mark.parametrize("source", ["no such file", "abc", "x" * 5000, "a\0b"])
def test_what_is_neither_file_nor_hexadecimal_is_wrong_use(source: str) -> None:
    with pytest.raises(ConfigError, match="neither a readable file nor hexadecimal") as caught:
        inspection.run(source, None, as_json=True)
    assert len(str(caught.value)) < 200


def rows_swarm(folder: Path, name: str) -> str:
    (folder / "rows.jsonl").write_text('{"question": "1 + 1?", "answer": "2"}\n')
    path = folder / f"{name}.toml"
    path.write_text(f'name = "{name}"\n[[tasks]]\nname = "a"\nsource = "jsonl:rows.jsonl"\n')
    return str(path)


@pytest.mark.slow
def test_checks_the_signature_against_a_swarm(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, other = rows_swarm(tmp_path, "ours"), rows_swarm(tmp_path, "other")
    message = Announcement.build(
        round=1, created=1_700_000_000, policy_version=0, model_label="tiny", items=[]
    )
    sealed = seal(message, AUTHOR.seed, inspection._swarm_id(ours))
    code, fields = shown(capsys, sealed.frame.hex(), ours)
    assert code == 0
    assert (fields["signature"], fields["id"]) == ("valid", sealed.id.hex())
    code, fields = shown(capsys, sealed.frame.hex(), other)
    assert (code, fields["refused"]) == (1, "bad_signature")
