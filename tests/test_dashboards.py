"""The shipped Prometheus rules and Grafana dashboards, with real nodes and a real Prometheus.

Three nodes are started by the command line and scraped by the Debian package `prometheus` (promtool
comes with it); without it the tests that need it are skipped, and say so.
"""

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from swarmnode import metrics

ROOT = Path(__file__).parents[1]
PROMETHEUS = ROOT / "docker" / "prometheus"
DASHBOARDS = sorted((ROOT / "docker" / "grafana" / "dashboards").glob("*.json"))
NODES = 3
# What Grafana puts in for its own variables; the rate's window is four of the test's scrapes.
VARIABLES = {
    "$__rate_interval": "8s",
    "$__interval": "2s",
    "$swarm": ".*",
    "$model": ".*",
}
GIVE_UP_S = 300.0  # on a busy machine a node takes half a minute to its first rounds

needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None or shutil.which("promtool") is None,
    reason="needs prometheus and promtool in PATH (Debian: apt install prometheus)",
)


class Query(NamedTuple):
    """One query of one panel."""

    board: str
    panel: str
    expression: str

    def __str__(self) -> str:
        return f"{self.board}: {self.panel}: {self.expression}"


def queries() -> list[Query]:
    return [
        Query(file.stem, panel["title"], target["expr"])
        for file in DASHBOARDS
        for panel in json.loads(file.read_text())["panels"]
        for target in panel.get("targets", ())
    ]


