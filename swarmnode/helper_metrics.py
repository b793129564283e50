"""The Prometheus metrics of a node that trains nothing: peers, traffic, why it is alone, memory.

Names and meanings are those of `metrics.py`, so that one dashboard shows both kinds of node.
"""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Info,
    ProcessCollector,
    disable_created_metrics,
)

from swarmnode.scraped import Scraped
from swarmnode.swarm.alone import Alone
from swarmnode.swarm.transport import TransportStatus

_COUNTERS = {
    "network_restarts": "Times the network process was restarted.",
    "network_foreign_peers": "Peers of another swarm or protocol version that greeted this node.",
    "network_bytes_in": "Payload bytes received.",
    "network_bytes_out": "Payload bytes sent.",
}


class HelperMetrics:
    """The exporter. `open` listens, `record` takes the network's state, `close` stops listening."""

    def __init__(self, host: str, port: int) -> None:
        self._registry = CollectorRegistry()
        self._scraped = Scraped(self._registry, host, port)
        # As in `metrics.py`.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no annotations
        self._peers = Gauge("swarmnode_peers", "Peers connected.", registry=self._registry)
        self._alone = Gauge(
            "swarmnode_alone", "1 for why this node is alone.", ["because"], registry=self._registry
        )
        self._counters = {
            name: Counter(f"swarmnode_{name}", text, registry=self._registry)
            for name, text in _COUNTERS.items()
        }
        self._info = Info("swarmnode_node", "What this node runs.", registry=self._registry)
        self._seen = dict.fromkeys(_COUNTERS, 0)
        ProcessCollector(registry=self._registry)

    def open(self, **info: str) -> str:
        """Listens; returns the address. Raises `ConfigError` when the port is taken."""
        self._info.info(info)
        return self._scraped.open()

    def record(self, status: TransportStatus) -> None:
        """Takes over the network's state."""
        self._peers.set(len(status.peers))
        for reason in Alone:
            self._alone.labels(reason).set(status.alone == reason)
        new = {
            "network_restarts": status.restarts,
            "network_foreign_peers": status.foreign_peers,
            "network_bytes_in": status.bytes_in,
            "network_bytes_out": status.bytes_out,
        }
        for name, count in new.items():
            self._counters[name].inc(count - self._seen[name])
        self._seen = new

    def close(self) -> None:
        """Stops listening. May be called twice."""
        self._scraped.close()
