"""Which library runs the network: hivemind's Go daemon where it runs, else py-libp2p."""

import logging
from collections.abc import Callable

from swarmnode.errors import ConfigError
from swarmnode.swarm import hivemind_p2pd

# What its user should know before waiting for peers that cannot come.
_LIBP2P_NAT = "behind a NAT it dials out only (no relay, no hole punching): forward the port"

log = logging.getLogger(__name__)


def choose(setting: str, why_not_hivemind: Callable[[], str] = hivemind_p2pd.why_not) -> str:
    """ "hivemind" or "libp2p" for the setting `network.backend`, other than "off"; logs which.

    Raises `ConfigError` for hivemind on a machine that cannot run it.
    """
    if setting == "libp2p":
        log.info("network backend=libp2p nat=%r", _LIBP2P_NAT)
        return "libp2p"
    problem = why_not_hivemind()
    if not problem:
        log.info("network backend=hivemind")
        return "hivemind"
    if setting == "hivemind":
        raise ConfigError(f"{problem}: choose --network libp2p or --network auto")
    log.info("network backend=libp2p because=%r nat=%r", problem, _LIBP2P_NAT)
    return "libp2p"
