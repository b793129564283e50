"""The part of the hub's HTTP interface by which a folder is uploaded, on loopback, in memory.

Weights go by LFS's basic transfer: set HF_HUB_DISABLE_XET, whose servers cannot be imitated.
"""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_made_up_for_the_test"


@dataclass(slots=True)
class Hub:
    """What was asked of it. `files` holds each commit's files, whole."""

    address: str = ""
    created: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    commits: int = 0


@contextmanager
def fake_hub() -> Iterator[Hub]:
    """A hub that answers until the end of the block."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            is_member = self.headers["Authorization"] == f"Bearer {TOKEN}"
            self._answer(_posted(self.path, self._body(), hub) if is_member else None)

        def do_PUT(self) -> None:
            body = self._body()
            hub.objects[hashlib.sha256(body).hexdigest()] = body
            self._answer({})

        def log_message(self, format: str, *arguments: Any) -> None:
            """Says nothing."""

        def _body(self) -> bytes:
            return self.rfile.read(int(self.headers["Content-Length"]))

        def _answer(self, value: dict[str, Any] | None) -> None:
            text = json.dumps(value or {"error": "not here, or not you"}).encode()
            self.send_response(403 if value is None else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _posted(path: str, body: bytes, hub: Hub) -> dict[str, Any] | None:
    """The answer to one request; None for what this hub does not have."""
    if path == "/api/repos/create":
        hub.created.append(json.loads(body))
        return {"url": f"{hub.address}/{_name(hub)}"}
    if path == "/api/validate-yaml":
        return {"errors": [], "warnings": []}
    if "/preupload/" in path:
        return {"files": [_mode(one) for one in json.loads(body)["files"]]}
    if path.endswith("/info/lfs/objects/batch"):
        return {"objects": [_upload(one, hub) for one in json.loads(body)["objects"]]}
    if "/commit/" in path:
        hub.files = _committed(body, hub)
        hub.commits += 1
        return {"commitOid": "1" * 40, "commitUrl": f"{hub.address}/{_name(hub)}/commit/1"}
    return None


def _name(hub: Hub) -> str:
    return f"{hub.created[-1]['organization']}/{hub.created[-1]['name']}"


def _mode(file: dict[str, Any]) -> dict[str, Any]:
    mode = "lfs" if file["path"].endswith(".safetensors") else "regular"
    return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}


def _upload(wanted: dict[str, Any], hub: Hub) -> dict[str, Any]:
    href = f"{hub.address}/objects/{wanted['oid']}"
    return {**wanted, "actions": {"upload": {"href": href, "header": {}}}}


def _committed(body: bytes, hub: Hub) -> dict[str, bytes]:
    files = {}
    for line in map(json.loads, body.splitlines()):
        value = line["value"]
        if line["key"] == "file":
            assert value["encoding"] == "base64"
            files[value["path"]] = base64.b64decode(value["content"])
        elif line["key"] == "lfsFile":
            files[value["path"]] = hub.objects[value["oid"]]
    return files
