"""The compose file: hardened services, commands that the program knows, a bootstrap to join."""

from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from swarmnode.cli import app

DOCKER = Path(__file__).parents[1] / "docker"
FILE: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = FILE["services"]
OURS = ("bootstrap", "first", "second", "gpu")


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_hardened_and_limited(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert {"mem_limit", "pids_limit", "restart", "logging"} <= service.keys()
    assert service.get("network_mode") != "host"
    assert "privileged" not in service
    named = {volume.split(":")[0] for volume in service.get("volumes", ())}
    assert all(one.startswith("./") or one in FILE["volumes"] for one in named)


@pytest.mark.parametrize("name", OURS)
def test_commands_are_the_programs(name: str) -> None:
    command = SERVICES[name]["command"]
    known = typer.main.get_command(app).commands[command[0]]  # type: ignore[attr-defined]  # a group
    options = {text for option in known.params for text in option.opts}
    given = [word for word in command if word.startswith("--")]
    assert set(given) <= options
    if command[0] == "join":
        assert "cat /address/bootstrap" in " ".join(SERVICES[name]["entrypoint"])
        assert "bootstrap" in SERVICES[name]["depends_on"]


def test_prometheus_watches_the_nodes_and_only_the_loopback_shows_what_has_no_password() -> None:
    (targets,) = yaml.safe_load((DOCKER / "prometheus" / "targets" / "nodes.yml").read_text())
    assert targets["targets"] == ["first:9464", "second:9464"]
    for name, service in SERVICES.items():
        for port in service.get("ports", ()):
            assert name == "bootstrap" or port.startswith("127.0.0.1:"), (name, port)
    assert FILE["networks"]["metrics"]["internal"] is True
    assert SERVICES["gpu"]["profiles"] == ["gpu"]


def test_base_image_is_pinned_by_digest() -> None:
    lines = (DOCKER / "Dockerfile").read_text().splitlines()
    (base,) = [line for line in lines if line.startswith("ARG BASE_IMAGE=")]
    digest = base.partition("@sha256:")[2]
    assert len(digest) == 64
    assert [line for line in lines if line.startswith("FROM ")] == [
        "FROM ${BASE_IMAGE} AS build",
        "FROM ${BASE_IMAGE} AS runtime",
        "FROM runtime AS gpu",
        "FROM runtime AS cpu",
    ]
