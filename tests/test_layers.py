"""Who may import whom: the table of the design, held by reading the source, and what is loaded."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(
    path for package in ("protocol", "swarmnode") for path in (ROOT / package).rglob("*.py")
)


class Layer(NamedTuple):
    """What a layer may import, by first words: our own modules, other packages, and either of
    those inside functions only. The standard library is everyone's."""

    ours: str = ""
    others: str = ""
    lazily: str = ""


RECORDS = "swarmnode.errors swarmnode.rollout"
TORCH = "torch transformers tokenizers safetensors huggingface_hub peft torchao vllm jinja2"
SWARM = f"swarmnode.swarm protocol swarmnode.config {RECORDS}"
LIBP2P = "libp2p trio anyio multiaddr google.protobuf"
# The longest name that fits a module counts. `tasks`, `generate`, `train` and `swarm` do not know
# one another; they meet in the modules of the third block.
LAYERS = {
    "protocol": Layer("protocol", "msgspec nacl zstandard"),
    "swarmnode.errors": Layer(),
    "swarmnode.log": Layer(),
    "swarmnode.rollout": Layer(),
    "swarmnode.report": Layer(),
    "swarmnode.gain": Layer(),
    "swarmnode.breadth": Layer("swarmnode.rollout"),
    "swarmnode.stopping": Layer(""),
    "swarmnode.terminal": Layer("", "rich"),
    "swarmnode.unknown_fields": Layer("", "msgspec"),
    "swarmnode.config": Layer("protocol swarmnode.errors swarmnode.unknown_fields", "msgspec"),
    "swarmnode.manifest": Layer("protocol swarmnode.errors swarmnode.unknown_fields", "msgspec"),
    "swarmnode.identity": Layer("protocol swarmnode.errors", "nacl"),
    "swarmnode.scraped": Layer("swarmnode.errors", "prometheus_client"),
    "swarmnode.metrics": Layer("swarmnode.report swarmnode.scraped", "prometheus_client"),
    "swarmnode.rows": Layer(),
    "swarmnode.deadline": Layer("swarmnode.errors"),
    "swarmnode.life": Layer(),
    "swarmnode.run_directory": Layer("swarmnode.errors swarmnode.life swarmnode.rows"),
    "swarmnode.tracking": Layer(
        "swarmnode.errors swarmnode.report swarmnode.rows swarmnode.run_directory",
        "",
        "torch wandb swarmnode.identity",
    ),
    "swarmnode.run_words": Layer("swarmnode.life swarmnode.run_view"),
    "swarmnode.run_view": Layer("swarmnode.errors swarmnode.life swarmnode.rows"),
    "swarmnode.pages": Layer(
        "swarmnode.errors swarmnode.pages swarmnode.rows swarmnode.run_view",
        "msgspec rich",
        "matplotlib",
    ),
    "swarmnode.helper_metrics": Layer(
        "swarmnode.scraped swarmnode.swarm.alone swarmnode.swarm.transport", "prometheus_client"
    ),
    "swarmnode.networking": Layer(f"{SWARM} swarmnode.identity swarmnode.run_directory", "msgspec"),
    "swarmnode.plots": Layer("swarmnode.errors swarmnode.run_directory", "", "matplotlib"),
    "swarmnode.summary": Layer(
        "swarmnode.errors swarmnode.identity swarmnode.report swarmnode.run_directory"
    ),
    #
    "swarmnode.tasks": Layer(f"swarmnode.tasks {RECORDS}", "", "datasets"),
    "swarmnode.tasks.gym": Layer(f"swarmnode.tasks {RECORDS}", "reasoning_gym"),
    "swarmnode.swarm": Layer(SWARM, "msgspec anyio"),
    "swarmnode.swarm.p2pd": Layer(SWARM, "hivemind anyio"),
    "swarmnode.swarm.p2pd_control": Layer(SWARM, "hivemind google.protobuf"),
    "swarmnode.swarm.libp2p_trio": Layer(SWARM, LIBP2P),
    "swarmnode.swarm.libp2p_host": Layer(SWARM, LIBP2P),
    "swarmnode.swarm.libp2p_streams": Layer(SWARM, LIBP2P),
    "swarmnode.swarm.libp2p_tcp": Layer(SWARM, LIBP2P),
    "swarmnode.swarm.libp2p_gossip": Layer(SWARM, LIBP2P),
    "swarmnode.swarm.libp2p_providers": Layer(SWARM, LIBP2P),
    "swarmnode.generate": Layer(f"swarmnode.generate swarmnode.config {RECORDS}", TORCH),
    "swarmnode.train.footprint": Layer("swarmnode.config", "msgspec"),
    "swarmnode.train": Layer(f"swarmnode.train swarmnode.config {RECORDS}", TORCH),
    #
    "swarmnode.defending": Layer(
        f"{RECORDS} swarmnode.config swarmnode.swarm.novelty swarmnode.tasks"
    ),
    "swarmnode.probing": Layer("swarmnode.rollout swarmnode.swarm.novelty"),
    "swarmnode.rolling_back": Layer(
        f"{RECORDS} swarmnode.config swarmnode.probing swarmnode.train swarmnode.assembly"
    ),
    "swarmnode.ahead": Layer("swarmnode.rollout"),
    "swarmnode.generation": Layer(
        "swarmnode.config swarmnode.generate swarmnode.train.policy", "torch transformers"
    ),
    "swarmnode.samples": Layer(f"{RECORDS} swarmnode.train"),
    "swarmnode.evaluation": Layer(f"{RECORDS} swarmnode.report swarmnode.generate swarmnode.tasks"),
    "swarmnode.questions": Layer(
        "protocol swarmnode.errors swarmnode.manifest swarmnode.tasks", ""
    ),
    "swarmnode.assembly": Layer("swarmnode protocol", "torch"),
    "swarmnode.reporting": Layer("swarmnode protocol"),
    "swarmnode.failures": Layer("swarmnode.errors", "torch safetensors"),
    "swarmnode.resuming": Layer("swarmnode"),
    "swarmnode.node": Layer("swarmnode protocol", "torch"),
    # The commands: quick to import, so that wrong use is told at once.
    "swarmnode.cli": Layer(
        "swarmnode.errors swarmnode.commands", "typer rich", "swarmnode protocol"
    ),
    "swarmnode.commands": Layer("swarmnode.commands", "typer rich", "swarmnode protocol"),
    "swarmnode.__main__": Layer("swarmnode.cli"),
}
COMMAND = Layer(
    "protocol swarmnode.config swarmnode.deadline swarmnode.doctor swarmnode.errors "
    "swarmnode.helper_metrics swarmnode.identity swarmnode.joining swarmnode.life swarmnode.log "
    "swarmnode.manifest swarmnode.networking swarmnode.report swarmnode.rows "
    "swarmnode.run_directory swarmnode.run_view swarmnode.run_words swarmnode.summary "
    "swarmnode.swarm.lifetime swarmnode.swarm.private swarmnode.swarm.transport "
    "swarmnode.terminal swarmnode.tracking",
    "rich msgspec",
    "swarmnode",
)
COMMANDS = (
    "joining", "bootstrapping", "demo", "evaluating", "inspection", "status", "pausing",
)  # fmt: skip
# These look at models and their hub themselves.
WITH_MODELS = COMMAND._replace(lazily="swarmnode torch huggingface_hub")
COMMANDS_WITH_MODELS = ("doctor", "exporting")


