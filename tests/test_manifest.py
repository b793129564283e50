"""What makes two nodes members of one swarm, and what a manifest file may say."""

from pathlib import Path

import pytest

from protocol.limits import MAX_SWARM_NAME_BYTES
from protocol.names import task_digest
from swarmnode import manifest
from swarmnode.errors import ConfigError
from swarmnode.manifest import Manifest
from swarmnode.tasks.taskset import TaskSet, TaskSpec

ROWS = '{"question": "1 + 1?", "answer": "2"}\n{"question": "1 + 2?", "answer": "3"}\n'
TASK = '[[tasks]]\nname = "{name}"\nsource = "jsonl:{file}"\n'


def written(folder: Path, text: str, name: str = "swarm.toml") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


def swarm(
    folder: Path, *lines: str, tasks: str = TASK.format(name="sums", file="rows.jsonl")
) -> str:
    """The path of a manifest whose rows are beside it; `lines` go on top."""
    written(folder, ROWS, "rows.jsonl")
    head = [] if any(line.startswith("name") for line in lines) else ['name = "mine"']
    return str(written(folder, "\n".join([*head, *lines, tasks])))


def id_of(path: str) -> bytes:
    loaded = manifest.load(path)
    specs = [TaskSpec(task.name, task.source, task.options) for task in loaded.tasks]
    tasks = TaskSet(specs, loaded.held_out_ratio, loaded.answer_format, task_digest)
    tasks.open()
    return loaded.swarm_id({name: tasks.digest(name) for name in tasks.names})


def refusal(path: str) -> str:
    with pytest.raises(ConfigError) as caught:
        manifest.load(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_built_in_manifests_are_valid() -> None:
    assert set(manifest.built_in_names()) >= {"demo"}
    for name in manifest.built_in_names():
        assert manifest.load(name).name == name


def test_what_is_dumped_loads_to_the_same(tmp_path: Path) -> None:
    for name in manifest.built_in_names():
        loaded = manifest.load(name)
        assert manifest.load(str(written(tmp_path, manifest.dump(loaded)))) == loaded


def test_a_moved_and_renamed_manifest_is_the_same_swarm(tmp_path: Path) -> None:
    first = swarm(tmp_path / "a")
    renamed = TASK.format(name="sums", file="data/other.jsonl")
    written(tmp_path / "b" / "data", ROWS, "other.jsonl")
    second = str(written(tmp_path / "b", f'name = "mine"\n{renamed}', "other.toml"))
    assert id_of(first) == id_of(second)
    assert len(id_of(first)) == 32


def test_weights_and_the_order_of_tasks_do_not_matter(tmp_path: Path) -> None:
    one, two = (TASK.format(name=name, file="rows.jsonl") for name in ("sums", "more"))
    first = swarm(tmp_path / "a", tasks=one + two)
    assert id_of(first) == id_of(swarm(tmp_path / "b", tasks=two + one))
    assert id_of(first) == id_of(swarm(tmp_path / "c", tasks=one + "weight = 3.0\n" + two))


@pytest.mark.parametrize(
    "change",
    [
        {"lines": ['name = "other"']},
        {"lines": ['answer_format = "whole"']},
        {"lines": ["held_out_ratio = 0.2"]},
        {"lines": ["audience = 6"]},  # who hears whom: nodes must agree on the topics
        {"tasks": TASK.format(name="other", file="rows.jsonl")},
        {"tasks": TASK.format(name="sums", file="rows.jsonl") + 'options = {compare = "integer"}'},
        {"tasks": "".join(TASK.format(name=n, file="rows.jsonl") for n in ("sums", "more"))},
    ],
)
def test_what_changes_questions_or_scores_changes_the_swarm(
    tmp_path: Path, change: dict[str, str | list[str]]
) -> None:
    lines, tasks = change.get("lines", []), change.get("tasks")
    assert isinstance(lines, list)
    changed = swarm(tmp_path / "b", *lines, **({"tasks": str(tasks)} if tasks else {}))
    assert id_of(swarm(tmp_path / "a")) != id_of(changed)


def test_the_usual_audience_may_be_left_out(tmp_path: Path) -> None:
    assert id_of(swarm(tmp_path / "a")) == id_of(swarm(tmp_path / "b", "audience = 100"))


def test_other_rows_are_another_swarm(tmp_path: Path) -> None:
    first, second = swarm(tmp_path / "a"), swarm(tmp_path / "b")
    written(tmp_path / "b", ROWS.replace("3", "4"), "rows.jsonl")
    assert id_of(first) != id_of(second)


def test_files_are_found_beside_the_manifest(tmp_path: Path) -> None:
    (task,) = manifest.load(swarm(tmp_path)).tasks
    assert task.source == f"jsonl:{tmp_path / 'rows.jsonl'}"
    absolute = swarm(tmp_path, tasks=TASK.format(name="sums", file="/data/rows.jsonl"))
    assert manifest.load(absolute).tasks[0].source == "jsonl:/data/rows.jsonl"
    gym = swarm(tmp_path, tasks='[[tasks]]\nname = "a"\nsource = "reasoning_gym:lcm"\n')
    assert manifest.load(gym).tasks[0].source == "reasoning_gym:lcm"


@pytest.mark.parametrize(
    "name",
    ["Upper", "two words", "", "umläut", "line\\n", "-dash", "a" * (MAX_SWARM_NAME_BYTES + 1)],
)
def test_names_are_short_printable_ascii(tmp_path: Path, name: str) -> None:
    assert "`$.name`" in refusal(swarm(tmp_path, f'name = "{name}"'))
    task = TASK.format(name=name, file="rows.jsonl")
    assert "name" in refusal(swarm(tmp_path, tasks=task))


def test_a_name_may_be_as_long_as_a_greeting_holds(tmp_path: Path) -> None:
    name = "a" * MAX_SWARM_NAME_BYTES
    assert manifest.load(swarm(tmp_path, f'name = "{name}"')).name == name


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("held_out_ratio = 0.0", "held_out_ratio"),
        ("held_out_ratio = nan", "held_out_ratio"),
        ('answer_format = "json"', "answer_format"),
        ("speed = 3", "speed"),
    ],
)
def test_names_the_file_and_the_wrong_key(tmp_path: Path, line: str, said: str) -> None:
    path = swarm(tmp_path, line)
    assert said in refusal(path)
    assert path in refusal(path)


