"""A node's main process for a test that kills it: opens a transport, says so, waits for ever."""

import json
import sys
import threading
from pathlib import Path

from transport_parts import address, folder_of, network_process, real_node

if __name__ == "__main__":
    node = real_node(Path(sys.argv[1]), backend=sys.argv[2])
    node.open()
    network = network_process(node)
    told = {
        "pids": [network.pid, *(child.pid for child in network.children())],
        "port": int(address(node).split("/")[4]),
        "folders": [str(folder_of(child)) for child in network.children()],
    }
    print(json.dumps(told), flush=True)  # noqa: T201  read by the test
    threading.Event().wait()
