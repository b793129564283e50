"""Mutation testing of what decides about strangers: each small change to it must fail a test.

    python tests/mutation/mutation.py                     all modules, an hour of a core
    python tests/mutation/mutation.py admission           one of them
    python tests/mutation/mutation.py codec --list        the mutants that survive, as lines

A mutant is the module with one comparison, operator, constant, branch, argument order or statement
changed. It is killed when a test of the module fails on it. Mutants that mean the same as the
module are named in `equivalent.json`, each with its reason, and are not counted.

Own and small instead of a library: the module's source is changed in memory and its tests run in a
forked process that has everything else loaded, which makes a mutant cost the tests and no more.
"""

import argparse
import ast
import copy
import importlib
import importlib.abc
import importlib.machinery
import io
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EQUIVALENT = Path(__file__).parent / "equivalent.json"
TARGET = 0.90
# Processor seconds after which a mutant has hung, and so was noticed: so many, and so many times
# those of the module as it is.
LIMIT_S, LIMIT_TIMES = 10.0, 5.0
# Asserts are not rewritten: that costs more than the tests, and only their outcome counts. Tests
# that try hundreds of examples are left out: they would only kill more.
_SLOW = "not (any_ or hostile or changed or random or sealed_messages)"
_OPTIONS = (*("-x", "-q", "-p", "no:cacheprovider", "--assert=plain", "-W", "ignore", "-k", _SLOW),)


@dataclass(frozen=True)
class Validator:
    """A module and the tests that must notice its mutants, the quickest first."""

    module: str
    tests: tuple[str, ...]

    @property
    def path(self) -> Path:
        return ROOT.joinpath(*self.module.split(".")).with_suffix(".py")


_QUICK = "tests/mutation/test_validators.py"
VALIDATORS = {
    "admission": Validator(
        "swarmnode.swarm.admission",
        (_QUICK, "tests/swarm/test_admission.py"),
    ),
    "codec": Validator(
        "protocol.codec",
        (
            _QUICK,
            "tests/protocol/test_codec.py",
            "tests/protocol/test_vectors.py",
        ),
    ),
    "envelope": Validator(
        "protocol.envelope",
        (
            _QUICK,
            "tests/protocol/test_envelope.py",
            "tests/protocol/test_vectors.py",
        ),
    ),
    "quota": Validator("swarmnode.swarm.quota", (_QUICK, "tests/swarm/test_quota.py")),
}


@dataclass(frozen=True)
class Mutant:
    """A change: where, what it is, and the module's new source tree."""

    line: int
    what: str
    tree: ast.Module

    @property
    def name(self) -> str:
        return f"{self.line}: {self.what}"


def mutants(source: str) -> Iterator[Mutant]:
    """Every mutant of a module, in its order."""
    tree = ast.parse(source)
    nodes = [(index, node) for index, node in enumerate(ast.walk(tree)) if _counts(node)]
    skipped = _not_code(tree)
    for index, node in nodes:
        if id(node) in skipped:
            continue
        for what, change in _changes(node):
            mutated = copy.deepcopy(tree)
            target = next(n for i, n in enumerate(ast.walk(mutated)) if i == index)
            change(target)
            yield Mutant(getattr(node, "lineno", 0), what, ast.fix_missing_locations(mutated))


def _counts(node: ast.AST) -> bool:
    return hasattr(node, "lineno")


def _not_code(tree: ast.Module) -> set[int]:  # noqa: C901  a list of what is left out
    """Docstrings, annotations, imports, messages: nothing that a test should notice."""
    found: set[int] = set()
    for node in ast.walk(tree):
        parts: list[ast.AST | None] = []
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            parts += node.decorator_list  # how records are kept decides nothing
        if isinstance(node, ast.FunctionDef):
            parts += [node.returns, *(a.annotation for a in node.args.args)]
            parts += [a.annotation for a in node.args.kwonlyargs]
        if isinstance(node, ast.AnnAssign):
            parts.append(node.annotation)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            parts.append(node)
        if isinstance(node, ast.JoinedStr):
            parts.append(node)
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            parts += node.exc.args[1:] if len(node.exc.args) > 1 else node.exc.args
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("TypeVar", "field"):
            parts.append(node)
        if isinstance(node, ast.Assert):
            parts.append(node)
        for part in filter(None, parts):
            found.update(id(inner) for inner in ast.walk(part))
    return found


_COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
}


def _changes(  # noqa: C901  one branch for each kind of node, none of them long
    node: ast.AST,
) -> list[tuple[str, Callable[[ast.AST], None]]]:
    """(what it is, what does it to a copy of the node)."""
    found: list[tuple[str, Callable[..., None]]] = []
    if isinstance(node, ast.Compare):
        for at, operator in enumerate(node.ops):
            for other in _COMPARISONS.get(type(operator), ()):
                found.append(
                    (
                        f"{type(operator).__name__} → {other.__name__}",
                        lambda n, at=at, other=other: n.ops.__setitem__(at, other()),
                    )
                )
    elif isinstance(node, ast.BoolOp):
        other_op = ast.Or if isinstance(node.op, ast.And) else ast.And
        found.append(
            (
                f"{type(node.op).__name__} → {other_op.__name__}",
                lambda n: setattr(n, "op", other_op()),
            )
        )
        for at in range(len(node.values)):
            found.append((f"without operand {at}", lambda n, at=at: n.values.pop(at)))
    elif isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        replaced = _OPERATORS[type(node.op)]
        found.append(
            (
                f"{type(node.op).__name__} → {replaced.__name__}",
                lambda n: setattr(n, "op", replaced()),
            )
        )
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        found.append(("without not", lambda n: setattr(n, "op", ast.UAdd()) or _truth(n)))
    elif isinstance(node, ast.Constant):
        found += _constants(node)
    elif isinstance(node, ast.If | ast.IfExp | ast.While):
        found.append(("condition true", lambda n: setattr(n, "test", ast.Constant(True))))
        found.append(("condition false", lambda n: setattr(n, "test", ast.Constant(False))))
    elif isinstance(node, ast.Return) and node.value is not None:
        if not (isinstance(node.value, ast.Constant) and node.value.value is None):
            found.append(("return None", lambda n: setattr(n, "value", ast.Constant(None))))
    elif isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "Reason":
        other_reason = "OWN" if node.attr != "OWN" else "TOO_OLD"
        found.append((f"{node.attr} → {other_reason}", lambda n: setattr(n, "attr", other_reason)))
    elif isinstance(node, ast.Raise):
        found.append(("pass in place of raise", _to_pass))
    elif isinstance(node, ast.Assign | ast.AugAssign) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    ):
        found += _statements(node)
    return found


def _statements(node: ast.AST) -> list[tuple[str, Callable[..., None]]]:
    if isinstance(node, ast.Expr):
        return [("call left out", lambda n: setattr(n, "value", ast.Constant(None)))]
    if isinstance(node, ast.AugAssign):
        other = ast.Sub if isinstance(node.op, ast.Add) else ast.Add
        return [(f"{other.__name__} in place", lambda n: setattr(n, "op", other()))]
    return []


def _constants(node: ast.Constant) -> list[tuple[str, Callable[..., None]]]:
    value = node.value
    if type(value) is bool:
        return [(f"{value} → {not value}", lambda n: setattr(n, "value", not value))]
    if type(value) in (int, float):
        return [(f"{value} → {value + 1}", lambda n: setattr(n, "value", value + 1))]
    if type(value) is str and value:
        return [(f"{value!r} changed", lambda n: setattr(n, "value", value + "x"))]
    if type(value) is bytes:
        return [(f"{value!r} changed", lambda n: setattr(n, "value", value + b"x"))]
    return []


def _truth(node: ast.UnaryOp) -> None:
    """`not x` to `not not x`: the truth of x."""
    node.op = ast.Not()
    node.operand = ast.UnaryOp(ast.Not(), node.operand)


def _to_pass(node: ast.Raise) -> None:
    """A raise that raises nothing: `raise` cannot become `pass` in place, so it is caught at once
    by never being reached."""
    node.__class__ = ast.Expr  # type: ignore[assignment]
    node.value = ast.Constant(None)  # type: ignore[attr-defined]
    node._fields = ("value",)


