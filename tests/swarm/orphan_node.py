"""A node's main process for a test that kills it: opens a transport, says so, waits for ever."""

import json
import sys
import threading
from pathlib import Path

from transport_parts import address, folder_of, network_process, p2pd_of, real_node

if __name__ == "__main__":
    node = real_node(Path(sys.argv[1]))
    node.open()
    network = network_process(node)
    daemon = p2pd_of(network)
    told = {
        "pids": [network.pid, daemon.pid],
        "port": int(address(node).split("/")[4]),
        "folder": str(folder_of(daemon)),
    }
    print(json.dumps(told), flush=True)  # noqa: T201  read by the test
    threading.Event().wait()
