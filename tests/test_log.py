"""What is logged where, and that a stranger's text is one harmless line."""

import doctest
import io
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarmnode import log


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("swarmnode")
    handlers, levels = list(root.handlers), (root.level, ours.level)
    root.handlers.clear()
    yield
    for handler in root.handlers:
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    ours.setLevel(levels[1])


def test_our_events_go_to_file_and_console(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "node.log"
    log.setup(path)
    logging.getLogger("swarmnode.node").info("start round=%d", 3)
    assert path.read_text().endswith(" INFO swarmnode.node start round=3\n")
    assert capsys.readouterr().err == path.read_text()


def test_other_libraries_are_heard_from_warning_on(tmp_path: Path) -> None:
    path = tmp_path / "node.log"
    log.setup(path, io.StringIO())
    logging.getLogger("swarmnode.node").debug("no")
    logging.getLogger("other").info("no")
    logging.getLogger("other").warning("heard")
    assert path.read_text().endswith("WARNING other heard\n")
    assert path.read_text().count("\n") == 1


def test_the_latest_setup_holds_and_appends(tmp_path: Path) -> None:
    first, second = tmp_path / "first.log", tmp_path / "second.log"
    for path in (first, second, second):
        log.setup(path, io.StringIO())
        logging.getLogger("swarmnode").info("here")
    assert first.read_text().count("here") == 1
    assert second.read_text().count("here") == 2


@pytest.mark.parametrize("text", ["a\nb", "\x1b[2J", "a\u202eb", "\x00", "’", "\U0001f4a3", "\r"])
def test_a_strangers_text_is_one_line_of_printable_ascii(text: str) -> None:
    shown = log.quoted(text)
    assert shown.isascii()
    assert shown.isprintable()


def test_a_long_text_is_cut() -> None:
    assert log.quoted("a" * 80) == "'" + "a" * 80 + "'"
    assert log.quoted("a" * 81) == "'" + "a" * 80 + "'…"


def test_the_examples_in_the_documentation_hold() -> None:
    assert doctest.testmod(log) == (0, 1)
