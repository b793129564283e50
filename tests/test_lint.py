"""No evaluation of text, no pickle, no weights that are programs: held by reading the source."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(
    path for package in ("protocol", "swarmnode") for path in (ROOT / package).rglob("*.py")
)
CALLS = {"eval", "exec", "compile", "sympify", "parse_expr", "__import__"}
MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def offences(source: str) -> list[str]:
    found = []
    tree = ast.parse(source)
    switches = {id(node.func) for node in ast.walk(tree) if _is_switch(node)}  # type: ignore[attr-defined]
    for node in ast.walk(tree):
        if id(node) in switches:
            continue
        names = _imported(node)
        if any(name.partition(".")[0] in MODULES or name in CALLS for name in names):
            found.append(f"line {node.lineno}: imports {', '.join(names)}")  # type: ignore[attr-defined]
        if isinstance(node, ast.Name) and node.id in CALLS:
            found.append(f"line {node.lineno}: {node.id}")
        if isinstance(node, ast.Attribute) and node.attr in CALLS and not _is_harmless(node):
            found.append(f"line {node.lineno}: .{node.attr}")
        if isinstance(node, ast.Call):
            found.extend(_loading(node))
    return found


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [node.module or "", *(alias.name for alias in node.names)]
    return []


def _is_harmless(node: ast.Attribute) -> bool:
    """`re.compile` and `torch.compile` evaluate no text."""
    value = node.value
    return node.attr == "compile" and isinstance(value, ast.Name) and value.id in ("re", "torch")


def _is_switch(node: ast.AST) -> bool:
    """`model.eval()`, without arguments, switches dropout off."""
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "eval"
        and not (node.args or node.keywords)
    )


def _loading(call: ast.Call) -> list[str]:
    name = ast.unparse(call.func)
    keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    found = []
    if (
        name in ("torch.load", "load_state_dict_from_url")
        and keywords.get("weights_only") != "True"
    ):
        found.append(f"line {call.lineno}: {name} without weights_only=True")
    if keywords.get("allow_pickle", "False") != "False":
        found.append(f"line {call.lineno}: allow_pickle")
    if keywords.get("trust_remote_code", "False") != "False":
        found.append(f"line {call.lineno}: trust_remote_code")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_source_evaluates_nothing(path: Path) -> None:
    assert offences(path.read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "eval('1')",
        "exec('1')",
        "f = eval",
        "compile('1', '', 'eval')",
        "builtins.eval('1')",
        "f = builtins.eval",
        "__import__('os')",
        "import pickle",
        "import pickle as p",
        "from pickle import loads",
        "import cloudpickle.fast",
        "from sympy import sympify",
        "sympy.sympify('1')",
        "from sympy.parsing.sympy_parser import parse_expr",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "numpy.load(path, allow_pickle=True)",
        "Model.from_pretrained(name, trust_remote_code=True)",
        "Model.from_pretrained(name, trust_remote_code=flag)",
    ],
)
def test_lint_finds(source: str) -> None:
    assert offences(source) != []


@pytest.mark.parametrize(
    "source",
    [
        "re.compile('a')",
        "model.eval()",
        "self.policy.model.eval()",
        "torch.load(path, weights_only=True)",
        "Model.from_pretrained(name, trust_remote_code=False)",
        "def evaluate(text): ...",
        "import json",
    ],
)
def test_lint_allows(source: str) -> None:
    assert offences(source) == []
