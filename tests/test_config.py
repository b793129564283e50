"""Settings: what overlays what, and that every mistake is told in one line."""

from pathlib import Path
from typing import Any

import pytest

from swarmnode import config
from swarmnode.config import Settings
from swarmnode.errors import ConfigError


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "settings.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def refusal(path: Path | None = None, **flags: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        config.load(path, flags)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("settings", [Settings(), config.preset("demo"), config.preset("a/b")])
def test_what_is_dumped_loads_to_the_same(settings: Settings, tmp_path: Path) -> None:
    assert config.load(written(tmp_path, config.dump(settings)), {}) == settings


def test_everything_changed_is_dumped(tmp_path: Path) -> None:
    flags = {
        "": {"swarm": "reasoning"},
        "model": {"name": "a/b", "revision": "main", "label": "b"},
        "network": {"peers": ("/ip4/10.0.0.1/tcp/1/p2p/x", "/dns4/y/tcp/2/p2p/z")},
        "sharing": {"max_age_s": float("inf")},
    }
    settings = config.load(None, flags)
    assert settings.network.peers == flags["network"]["peers"]
    assert config.load(written(tmp_path, config.dump(settings)), {}) == settings


def test_only_the_demo_model_has_a_preset() -> None:
    assert config.preset("Qwen/Qwen2.5-0.5B-Instruct") == Settings()
    assert config.preset("demo") != Settings()


def test_flags_win_over_the_file_and_the_file_over_the_preset(tmp_path: Path) -> None:
    preset = {"train": {"lr": 1e-3}, "generate": {"max_new_tokens": 8}, "run": {"threads": 3}}
    base = config.load(None, preset)
    path = written(tmp_path, "[train]\nlr = 0.5\n[generate]\nmax_new_tokens = 16\n")
    settings = config.load(path, {"train": {"lr": 0.25}}, base)
    assert settings.train.lr == 0.25
    assert settings.generate.max_new_tokens == 16
    assert settings.run.threads == 3
    assert settings.train.clip_low == 0.2  # nobody's: the default


def test_a_flag_that_is_none_was_not_given(tmp_path: Path) -> None:
    path = written(tmp_path, 'swarm = "reasoning"\n[train]\nlr = 0.5\n')
    settings = config.load(path, {"": {"swarm": None}, "train": {"lr": None}, "run": {}})
    assert (settings.swarm, settings.train.lr) == ("reasoning", 0.5)


def test_whole_numbers_may_be_given_for_fractions(tmp_path: Path) -> None:
    assert config.load(written(tmp_path, "[train]\nlr = 1\n"), {}).train.lr == 1.0


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[train]\nlearning_rate = 1e-3\n", "`learning_rate` - at `train`"),
        ("[training]\nlr = 1e-3\n", "`training`"),
        ('[train]\nlr = "fast"\n', "`train.lr` must be a number > 0, not 'fast'"),
        ("[train]\nlr = 0\n", "`train.lr` must be a number > 0, not 0"),
        ("[train]\nlr = nan\n", "`train.lr` must be a number > 0, not nan"),
        ("[train]\nbeta1 = 1.0\n", "`train.beta1` must be a number ≥ 0 and < 1, not 1.0"),
        ("[run]\nrounds = -1\n", "`run.rounds` must be a whole number ≥ 0, not -1"),
        ("[run]\nrounds = true\n", "`run.rounds` must be a whole number ≥ 0, not True"),
        ("[run]\nrounds = 1.5\n", "`run.rounds` must be a whole number ≥ 0, not 1.5"),
        (
            "[generate]\ncompletions = 1\n",
            "`generate.completions` must be a whole number ≥ 2 and ≤ 64, not 1",
        ),
        ('[sharing]\nrule = "none"\n', "not 'none'"),
        ("[network]\nport = 65536\n", "must be a whole number ≥ 0 and ≤ 65535, not 65536"),
        ('[network]\npeers = "one"\n', "`network.peers`"),
        ("[network]\npeers = [1]\n", "`network.peers[0]`"),
        ("model = 3\n", "`model`"),
        ('[model]\nlabel = "seventeen letters"\n', "`model.label` must be at most 16 printable"),
        ('[model]\nlabel = "two\\nlines"\n', "ASCII characters, not 'two\\nlines'"),
        ('[model]\nlabel = "end\\n"\n', "`model.label` must be"),
        ("[model]\nname = 3\n", "`model.name` must be text, not 3"),
        ("[model]\nrevision = 3\n", "`model.revision` must be text, not 3"),
        ('[model]\ndevice = "gpu"\n', "must be auto, cpu, cuda or cuda:<number>, not 'gpu'"),
        ('[model]\ndtype = "int8"\n', "must be one of auto, bfloat16, float32, not 'int8'"),
    ],
)
def test_names_the_file_the_key_and_what_was_given(tmp_path: Path, text: str, key: str) -> None:
    path = written(tmp_path, text)
    message = refusal(path)
    assert message.startswith(f"{path}: ")
    assert key in message