class Server:
    """A running Prometheus, asked over its HTTP interface."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/api/v1"

    def get(self, path: str, **parameters: str) -> Any:
        url = f"{self._url}/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url) as answer:  # noqa: S310  our own loopback address
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:  # the body says what is wrong with the query
            raise AssertionError(error.read().decode()) from error

    def ask(self, expression: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get("query", query=expression)["result"]
        return found

    def is_up(self) -> bool:
        """Whether it answers queries: while it starts it says 503."""
        ready = self._url.replace("/api/v1", "/-/ready")
        try:
            with urllib.request.urlopen(ready):  # noqa: S310  our own loopback address
                return True
        except urllib.error.URLError:
            return False

    def firing(self) -> set[tuple[str, str]]:
        return {
            (alert["labels"]["alertname"], alert["labels"].get("instance", ""))
            for alert in self.get("alerts")["alerts"]
            if alert["state"] == "firing"
        }


class Watched(NamedTuple):
    """Nodes (by their metrics address) and the Prometheus that watches them."""

    nodes: dict[str, subprocess.Popen[bytes]]
    server: Server


def until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + GIVE_UP_S
    while not holds():
        assert time.monotonic() < deadline, f"after {GIVE_UP_S:.0f} s: {what}"
        time.sleep(0.5)


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def start_nodes(folder: Path) -> dict[str, subprocess.Popen[bytes]]:
    ports = free_ports(2 * NODES)
    nodes, known = {}, []
    for number in range(NODES):
        port, metrics_port = ports[2 * number : 2 * number + 2]
        run = folder / f"node-{number}"
        keys = [sys.executable, "-m", "swarmnode", "keys", "new", "--json"]
        printed = subprocess.check_output([*keys, "--key", str(run / "identity.key")])
        address = f"/ip4/127.0.0.1/tcp/{port}/p2p/{json.loads(printed)['peer_id']}"
        command = [sys.executable, "-m", "swarmnode", "join", "--model", "demo", "--run", str(run)]
        command += ["--host", "127.0.0.1", "--port", str(port), "--threads", "1"]
        command += ["--metrics-port", str(metrics_port), "--min-round-s", "1", "--rounds", "1000"]
        command += known
        known = known or ["--peer", address]
        with (folder / f"node-{number}.log").open("wb") as log:
            nodes[f"127.0.0.1:{metrics_port}"] = subprocess.Popen(command, stderr=log)
    return nodes


def render(folder: Path, nodes: list[str]) -> None:
    """The shipped configuration, told of `nodes` and made quick: a scrape a second, alerts at
    once."""
    shutil.copytree(PROMETHEUS, folder)
    (folder / "targets" / "nodes.yml").write_text(yaml.safe_dump([{"targets": nodes}]))
    configuration = yaml.safe_load((folder / "prometheus.yml").read_text())
    configuration["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    rules = (folder / "rules.yml").read_text()
    (folder / "rules.yml").write_text(re.sub(r"\bfor: \d+m\b", "for: 2s", rules))


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("watched")
    processes = []
    try:
        nodes = start_nodes(folder)
        processes += nodes.values()
        render(folder / "prometheus", list(nodes))
        (port,) = free_ports(1)
        command = ["prometheus", f"--config.file={folder / 'prometheus' / 'prometheus.yml'}"]
        command += [f"--storage.tsdb.path={folder / 'data'}"]
        command += [f"--web.listen-address=127.0.0.1:{port}"]
        with (folder / "prometheus.log").open("wb") as log:
            processes.append(subprocess.Popen(command, stderr=log))
        server = Server(port)
        until(server.is_up, (folder / "prometheus.log").read_text())
        everyone_learns = f"count(rate(swarmnode_external_groups_trained_total[8s]) > 0) == {NODES}"
        until(lambda: bool(server.ask(everyone_learns)), "no node trains on a peer's rollouts")
        yield Watched(nodes, server)
    finally:
        for process in processes:
            process.send_signal(signal.SIGKILL)
        for process in processes:
            process.wait()


def filled_in(expression: str, instance: str) -> str:
    for name, value in {**VARIABLES, "$instance": instance}.items():
        expression = expression.replace(name, value)
    assert "$" not in expression, f"the test knows no value for a variable in {expression}"
    return expression


@pytest.mark.slow
@pytest.mark.network
@needs_prometheus
def test_every_panel_shows_something(watched: Watched) -> None:
    silent = [(query, instance) for query in queries() for instance in watched.nodes]

    def speaks(query: Query, instance: str) -> bool:
        expression = filled_in(query.expression, instance)
        if "sharing_gain" in expression:  # a node may not know it for long: NaN says so
            return bool(watched.server.ask(expression.replace(" > -Inf", "")))
        return any(sample["value"][1] != "NaN" for sample in watched.server.ask(expression))

    def all_speak() -> bool:
        """Those that have shown something are not asked again: rules and rates take their time."""
        silent[:] = [pair for pair in silent if not speaks(*pair)]
        return not silent

    deadline = time.monotonic() + GIVE_UP_S
    while not all_speak() and time.monotonic() < deadline:
        time.sleep(0.5)
    assert not silent, "\n".join(f"{query} ({instance})" for query, instance in silent)


@pytest.mark.slow
@pytest.mark.network
@needs_prometheus
def test_the_nodes_table_has_a_row_per_node_and_every_column(watched: Watched) -> None:
    columns = [query for query in queries() if (query.board, query.panel) == ("swarm", "Nodes")]
    assert len(columns) == 7
    for query in columns:
        found = watched.server.ask(filled_in(query.expression, ""))
        rows = {row["metric"].pop("instance"): row["metric"] for row in found}
        # Equal labels in every column: Grafana merges the columns by them.
        same = {"job": "swarmnode", "model": "demo", "swarm": "demo"}
        assert rows == dict.fromkeys(watched.nodes, same), query


@pytest.mark.slow
@pytest.mark.network
@needs_prometheus
def test_a_killed_node_is_reported_and_the_others_are_not(watched: Watched) -> None:
    victim, *others = watched.nodes
    down = ("SwarmnodeDown", victim)
    assert down not in watched.server.firing()
    watched.nodes[victim].send_signal(signal.SIGKILL)
    until(lambda: down in watched.server.firing(), "nobody noticed that the node was killed")
    for other in others:
        assert ("SwarmnodeDown", other) not in watched.server.firing()
    stat = next(query for query in queries() if query.panel == "Nodes that do not")
    (sample,) = watched.server.ask(filled_in(stat.expression, ""))
    assert sample["value"][1] == "1"


@needs_prometheus
def test_rules_pass_their_unit_tests() -> None:
    for command in (["check", "config", "prometheus.yml"], ["test", "rules", "rules.test.yml"]):
        done = subprocess.run(
            ["promtool", *command], cwd=PROMETHEUS, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_and_recording_has_a_unit_test() -> None:
    groups = yaml.safe_load((PROMETHEUS / "rules.yml").read_text())["groups"]
    tests = (PROMETHEUS / "rules.test.yml").read_text()
    for rule in (rule for group in groups for rule in group["rules"]):
        if "alert" in rule:
            assert f'alertname="{rule["alert"]}"' in tests, rule["alert"]
            assert set(rule["annotations"]) == {"summary", "description"}


def test_the_rules_and_panels_know_only_metrics_that_exist() -> None:
    """A misspelt name gives no error in PromQL, only silence."""
    known = {f"swarmnode_{name}" for name in metrics._GAUGES}
    known |= {f"swarmnode_{name}_total" for name in (*metrics._COUNTERS, *metrics._LABELLED)}
    known |= {"swarmnode_held_out_task_accuracy", "swarmnode_node_info"}
    groups = yaml.safe_load((PROMETHEUS / "rules.yml").read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    known |= {rule["record"] for rule in rules if "record" in rule}
    for expression in [*(rule["expr"] for rule in rules), *(q.expression for q in queries())]:
        used = set(re.findall(r"\bswarmnode[_:][a-z0-9_:]+", expression))
        assert used <= known, expression


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_a_dashboard_is_laid_out_and_names_the_provisioned_source(file: Path) -> None:
    provisioning = ROOT / "docker" / "grafana" / "provisioning" / "datasources" / "prometheus.yml"
    (source,) = yaml.safe_load(provisioning.read_text())["datasources"]
    board = json.loads(file.read_text())
    cells: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        taken = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not taken & cells, panel["title"]
        cells |= taken
        for target in panel.get("targets", ()):
            assert target["datasource"]["uid"] == source["uid"]
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    for variable in board["templating"]["list"]:
        assert variable["datasource"]["uid"] == source["uid"]


def test_both_dashboards_are_there_and_link_to_each_other() -> None:
    boards = {board["uid"]: board for board in (json.loads(f.read_text()) for f in DASHBOARDS)}
    assert set(boards) == {"swarmnode-node", "swarmnode-swarm"}
    assert boards["swarmnode-node"]["links"][0]["url"] == "/d/swarmnode-swarm"
    assert boards["swarmnode-swarm"]["links"][0]["url"] == "/d/swarmnode-node"
