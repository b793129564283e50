"""Questions from data: a JSON-lines file, or one split of a Hugging Face data set.

The row of a seed is `seed mod number of rows`. A file is named by the hash of its bytes, a data
set by its id, its configuration, its full commit and its split: only nodes that hold the same
rows have the same digest.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from swarmnode.errors import ConfigError
from swarmnode.tasks import compare, options
from swarmnode.tasks.options import OneOf, Text
from swarmnode.tasks.source import Draft

# Bounds on what is read into memory; a larger collection is not a mistake, but not for this node.
MAX_FILE_BYTES: Final = 256 * 1024 * 1024
MAX_ROWS: Final = 1_000_000
# A prompt must leave room for an answer in a small model's context.
MAX_QUESTION_CHARACTERS: Final = 16_384
MAX_ANSWER_CHARACTERS: Final = 2048  # the scorer reads `compare.MAX_ANSWER_CHARACTERS`, twice this

# The default rule "text" is exact; "integer" fits GSM8K with answer_after = "####".
_COMPARE: Mapping[str, options.Kind] = {
    "compare": OneOf(tuple(compare.RULES)),
    "tolerance": Text(20),
}
JSONL_OPTIONS: Final[Mapping[str, options.Kind]] = _COMPARE
HUB_OPTIONS: Final[Mapping[str, options.Kind]] = {
    **_COMPARE,
    "config": Text(100),
    "question": Text(100),
    "answer": Text(100),
    "answer_after": Text(100),
}

_HUB = re.compile(
    r"(?P<id>[A-Za-z0-9][\w.-]{0,95}(?:/[A-Za-z0-9][\w.-]{0,95})?)"
    r"@(?P<revision>[0-9a-f]{40}):(?P<split>\w[\w.-]{0,95})",
    re.ASCII,
)
_ROW = '{"question": …, "answer": …}'
_TOLERANCE = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?", re.ASCII)

Loader = Callable[..., Any]


class RowSource:
    """The questions of some rows (question, answer). Made by `open_jsonl` and `open_hub`."""

    def __init__(
        self,
        collection: str,
        identity: Mapping[str, Any],
        pairs: Sequence[tuple[str, str]],
        metadata: Mapping[str, Any],
    ) -> None:
        self._collection = collection
        self._identity = identity
        self._pairs = pairs
        self._metadata = metadata

    @property
    def collection(self) -> str:
        return self._collection

    @property
    def identity(self) -> Mapping[str, Any]:
        return self._identity

    def draft(self, seed: int) -> Draft:
        question, answer = self._pairs[seed % len(self._pairs)]
        return Draft(question, answer, self._metadata)

    def evaluation_seeds(self) -> Iterator[int]:
        return iter(range(len(self._pairs)))


def open_jsonl(task: str, path: Path, given: Mapping[str, Any]) -> RowSource:
    """The rows of a file of `{"question": …, "answer": …}` lines, UTF-8. Raises `ConfigError` with
    the file and the line for anything else."""
    options.check(task, given, JSONL_OPTIONS)
    metadata = _comparison(task, given)
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConfigError(f"task {task}: {path} is larger than {MAX_FILE_BYTES} bytes")
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"task {task}: cannot read {path}: {error.strerror}") from error
    if not content.strip():
        raise ConfigError(f"task {task}: {path} has no rows; every line must be {_ROW}")
    pairs = []
    for number, line in enumerate(content.removesuffix(b"\n").split(b"\n"), start=1):
        where = f"task {task}: {path} line {number}"
        pairs.append(_checked(where, *_parsed_line(where, line), metadata))
        _check_row_count(task, number)
    identity = {"jsonl": hashlib.sha256(content).hexdigest()}
    return RowSource("jsonl", identity, pairs, metadata)


def open_hub(
    task: str, source: str, given: Mapping[str, Any], load: Loader | None = None
) -> RowSource:
    """The rows of `<data set>@<commit>:<split>`. The options `question` and `answer` name the
    columns, `config` the data set's configuration, `answer_after` the mark after whose last
    occurrence the answer stands. `load` replaces `datasets.load_dataset`.

    Raises `ConfigError` if the data set, its revision or a column cannot be had, or a row is bad.
    """
    options.check(task, given, HUB_OPTIONS)
    metadata = _comparison(task, given)
    match = _HUB.fullmatch(source)
    if match is None:
        raise ConfigError(
            f"task {task}: hf:{source} must be hf:<data set>@<commit>:<split>, the commit with all "
            "its 40 hexadecimal digits (a branch or tag may change under the swarm)"
        )
    dataset = _loaded(task, match, given.get("config"), load or _load_dataset)
    questions = _column(task, dataset, given.get("question", "question"))
    answers = _column(task, dataset, given.get("answer", "answer"))
    pairs = []
    for number, (question, answer) in enumerate(zip(questions, answers, strict=True), start=1):
        where = f"task {task}: hf:{source} row {number}"
        answer = _marked_answer(where, answer, given.get("answer_after", ""))
        pairs.append(_checked(where, question, answer, metadata))
    identity = {"hf": [match["id"], match["revision"], match["split"]]}
    return RowSource(match["id"], identity, pairs, metadata)


def _comparison(task: str, given: Mapping[str, Any]) -> dict[str, Any]:
    metadata = {"compare": given.get("compare", "text")}
    if "tolerance" in given:
        if metadata["compare"] != "decimal" or not _TOLERANCE.fullmatch(given["tolerance"]):
            raise ConfigError(
                f'task {task}: tolerance is a decimal number in quotes, for compare = "decimal"'
            )
        metadata["tolerance"] = given["tolerance"]
    return metadata


def _parsed_line(where: str, line: bytes) -> tuple[Any, Any]:
    if not line.strip():
        raise ConfigError(f"{where} is empty; it must be {_ROW}")
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise ConfigError(f"{where} is not JSON, it must be {_ROW}: {error}") from error
    if type(row) is not dict or set(row) != {"question", "answer"}:
        raise ConfigError(f"{where} must be {_ROW} and nothing more")
    return row["question"], row["answer"]


def _checked(
    where: str, question: Any, answer: Any, metadata: Mapping[str, Any]
) -> tuple[str, str]:
    """The row's strings, the answer stripped; `ConfigError` if it cannot be asked or scored."""
    for name, value, longest in (
        ("question", question, MAX_QUESTION_CHARACTERS),
        ("answer", answer, MAX_ANSWER_CHARACTERS),
    ):
        if type(value) is not str or not value.strip() or len(value) > longest:
            raise ConfigError(f"{where}: {name} must be a string of 1 to {longest} characters")
        if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            raise ConfigError(f"{where}: {name} has half a character (a lone surrogate)")
    answer = answer.strip()
    if not compare.readable(answer, metadata):
        raise ConfigError(
            f"{where}: {answer[:40]!r} is no answer for compare = {metadata['compare']}"
        )
    return question, answer


