"""A stand-in for the API server that answers lists, for what only reads."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

from modelyard.api.meta import LABEL_DEPLOYMENT

Lists = Mapping[str, list[dict[str, Any]] | int]
"""The objects of each plural, or the status that a list of it is answered with."""


@contextmanager
def serve_lists(folder: Path, lists: Lists) -> Iterator[tuple[Path, list[str]]]:
    """Serve the lists; yields a kubeconfig and, as they come, method and path of every request."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            seen.append(f"GET {url.path}")
            parent, _, last = url.path.rpartition("/")
            found = lists.get(parent.rpartition("/")[2])
            if isinstance(found, list):
                named = [item for item in found if item["metadata"]["name"] == last]
                self._answer(200, named[0]) if named else self._answer(404, {"reason": "NotFound"})
                return
            items = lists.get(last, []) if found is None else found
            if isinstance(items, int):
                self._answer(items, {"kind": "Status", "reason": "Forbidden", "message": "no"})
                return
            selector = parse_qs(url.query).get("labelSelector", [""])[0]
            if " in (" in selector:
                label, _, values = selector.rstrip(")").partition(" in (")
                items = [
                    item
                    for item in items
                    if item["metadata"].get("labels", {}).get(label) in values.split(",")
                ]
            elif selector:
                wanted = not selector.startswith("!")
                items = [
                    item
                    for item in items
                    if (LABEL_DEPLOYMENT in item["metadata"].get("labels", {})) is wanted
                ]
            self._answer(200, {"metadata": {}, "items": items})

        def do_POST(self) -> None:
            seen.append(f"{self.command} {self.path}")
            self._answer(405, {})

        do_PATCH = do_PUT = do_DELETE = do_POST  # noqa: N815 the names are the base class's

        def _answer(self, status: int, body: object) -> None:
            payload = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 the name is the base class's
            """Stay silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield _write_kubeconfig(folder, server.server_port), seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _write_kubeconfig(folder: Path, port: int) -> Path:
    path = folder / "kubeconfig"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "stub",
        "contexts": [{"name": "stub", "context": {"cluster": "stub", "user": "stub"}}],
        "clusters": [{"name": "stub", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "stub", "user": {}}],
    }
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path