@pytest.mark.parametrize("weight", ["0", "-1", "nan", "inf", '"a"'])
def test_weights_are_positive_numbers(tmp_path: Path, weight: str) -> None:
    task = TASK.format(name="sums", file="rows.jsonl") + f"weight = {weight}\n"
    assert "weight" in refusal(swarm(tmp_path, tasks=task))


def test_a_swarm_has_tasks_with_distinct_names(tmp_path: Path) -> None:
    assert "tasks" in refusal(swarm(tmp_path, tasks=""))
    assert "tasks" in refusal(swarm(tmp_path, "tasks = []", tasks=""))
    twice = TASK.format(name="sums", file="rows.jsonl") * 2
    assert "two tasks have the same name" in refusal(swarm(tmp_path, tasks=twice))


def test_an_unknown_swarm_lists_the_known_ones(tmp_path: Path) -> None:
    assert "demo" in refusal("no-such-swarm")
    assert "demo" in refusal(str(tmp_path))  # a folder


def test_what_is_no_toml_is_named(tmp_path: Path) -> None:
    path = tmp_path / "swarm.toml"
    for content in (b"name = ", b"name = '\xff'"):
        path.write_bytes(content)
        assert str(path) in refusal(str(path))


def test_the_id_is_made_of_names_and_digests_alone() -> None:
    tasks = (manifest.Task("a", "reasoning_gym:lcm"), manifest.Task("b", "reasoning_gym:gcd"))
    first = Manifest("mine", tasks).swarm_id({"a": b"aaaa", "b": b"bbbb"})
    moved = (manifest.Task("a", "jsonl:/x"), manifest.Task("b", "jsonl:/y"))
    assert first == Manifest("mine", moved).swarm_id({"a": b"aaaa", "b": b"bbbb"})
    assert first != Manifest("mine", tasks).swarm_id({"a": b"bbbb", "b": b"aaaa"})
