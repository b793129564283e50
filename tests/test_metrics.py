"""What Prometheus sees, scraped over HTTP from the real endpoint."""

import math
import re
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from fakes import round_report

from protocol.errors import Reason
from swarmnode.errors import ConfigError
from swarmnode.metrics import Metrics
from swarmnode.report import Evaluation, Totals
from swarmnode.swarm.transport import QUEUES, FetchProblem

pytestmark = pytest.mark.network

TOTALS = Totals(
    published=8,
    announced=16,
    fetched=7,
    accepted=6,
    refused={"too_old": 1},
    missed={"absent": 2},
    own_groups_trained=3,
    external_groups_trained=1,
    trained_from={"12D3KooWSecret": 1},
    tokens_generated=1000,
    tokens_trained_own=300,
    tokens_trained_external=100,
    bytes_in=5000,
    bytes_out=4000,
    rounds_without_step=1,
    rounds_failed=2,
    scorer_failures=3,
    wall_s=2.0,
)


@pytest.fixture
def metrics() -> Iterator[Metrics]:
    one = Metrics("127.0.0.1", 0)
    yield one
    one.close()


def scrape(url: str) -> dict[str, float]:
    """Sample name with its labels → value, all of them."""
    with urllib.request.urlopen(url) as answer:  # noqa: S310  our own loopback address
        lines = answer.read().decode().splitlines()
    samples = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in samples.items()}


def test_a_round_is_told_in_full(metrics: Metrics, tmp_path: Path) -> None:
    url = metrics.open(swarm="demo", model="tiny", sharing="sapo")
    metrics.watch_disk(tmp_path)
    metrics.record(
        round_report(
            7,
            totals=TOTALS,
            network_restarts=1,
            engine_restarts=3,
            foreign_peers=2,
            network_dropped={"events": 4, "fetch": 0},
        )
    )
    told = scrape(url)
    assert told.pop("swarmnode_disk_free_bytes") > 0
    expected = {
        # gauges: the figures of `fakes.round_report`
        "round": 7,
        "policy_version": 7,
        "own_reward": 0.25,
        "external_reward": 0.5,
        "loss": -0.125,
        "grad_norm": 1.5,
        "kl": 0.001,
        "kl_external": 0.75,
        "mismatch": 0.002,
        "mismatch_kl": 0.0005,
        "own_lag": 1,
        "engine_handover_seconds": 0.25,
        "engine_given_up": 0,
        "entropy": 2.5,
        "clip_fraction": 0.0625,
        "staleness_seconds": 12.5,
        "pool_groups": 5,
        "pool_age_seconds": 7.5,
        "peers": 2,
        "own_groups_with_signal": 3,
        "staleness_rounds": 1.5,
        "effective_ratio": 0.875,
        "foreign_share": 0.5,
        "sharing_gain": 2.25,
        "sharing_gain_error": 0.75,
        "last_round_timestamp_seconds": 1_700_000_000.5,
        # counters
        "rounds_total": 1,
        "rounds_without_step_total": 1,
        "scorer_failures_total": 3,
        "generated_tokens_total": 1000,
        "rollouts_published_total": 8,
        "rollouts_announced_total": 16,
        "rollouts_fetched_total": 7,
        "rollouts_accepted_total": 6,
        "external_groups_trained_total": 1,
        "own_groups_trained_total": 3,
        "engine_restarts_total": 3,
        "network_restarts_total": 1,
        "network_foreign_peers_total": 2,
        "network_bytes_in_total": 5000,
        "network_bytes_out_total": 4000,
        'trained_tokens_total{source="own"}': 300,
        'trained_tokens_total{source="external"}': 100,
        'rollouts_refused_total{reason="too_old"}': 1,
        'rollouts_missed_total{problem="absent"}': 2,
        'network_dropped_total{queue="events"}': 4,
        'network_dropped_total{queue="fetch"}': 0,
        'phase_seconds_total{phase="generate"}': 1.5,
        'phase_seconds_total{phase="train"}': 0.5,
        "round_seconds_total": 2.0,  # all phases and what is between them
        'node_info{model="tiny",sharing="sapo",swarm="demo"}': 1,
        "paused": 0,
        "held_out_accuracy": 0,  # not evaluated yet
        "held_out_constant_baseline": 0,
    }
    assert told == {f"swarmnode_{name}": value for name, value in expected.items()}


def test_totals_become_increments(metrics: Metrics) -> None:
    url = metrics.open()
    earlier = asdict(TOTALS) | {"tokens_generated": 400, "refused": {}, "missed": {"absent": 1}}
    metrics.record(round_report(1, totals=Totals(**earlier)))
    metrics.record(round_report(2, totals=TOTALS))
    told = scrape(url)
    assert told["swarmnode_rounds_total"] == 2
    assert told["swarmnode_generated_tokens_total"] == 1000  # 400 + 600
    assert told["swarmnode_rollouts_published_total"] == 8  # 8 + 0
    assert told['swarmnode_rollouts_refused_total{reason="too_old"}'] == 1
    assert told['swarmnode_rollouts_missed_total{problem="absent"}'] == 2
    assert told['swarmnode_phase_seconds_total{phase="generate"}'] == 3.0  # 1.5 + 1.5
    assert told["swarmnode_round_seconds_total"] == 4.0  # 2 + 2


def test_known_labels_are_told_as_zero_before_the_first_round() -> None:
    metrics = Metrics("127.0.0.1", 0, {"rollouts_refused": list(Reason)})
    told = scrape(metrics.open())
    metrics.close()
    for reason in Reason:
        assert told[f'swarmnode_rollouts_refused_total{{reason="{reason.value}"}}'] == 0


