import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from swarmnode.errors import ConfigError
from swarmnode.tasks import rows

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SOURCE = f"someone/sums@{COMMIT}:train"


@pytest.fixture
def jsonl(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    lines = [{"question": f"What is {n} + {n}?", "answer": f" {2 * n} "} for n in range(5)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_row_of_a_seed_is_the_seed_modulo_the_rows(jsonl: Path) -> None:
    source = rows.open_jsonl("t", jsonl, {"compare": "integer"})
    assert source.draft(3).prompt == "What is 3 + 3?"
    assert source.draft(3) == source.draft(8) == source.draft(2**32 - 3)  # 2**32 − 3 = 3 mod 5
    assert source.draft(3).answer == "6"
    assert source.draft(3).metadata == {"compare": "integer"}
    assert list(source.evaluation_seeds()) == [0, 1, 2, 3, 4]


def test_a_file_is_named_by_its_bytes(jsonl: Path) -> None:
    before = rows.open_jsonl("t", jsonl, {}).identity
    assert before == {"jsonl": hashlib.sha256(jsonl.read_bytes()).hexdigest()}
    jsonl.write_text(jsonl.read_text().replace("8", "9"))
    assert rows.open_jsonl("t", jsonl, {}).identity != before


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", 'is empty; it must be {"question": …, "answer": …}'),
        (" \t\r", "is empty"),
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("\udcff", "is not JSON"),
        ("[]", "nothing more"),
        ('{"question": "q"}', "nothing more"),
        ('{"question": "q", "answer": "a", "level": 1}', "nothing more"),
        ('{"question": "q", "answer": 5}', "answer must be a string"),
        ('{"question": null, "answer": "5"}', "question must be a string"),
        ('{"question": " ", "answer": "5"}', "question must be a string of 1"),
        ('{"question": "q", "answer": "\\n"}', "answer must be a string of 1"),
        (json.dumps({"question": "q" * 16_385, "answer": "5"}), "to 16384 characters"),
        (json.dumps({"question": "q", "answer": "5" * 2_049}), "to 2048 characters"),
        ('{"question": "\\ud800", "answer": "5"}', "half a character"),
        ('{"question": "q", "answer": "five"}', "no answer for compare = integer"),
    ],
)
def test_refuses_a_bad_line_by_its_number(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    good = '{"question": "q", "answer": "5"}\n'
    path.write_bytes((good + line + "\n" + good).encode(errors="surrogateescape"))
    with pytest.raises(ConfigError, match=message) as raised:
        rows.open_jsonl("t", path, {"compare": "integer"})
    assert f"{path} line 2" in str(raised.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compare": "eval"}, "one of text, word"),
        ({"question": "q"}, "no option 'question'"),
        ({"tolerance": "0.1"}, "for compare = "),
        ({"compare": "decimal", "tolerance": "1e9"}, "tolerance is a decimal number"),
        ({"compare": "decimal", "tolerance": 0.1}, "must be a string"),
    ],
)
def test_refuses_options(jsonl: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        rows.open_jsonl("t", jsonl, options)


def test_refuses_a_file_that_cannot_be_read_or_is_empty(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*No such file"):
        rows.open_jsonl("t", tmp_path / "none.jsonl", {})
    for number, content in enumerate((b"", b"\n", b" \n\n")):
        path = tmp_path / f"{number}.jsonl"
        path.write_bytes(content)
        with pytest.raises(ConfigError) as raised:
            rows.open_jsonl("t", path, {})
        assert f"{path} has no rows; every line must be" in str(raised.value)


@pytest.mark.parametrize(
    "source",
    [
        "someone/sums",
        "someone/sums:train",
        "someone/sums@main:train",
        f"someone/sums@{COMMIT[:39]}:train",
        f"someone/sums@{COMMIT.upper()}:train",
        f"someone/sums@{COMMIT}",
        f"someone/sums@{COMMIT}:train[:10%]",
        f"/etc@{COMMIT}:train",
        f"../sums@{COMMIT}:train",
        f"a/b/c@{COMMIT}:train",
        f"someone/sums@{COMMIT}:train\n",
    ],
)
def test_refuses_a_source_that_is_not_pinned(source: str) -> None:
    def never(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("loaded")

    with pytest.raises(ConfigError, match="40 hexadecimal digits"):
        rows.open_hub("t", source, {}, never)


class FakeDataset:
    """The three things of a `datasets.Dataset` that are used; checked against a real one below."""

    def __init__(self, columns: dict[str, list[Any]]) -> None:
        self._columns = columns
        self.column_names = list(columns)

    def __len__(self) -> int:
        return len(next(iter(self._columns.values())))

    def __getitem__(self, name: str) -> list[Any]:
        return self._columns[name]


def test_reads_the_named_columns_and_the_answer_after_the_mark() -> None:
    asked: dict[str, Any] = {}

    def load(path: str, **options: Any) -> FakeDataset:
        asked.update(options, path=path)
        return FakeDataset({"q": ["1 + 1?", "2 + 2?"], "a": ["so #### 2", "#### no #### 4"]})

    options = {"question": "q", "answer": "a", "config": "main", "answer_after": "####"}
    source = rows.open_hub("t", SOURCE, {**options, "compare": "integer"}, load)
    assert asked == {"path": "someone/sums", "name": "main", "revision": COMMIT, "split": "train"}
    assert [source.draft(seed).answer for seed in (0, 1, 2)] == ["2", "4", "2"]
    assert source.identity == {"hf": ["someone/sums", COMMIT, "train"]}
    assert source.collection == "someone/sums"


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"question": ["q"]}, {}, "no column 'answer'; the data set has question"),
        ({"question": ["q"], "answer": [None]}, {}, "row 1: answer must be a string"),
        ({"question": ["q"], "answer": ["5"]}, {"answer_after": "#"}, "does not contain"),
        ({"question": [], "answer": []}, {}, "has no rows"),
    ],
)
def test_refuses_bad_rows(columns: dict[str, Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        rows.open_hub("t", SOURCE, options, lambda *args, **kwargs: FakeDataset(columns))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ImportError("datasets"), r"pip install 'swarmnode\[datasets\]'"),
        (ConnectionError("no route\nto host"), r"ConnectionError: no route to host"),
        (ValueError("Unknown split"), "Unknown split"),
    ],
)
def test_says_why_a_data_set_cannot_be_loaded(error: Exception, message: str) -> None:
    def load(*args: Any, **kwargs: Any) -> Any:
        raise error

    with pytest.raises(ConfigError, match=message):
        rows.open_hub("t", SOURCE, {}, load)


@pytest.mark.slow
def test_reads_real_rows_through_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the real library from a folder: it ignores the revision there, all else is real."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    folder = tmp_path / "sums"
    folder.mkdir()
    lines = [{"question": f"{n} + 1?", "answer": str(n + 1)} for n in range(7)]
    (folder / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def load(path: str, **options: Any) -> Any:
        assert path == "someone/sums"
        return datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"), **options)

    source = rows.open_hub("t", SOURCE, {"compare": "integer"}, load)
    assert [source.draft(seed).answer for seed in (0, 6, 7)] == ["1", "7", "1"]
    fake = FakeDataset({"question": [line["question"] for line in lines], "answer": []})
    real = load("someone/sums", name=None, revision=COMMIT, split="train")
    assert (len(real), list(real["question"])) == (len(fake), fake["question"])
    assert set(real.column_names) == set(fake.column_names)
    with pytest.raises(ConfigError, match="Unknown split"):
        rows.open_hub("t", f"someone/sums@{COMMIT}:nope", {}, load)
