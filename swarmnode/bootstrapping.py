"""What `swarmnode bootstrap` does: a node that trains nothing and helps the others to meet.

It is an address that stays, a member that gossips and knows whom to ask, and for nodes behind NAT a
relay. It loads no model and no torch; the swarm's id is computed by a process that ends again.
"""

import json
import logging
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console

from swarmnode import config, log, networking
from swarmnode.config import Settings
from swarmnode.errors import ConfigError
from swarmnode.helper_metrics import HelperMetrics
from swarmnode.identity import load_or_create
from swarmnode.run_directory import RunDirectory
from swarmnode.swarm.private import membership
from swarmnode.swarm.transport import Transport, TransportStatus

logger = logging.getLogger(__name__)

DEFAULT_PORT = 4001  # as libp2p's own: addresses that are handed out must not change
_LOOK_S = 1.0  # between looks at the network
_SAY_S = 60.0  # between lines of the log while nothing changes
_COMPUTE_S = 600.0  # for a swarm's id; a data set may have to be loaded for it

# Tasks are opened to know their digests, which loads what a bootstrap does not need.
_COMPUTE = """
import sys
root = sys.argv[1]
if root not in sys.path:
    sys.path.insert(0, root)
from swarmnode import manifest, questions
from swarmnode.errors import SwarmNodeError
try:
    swarm = manifest.load(sys.argv[2])
    print(swarm.name, questions.swarm_id(swarm, questions.open_tasks(swarm)).hex())
except SwarmNodeError as error:
    sys.exit(str(error))
"""


def run(
    swarm: str,
    flags: dict[str, dict[str, Any]],
    directory: Path,
    *,
    as_json: bool,
) -> int:
    """Runs a bootstrap until a signal stops it; returns the exit code."""
    settings = config.load(None, flags)
    if settings.network.backend == "off":
        raise ConfigError("a bootstrap without a network helps nobody: leave --network off out")
    networking.check(settings.network, "--peer")
    place = RunDirectory(directory)
    place.open()
    try:
        log.setup(place.log)
        return _serve(swarm, settings, place, as_json=as_json)
    finally:
        place.close()


def _serve(swarm: str, settings: Settings, place: RunDirectory, *, as_json: bool) -> int:
    stop = _Stop()  # before anything runs that it would have to end
    identity = load_or_create(place.identity)
    name, manifest_id = _identified(swarm)
    swarm_id = membership(settings.network.swarm_key, manifest_id)
    network = networking.make_transport(
        settings.network, name, place, identity, swarm_id, "bootstrap"
    )
    metrics = HelperMetrics(settings.metrics.host, settings.metrics.port)
    try:
        network.open()
        url = metrics.open(swarm=name) if settings.metrics.port >= 0 else ""
        status = network.status()
        place.write(networking.ADDRESSES, "".join(f"{a}\n" for a in status.addresses))
        metrics.record(status)
        _tell(status, name, url, as_json=as_json)
        return _look_after(network, metrics, stop)
    finally:
        metrics.close()
        network.close()


class _Stop:
    """Takes the signals that end a bootstrap; `number` is the first that came."""

    def __init__(self) -> None:
        self.number = 0
        self._came = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._take)

    def wait(self, timeout_s: float) -> bool:
        """Whether one came, at the latest after so long."""
        return self._came.wait(timeout_s)

    def _take(self, number: int, frame: FrameType | None) -> None:
        self.number = self.number or number
        self._came.set()


def _look_after(network: Transport, metrics: HelperMetrics, stop: _Stop) -> int:
    said, silent_s = "", 0.0
    while not stop.wait(_LOOK_S):
        network.poll()  # what it gossips is not for it
        status = network.status()
        metrics.record(status)
        silent_s += _LOOK_S
        # The state counts seconds down while it dials: the word says what changed.
        now = f"{status.alone} {len(status.peers)}"
        if now != said or silent_s >= _SAY_S:
            said, silent_s = now, 0.0
            logger.info("peers=%d restarts=%d state=%r", len(status.peers), status.restarts,
                        status.state)  # fmt: skip
    logger.info("stop signal=%d", stop.number)
    return 130 if stop.number == signal.SIGINT else 0


def _identified(swarm: str) -> tuple[str, bytes]:
    """(name, id) of the swarm of this manifest, computed in another process."""
    root = str(Path(__file__).parents[1])
    command = [sys.executable, "-P", "-c", _COMPUTE, root, swarm]
    try:
        done = subprocess.run(  # noqa: S603  our own program
            command, capture_output=True, text=True, timeout=_COMPUTE_S, check=True
        )
    except subprocess.TimeoutExpired as error:
        raise ConfigError(
            f"the tasks of swarm {swarm!r} do not load in {_COMPUTE_S:.0f} s"
        ) from error
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines() or ["no reason given"]
        raise ConfigError(lines[-1]) from error
    name, _, id = done.stdout.strip().rpartition(" ")
    return name, bytes.fromhex(id)


def _tell(status: TransportStatus, swarm: str, url: str, *, as_json: bool) -> None:
    """Says where this node is, the address most worth handing out first."""
    addresses = sorted(status.addresses, key=lambda a: ("/127.0.0.1/" in a, "/tcp/" not in a))
    if as_json:
        told = {"peer_id": status.peer_id, "swarm": swarm, "addresses": addresses, "metrics": url}
        print(json.dumps(told), flush=True)  # noqa: T201  the command's answer
    else:
        console = Console()
        for address in addresses:
            console.print(address, highlight=False, soft_wrap=True, markup=False)
        sys.stdout.flush()
    if url:
        logger.info("metrics url=%s", url)
    if addresses:
        logger.info("others join with: swarmnode join --peer %s", addresses[0])