def test_what_happened_before_a_restart_is_not_counted_again(metrics: Metrics) -> None:
    url = metrics.open()
    metrics.resume(TOTALS)
    metrics.record(round_report(8, totals=Totals(**asdict(TOTALS) | {"tokens_generated": 1250})))
    told = scrape(url)
    assert told["swarmnode_generated_tokens_total"] == 250
    assert told["swarmnode_rollouts_published_total"] == 0
    assert told['swarmnode_rollouts_refused_total{reason="too_old"}'] == 0
    assert told["swarmnode_round"] == 8


def test_what_was_not_measured_keeps_its_last_figure(metrics: Metrics) -> None:
    url = metrics.open()
    metrics.record(round_report(1))
    metrics.record(round_report(2, loss=None, external_reward=None, staleness_s=None))
    told = scrape(url)
    assert told["swarmnode_loss"] == -0.125
    assert told["swarmnode_external_reward"] == 0.5
    assert told["swarmnode_staleness_seconds"] == 0  # of no peer's groups


def test_held_out_accuracy_is_by_task_and_mean(metrics: Metrics) -> None:
    url = metrics.open()
    baseline = {"add": 0.125, "mul": 0.0625}
    metrics.record_evaluation(Evaluation(3, 0.0, {"add": 0.5, "mul": 0.25}, baseline))
    told = scrape(url)
    assert told["swarmnode_held_out_accuracy"] == 0.375  # (0.5 + 0.25) / 2
    assert told["swarmnode_held_out_constant_baseline"] == 0.09375  # (0.125 + 0.0625) / 2
    assert told['swarmnode_held_out_task_accuracy{task="add"}'] == 0.5
    assert told['swarmnode_held_out_task_accuracy{task="mul"}'] == 0.25


def test_no_label_names_a_peer_and_every_label_is_of_a_closed_set(metrics: Metrics) -> None:
    url = metrics.open(swarm="demo", model="tiny", sharing="sapo")
    everything = asdict(TOTALS) | {
        "refused": {reason.value: 1 for reason in Reason},
        "missed": {problem.value: 1 for problem in FetchProblem},
    }
    dropped = dict.fromkeys(QUEUES, 1)
    metrics.record(round_report(1, totals=Totals(**everything), network_dropped=dropped))
    told = scrape(url)
    assert not [name for name in told if "12D3" in name]
    labels = {label for name in told for label in re.findall(r'(\w+)="', name)}
    assert labels == {"source", "reason", "problem", "queue", "phase", "model", "sharing", "swarm"}


def test_listens_on_loopback_only_and_on_a_free_port(metrics: Metrics) -> None:
    assert re.fullmatch(r"http://127\.0\.0\.1:[1-9]\d*/metrics", metrics.open())
    assert metrics._scraped._server.server_address[0] == "127.0.0.1"


def test_a_taken_port_is_told_with_a_way_out(metrics: Metrics) -> None:
    port = int(metrics.open().split(":")[2].removesuffix("/metrics"))
    second = Metrics("127.0.0.1", port)
    with pytest.raises(ConfigError, match=f"127.0.0.1:{port} .*--metrics-port, or -1 for none"):
        second.open()
    second.close()
    third = Metrics("not a host", 0)
    with pytest.raises(ConfigError, match="cannot serve metrics on not a host"):
        third.open()


def test_closing_frees_the_port_and_may_be_repeated() -> None:
    first = Metrics("127.0.0.1", 0)
    port = int(first.open().split(":")[2].removesuffix("/metrics"))
    first.close()
    first.close()
    second = Metrics("127.0.0.1", port)
    second.open()
    second.close()


def test_records_without_listening() -> None:
    Metrics("127.0.0.1", -1).record(round_report())


def test_what_peers_give_is_unknown_until_it_is_measured(metrics: Metrics) -> None:
    url = metrics.open(swarm="demo", model="tiny", sharing="hybrid")
    metrics.record(round_report(1, sharing_gain=None, sharing_gain_error=None))
    assert math.isnan(scrape(url)["swarmnode_sharing_gain"])
    metrics.record(round_report(2, sharing_gain=1.5, sharing_gain_error=0.5))
    assert scrape(url)["swarmnode_sharing_gain"] == 1.5


def test_a_failed_round_is_told_at_once_with_its_cause() -> None:
    one = Metrics("127.0.0.1", 0, {"rounds_failed": ["disk", "memory"]})
    try:
        url = one.open(swarm="demo", model="tiny", sharing="sapo")
        one.record_failure("disk")
        told = scrape(url)
        assert told['swarmnode_rounds_failed_total{cause="disk"}'] == 1
        assert told['swarmnode_rounds_failed_total{cause="memory"}'] == 0
        one.record(round_report(7, totals=TOTALS))  # whose totals hold failures, too
        assert scrape(url)['swarmnode_rounds_failed_total{cause="disk"}'] == 1
    finally:
        one.close()


def test_free_disk_is_that_of_the_run(metrics: Metrics, tmp_path: Path) -> None:
    url = metrics.open(swarm="demo", model="tiny", sharing="sapo")
    metrics.watch_disk(tmp_path)
    assert 0 < scrape(url)["swarmnode_disk_free_bytes"] < 1e16
    metrics.watch_disk(tmp_path / "absent")
    assert math.isnan(scrape(url)["swarmnode_disk_free_bytes"])
