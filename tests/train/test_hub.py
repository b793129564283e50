"""What is done when the hub does not answer, against a server of our own."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from swarmnode.errors import SwarmNodeError
from swarmnode.train.hub import must_use_cache

pytestmark = pytest.mark.network
COMMIT = "0" * 39 + "1"


@contextmanager
def hub(status: int) -> Iterator[tuple[str, list[str]]]:
    """A hub that gives every question the same status; its address and the paths asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", '"e"')
            self.send_header("Content-Length", "2")
            self.end_headers()

        def log_message(self, *what: object) -> None:
            """Silent."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address at which nothing listens, kept from being given away."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{one.getsockname()[1]}"


def cached(folder: Path, name: str) -> Path:
    """A cache that holds the configuration of `name`, as huggingface_hub lays it out."""
    model = folder / f"models--{name.replace('/', '--')}"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text(COMMIT)
    (model / "snapshots" / COMMIT).mkdir(parents=True)
    (model / "snapshots" / COMMIT / "config.json").write_text("{}")
    return folder


@pytest.mark.parametrize("status", [200, 401, 403, 404, 429])
def test_hub_that_answers_is_left_to_the_loaders(tmp_path: Path, status: int) -> None:
    with hub(status) as (endpoint, asked):
        assert must_use_cache("a/b", None, endpoint, tmp_path) is False
    assert asked == ["/a/b/resolve/main/config.json"]


def test_silent_hub_is_told_in_one_line_at_once(
    nobody: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(SwarmNodeError) as caught:
        must_use_cache("a/b", "main", nobody, tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    for part in ("'a/b'", nobody, "refused", "did not answer", "folder", "HF_HUB_OFFLINE"):
        assert part in message
    assert caplog.records == []


def test_broken_hub_is_asked_once(tmp_path: Path) -> None:
    with hub(503) as (endpoint, asked), pytest.raises(SwarmNodeError, match="status 503"):
        must_use_cache("a/b", None, endpoint, tmp_path)
    assert len(asked) == 1


def test_model_in_the_cache_needs_no_hub(
    nobody: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = cached(tmp_path, "a/b")
    assert must_use_cache("a/b", None, nobody, cache) is True
    assert "from the cache" in caplog.text
    with pytest.raises(SwarmNodeError):
        must_use_cache("a/b", "another-revision", nobody, cache)


def test_what_is_no_name_of_a_model_is_left_to_the_loaders(nobody: str, tmp_path: Path) -> None:
    assert must_use_cache("no such/model/here", None, nobody, tmp_path) is False