def test_a_wrong_flag_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, "[train]\nlr = 1e-3\n")
    message = refusal(path, train={"lr": -1.0})
    assert str(path) not in message
    assert message == "--lr must be a number > 0, not -1.0"


@pytest.mark.parametrize(
    ("section", "key", "value", "flag"),
    [
        ("sharing", "rule", "magic", "--sharing must be one of "),
        ("metrics", "port", 70_000, "--metrics-port must be a whole number ≥ -1 and ≤ 65535, not"),
        ("generate", "max_new_tokens", 0, "--max-new-tokens must be a whole number ≥ 1"),
        ("model", "device", "gpu", "--device must be auto, cpu, cuda or cuda:<number>, not 'gpu'"),
        ("model", "device", "cuda:", "--device must be auto"),
        ("model", "label", "€", "--label must be at most 16 printable ASCII characters, not '€'"),
    ],
)
def test_names_the_flag_as_it_was_typed(section: str, key: str, value: Any, flag: str) -> None:
    message = refusal(None, **{section: {key: value}})
    assert message.startswith(flag)
    assert f"{section}.{key}" not in message


def test_allowed_words_are_listed() -> None:
    message = refusal(None, sharing={"rule": "magic"})
    assert "sapo" in message
    assert "off" in message


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:1", "cuda:15"])
def test_takes_every_device_that_torch_has(device: str) -> None:
    assert config.load(None, {"model": {"device": device}}).model.device == device


def test_every_flag_is_named_as_the_command_line_spells_it() -> None:
    """The names are made from the keys, so that each must be an option of `join`."""
    from typer.main import get_command

    from swarmnode import cli

    (options,) = [
        {name for option in command.params for name in option.opts}
        for name, command in get_command(cli.app).commands.items()  # type: ignore[attr-defined]
        if name == "join"
    ]
    given = {
        "model": ("name", "revision", "label", "device"),
        "generate": ("questions", "completions", "max_new_tokens"),
        "sharing": ("rule", "external"),
        "train": ("lr",),
        "network": ("host", "port", "peers"),
        "run": ("rounds", "seed", "threads", "checkpoint_every", "evaluate_every"),
        "metrics": ("port",),
    }
    named = {config.flag(f"{section}.{key}") for section in given for key in given[section]}
    assert named <= options
    assert len(named) == sum(map(len, given.values()))


def test_a_flag_does_not_hide_a_mistake_in_the_file(tmp_path: Path) -> None:
    assert "`model`" in refusal(written(tmp_path, "model = 3\n"), model={"name": "demo"})


@pytest.mark.parametrize("content", ["[train\n", b"a = '\xff'\n", "a = 1\na = 2\n"])
def test_what_is_no_toml_is_named(tmp_path: Path, content: str | bytes) -> None:
    path = written(tmp_path, content)
    assert f"{path} is not valid TOML" in refusal(path)


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "absent.toml")
    assert str(tmp_path) in refusal(tmp_path)  # a folder