def violations(module: str, source: str) -> list[str]:
    """What `module` imports and may not."""
    layer = layer_of(module)
    if layer is None:
        return [f"{module} is in no layer"]
    found = []
    for imported, is_lazy in imports(ast.parse(source)):
        allowed = f"{layer.ours} {layer.others} {layer.lazily if is_lazy else ''}".split()
        if imported.partition(".")[0] in sys.stdlib_module_names:
            continue
        if not any(imported == name or imported.startswith(f"{name}.") for name in allowed):
            found.append(f"{module} imports {imported}")
    return found


def layer_of(module: str) -> Layer | None:
    table = LAYERS | {f"swarmnode.{name}": COMMAND for name in COMMANDS}
    table |= {f"swarmnode.{name}": WITH_MODELS for name in COMMANDS_WITH_MODELS}
    name = module
    while name and name not in table:
        name = name.rpartition(".")[0]
    return table.get(name)


def imports(node: ast.AST, is_lazy: bool = False) -> Iterator[tuple[str, bool]]:
    """Each imported module and whether that happens inside a function."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from ((alias.name, is_lazy) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            start = "." * child.level + (child.module or "")
            yield from ((resolved(start, alias.name), is_lazy) for alias in child.names)
        is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from imports(child, is_lazy or is_function)


def resolved(start: str, name: str) -> str:
    """`from a import b` imports the module a.b where there is one, else a."""
    path = ROOT.joinpath(*start.split("."), name)
    is_module = path.with_suffix(".py").exists() or (path / "__init__.py").exists()
    return f"{start}.{name}" if is_module else start


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_module_imports_only_what_its_layer_may(path: Path) -> None:
    if path == ROOT / "swarmnode" / "__init__.py":
        assert list(imports(ast.parse(path.read_text()))) == []
        return
    assert violations(module_of(path), path.read_text()) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("protocol.codec", "from swarmnode.errors import ConfigError"),
        ("protocol.codec", "import torch"),
        ("protocol.codec", "def f():\n    import torch"),
        ("swarmnode.rollout", "import msgspec"),
        ("swarmnode.tasks.rows", "import datasets"),
        ("swarmnode.tasks.rows", "from protocol.names import task_digest"),
        ("swarmnode.tasks.rows", "from swarmnode.train import loss"),
        ("swarmnode.train.loss", "from swarmnode.tasks.scorer import Scorer"),
        ("swarmnode.train.loss", "def f():\n    from swarmnode import tasks"),
        ("swarmnode.generate.hf", "from swarmnode.train.policy import Policy"),
        ("swarmnode.swarm.exchange", "import hivemind"),
        ("swarmnode.swarm.network", "import libp2p"),
        ("swarmnode.swarm.libp2p_trio", "import hivemind"),
        ("swarmnode.swarm.exchange", "from swarmnode.generate.encode import TextCodec"),
        ("swarmnode.swarm.exchange", "import torch.nn"),
        ("swarmnode.metrics", "from swarmnode.node import Node"),
        ("swarmnode.cli", "from swarmnode import joining"),
        ("swarmnode.joining", "from swarmnode.node import Node"),
        ("swarmnode.joining", "if True:\n    import swarmnode.node"),
        ("swarmnode.new", ""),
        ("swarmnode.swarm.pool", "from . import exchange"),
    ],
)
def test_finds_an_import_across_layers(module: str, source: str) -> None:
    assert violations(module, source) != []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("protocol.codec", "import hashlib, msgspec\nfrom protocol.errors import Reason"),
        ("swarmnode.tasks.rows", "def f():\n    import datasets"),
        ("swarmnode.cli", "def f():\n    from swarmnode import joining"),
        ("swarmnode.joining", "def f():\n    from swarmnode.node import Node"),
        ("swarmnode.swarm.p2pd", "import hivemind.p2p"),
        ("swarmnode.node", "from swarmnode.swarm import sampling"),
    ],
)
def test_lets_through_what_the_layer_may_import(module: str, source: str) -> None:
    assert violations(module, source) == []


def loaded_with(*modules: str) -> set[str]:
    """The top-level packages in a new interpreter after these imports."""
    program = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    command = [sys.executable, "-c", program, *modules]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())


def modules_under(*names: str) -> list[str]:
    found = [module_of(path) for path in FILES]
    return [module for module in found if any(f"{module}.".startswith(f"{n}.") for n in names)]


def test_protocol_loads_no_more_than_its_three_packages() -> None:
    loaded = loaded_with(*modules_under("protocol"))
    assert {"msgspec", "nacl", "zstandard"} <= loaded
    assert not loaded & {"torch", "transformers", "hivemind", "swarmnode", "rich", "google"}


def test_the_command_line_loads_no_torch() -> None:
    loaded = loaded_with("swarmnode.cli")
    assert not loaded & {"torch", "transformers", "numpy", "hivemind", "reasoning_gym", "msgspec"}


@pytest.mark.slow
def test_commands_tasks_and_swarm_load_no_torch() -> None:
    commands = [
        f"swarmnode.{name}"
        for name in ("joining", "bootstrapping", "demo", "evaluating", "inspection")
    ]
    loaded = loaded_with(*commands, *modules_under("swarmnode.tasks", "swarmnode.swarm"))
    assert "reasoning_gym" in loaded
    assert not loaded & {"torch", "transformers", "hivemind", "datasets"}


def test_the_loading_of_torch_would_be_seen() -> None:
    assert "decimal" in loaded_with("fractions")