class Replaced(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from a tree in the place of its file."""

    def __init__(self, module: str, path: Path, tree: ast.Module) -> None:
        self._module, self._path, self._tree = module, path, tree

    def find_spec(self, name, path, target=None):  # type: ignore[no-untyped-def]
        if name != self._module:
            return None
        return importlib.machinery.ModuleSpec(name, self, origin=str(self._path))

    def create_module(self, spec):  # type: ignore[no-untyped-def]
        return None

    def exec_module(self, module) -> None:  # type: ignore[no-untyped-def]
        module.__file__ = str(self._path)
        exec(compile(self._tree, str(self._path), "exec"), module.__dict__)  # noqa: S102


def survives(
    validator: Validator, tree: ast.Module, tests: Sequence[str], limit_s: float = 600.0
) -> bool:
    """Whether the tests pass with the module made from `tree`, in a forked process."""
    child = os.fork()
    if child == 0:
        status = 3
        try:
            signal.setitimer(signal.ITIMER_PROF, limit_s)
            os.environ["CI"] = "1"  # the same examples for each mutant
            sys.meta_path.insert(0, Replaced(validator.module, validator.path, tree))
            quiet = io.StringIO()
            with redirect_stdout(quiet), redirect_stderr(quiet):
                # One file after the other: most mutants die in the first, before the others are
                # even collected.
                status = next(filter(None, (int(pytest.main([*_OPTIONS, t])) for t in tests)), 0)
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) == 0


def preload() -> None:
    """What the tests need besides this project's own modules, which each process loads anew."""
    for name in (
        "hypothesis",
        "msgpack",
        "msgspec",
        "nacl.signing",
        "zstandard",
        "yaml",
        "hashlib",
    ):
        importlib.import_module(name)
    loaded = [name for name in sys.modules if name.partition(".")[0] in ("protocol", "swarmnode")]
    assert not loaded, loaded


@dataclass(frozen=True)
class Score:
    """Of one module: mutants that count, those killed, and the names of the others."""

    module: str
    mutants: int
    killed: int
    survivors: tuple[str, ...]
    seconds: float

    @property
    def ratio(self) -> float:
        return self.killed / self.mutants if self.mutants else 0.0


def score(name: str, part: str = "0/1", say: Callable[[str], None] = lambda text: None) -> Score:
    """Tries the mutants of a validator, or each n-th of them from the k-th for part k/n."""
    validator = VALIDATORS[name]
    started = time.monotonic()
    source = validator.path.read_text()
    known = json.loads(EQUIVALENT.read_text()).get(name, {})
    tests = [test for test in validator.tests if (ROOT / test).exists()]
    before_s = _children_s()
    if not survives(validator, ast.parse(source), tests):
        raise SystemExit(f"the tests of {name} fail on the module as it is")
    limit_s = LIMIT_S + LIMIT_TIMES * (_children_s() - before_s)
    lines = source.splitlines()
    chosen = [
        one for one in mutants(source) if f"{lines[one.line - 1].strip()} | {one.what}" not in known
    ]
    start, step = map(int, part.split("/"))
    chosen = chosen[start::step]
    survivors = []
    for one in chosen:
        if survives(validator, one.tree, tests, limit_s):
            survivors.append(f"{lines[one.line - 1].strip()} | {one.what}")
            say(f"survives {name}:{one.line} {survivors[-1]}")
    count = len(chosen)
    return Score(name, count, count - len(survivors), tuple(survivors), time.monotonic() - started)


def _children_s() -> float:
    """Processor seconds of all processes so far that were forked and ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("modules", nargs="*", help=", ".join(VALIDATORS))
    parser.add_argument("--part", default="0/1", help="only each n-th mutant from the k-th: k/n")
    given = parser.parse_args()
    preload()
    os.chdir(ROOT)
    missed = 0
    for name in given.modules or VALIDATORS:
        if not VALIDATORS[name].path.exists():
            print(f"{name}: there is no such module")
            missed += 1
            continue
        found = score(name, given.part, lambda text: print(text, flush=True))
        print(
            f"{name}: {found.killed} of {found.mutants} mutants killed, {found.ratio:.1%}, "
            f"{found.seconds:.0f} s",
            flush=True,
        )
        missed += found.ratio < TARGET
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
