"""The address at which Prometheus scrapes what a registry holds."""

from typing import Any

from prometheus_client import CollectorRegistry, start_http_server

from swarmnode.errors import ConfigError


class Scraped:
    """Serves `registry` over HTTP at `host` and `port`; port 0 is any free one."""

    def __init__(self, registry: CollectorRegistry, host: str, port: int) -> None:
        self._registry = registry
        self._host = host
        self._port = port
        self._server: Any = None
        self._thread: Any = None

    def open(self) -> str:
        """Listens; returns the address. Raises `ConfigError` when the port is taken."""
        try:
            self._server, self._thread = start_http_server(
                self._port, self._host, registry=self._registry
            )
        except OSError as error:
            raise ConfigError(
                f"cannot serve metrics on {self._host}:{self._port} ({error.strerror}): "
                "choose another port with --metrics-port, or -1 for none"
            ) from error
        return f"http://{self._host}:{self._server.server_port}/metrics"

    def close(self) -> None:
        """Stops listening. May be called twice."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self._server = None
