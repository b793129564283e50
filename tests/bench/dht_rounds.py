"""A node of the incumbent's pattern: it stores under one key a round, and reads all of it.

Each is a process of its own, forked from one that has imported hivemind, and is driven over a pipe.
"""

import multiprocessing
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import hivemind
from hivemind.utils.timed_storage import get_dht_time

_EXPIRES_S = 600.0
# A rollout an entry. A value above some 16 KiB ends hivemind's process: its pipe does not block.
_ENTRY_BYTES = 5000


class DHTNode:
    """The near end of one node; `ask` returns at once, `answer` waits."""

    def __init__(self, number: int, bootstrap: str | None) -> None:
        fork = multiprocessing.get_context("fork")
        self._pipe, theirs = fork.Pipe()
        self._process = fork.Process(target=_serve, args=(theirs, f"node {number}", bootstrap))
        self._process.start()
        self.address: str = self.answer()

    def ask(self, what: str, key: str, value: bytes) -> None:
        self._pipe.send((what, key, value))

    def answer(self) -> Any:
        return self._pipe.recv()

    def close(self) -> None:
        with suppress(OSError):  # it has died
            self._pipe.send(("close", "", b""))
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _serve(pipe: Connection, name: str, bootstrap: str | None) -> None:
    dht = hivemind.DHT(
        host_maddrs=["/ip4/127.0.0.1/tcp/0"],
        initial_peers=[bootstrap] if bootstrap else None,
        use_ipfs=False,
        start=True,
    )
    pipe.send(str(dht.get_visible_maddrs()[0]))
    while True:
        what, key, value = pipe.recv()
        if what == "close":
            dht.shutdown()
            return
        if what == "store":
            until = get_dht_time() + _EXPIRES_S
            parts = [value[at : at + _ENTRY_BYTES] for at in range(0, len(value), _ENTRY_BYTES)]
            stored = [
                dht.store(key, subkey=f"{name} {number}", value=part, expiration_time=until)
                for number, part in enumerate(parts)
            ]
            pipe.send(all(stored))
            continue
        began = time.monotonic()
        found = dht.get(key, latest=True)
        entries = found.value if found is not None else {}
        authors = {other.rpartition(" ")[0] for other in entries}
        texts = [e.value for other, e in entries.items() if other.rpartition(" ")[0] != name]
        seconds = time.monotonic() - began
        pipe.send((len(authors), sum(map(len, texts)), seconds))
