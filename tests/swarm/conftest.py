"""Fixtures of the tests that run real nodes on both libraries."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from transport_parts import real_node


@pytest.fixture(params=["hivemind", "libp2p"])
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def open_node(tmp_path: Path, backend: str) -> Iterator[Callable[..., Any]]:
    """Opens real nodes by name; closes them after the test."""
    nodes: list[Any] = []

    def make(name: str, *peers: str, **options: Any) -> Any:
        node = real_node(tmp_path / name, *peers, backend=backend, **options)
        nodes.append(node)
        node.open()
        return node

    yield make
    for node in nodes:
        node.close()