def _check_row_count(task: str, count: int) -> None:
    if count > MAX_ROWS:
        raise ConfigError(f"task {task}: more than {MAX_ROWS} rows")


def _marked_answer(where: str, answer: Any, mark: str) -> Any:
    if not mark or type(answer) is not str:
        return answer
    if mark not in answer:
        raise ConfigError(f"{where}: its answer does not contain answer_after = {mark!r}")
    return answer.rpartition(mark)[2]


def _loaded(task: str, match: re.Match[str], config: str | None, load: Loader) -> Any:
    name = f"{match['id']}@{match['revision']}:{match['split']}"
    try:
        dataset = load(match["id"], name=config, revision=match["revision"], split=match["split"])
    except ImportError as error:
        raise ConfigError(
            f"task {task}: hf:{name} needs the datasets package: pip install 'swarmnode[datasets]'"
        ) from error
    except (OSError, ValueError, RuntimeError) as error:  # what datasets and its hub client raise
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(
            f"task {task}: cannot load hf:{name} ({type(error).__name__}: {reason}); check the id, "
            "commit and split, and that the hub can be reached or the rows are in its cache"
        ) from error
    if len(dataset) == 0:
        raise ConfigError(f"task {task}: hf:{name} has no rows")
    _check_row_count(task, len(dataset))
    return dataset


def _load_dataset(path: str, **options: Any) -> Any:
    import datasets  # optional, and it imports pandas and pyarrow

    try:
        return datasets.load_dataset(path, **options)
    except datasets.exceptions.DatasetsError as error:  # not all of them are OSErrors
        raise RuntimeError(str(error)) from error


def _column(task: str, dataset: Any, name: str) -> Sequence[Any]:
    if name not in dataset.column_names:
        known = ", ".join(dataset.column_names)
        raise ConfigError(f"task {task}: no column {name!r}; the data set has {known}")
    return list(dataset[name])
