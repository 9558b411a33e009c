"""Tokens that a kubeconfig's program gives for a while: another one is asked for before the old one ends."""

import json
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from modelyard.kube.client import KubeClient
from modelyard.kube.informers import connection_info

API_VERSION = "client.authentication.k8s.io/v1"

PROGRAM = """
import json, pathlib, sys

count = pathlib.Path(sys.argv[1])
number = int(count.read_text()) + 1
count.write_text(str(number))
status = {"token": f"token-{number}"}
if sys.argv[2]:
    status["expirationTimestamp"] = sys.argv[2]
print(json.dumps({"apiVersion": sys.argv[3], "kind": "ExecCredential", "status": status}))
"""


@pytest.fixture
def api() -> Iterator[tuple[str, list[str]]]:
    """An API server's address, and the Authorization of each request."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers.get("Authorization", ""))
            payload = json.dumps({"gitVersion": "v1.37.2"}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 the name is the base class's
            """Stay silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", seen
    server.shutdown()
    thread.join()
    server.server_close()


def write(folder: Path, server: str, ends: str) -> Path:
    """Write a kubeconfig whose user asks the program, and return its path."""
    (folder / "count").write_text("0")
    (folder / "program.py").write_text(PROGRAM)
    arguments = [str(folder / "program.py"), str(folder / "count"), ends, API_VERSION]
    user = {"exec": {"apiVersion": API_VERSION, "command": sys.executable, "args": arguments}}
    path = folder / "kubeconfig"
    content = {
        "current-context": "a",
        "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
        "clusters": [{"name": "a", "cluster": {"server": server}}],
        "users": [{"name": "a", "user": user}],
    }
    path.write_text(yaml.safe_dump(content))
    return path


def in_minutes(minutes: int) -> str:
    return (datetime.now(UTC) + timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.mark.parametrize(
    ("ends", "tokens"),
    [
        # As good as over: the program is asked again before each request.
        (in_minutes(1), ["token-2", "token-3"]),
        (in_minutes(60), ["token-1", "token-1"]),
        ("", ["token-1", "token-1"]),
    ],
    ids=["ends soon", "lasts", "without an end"],
)
async def test_a_token_is_renewed_before_it_ends(
    tmp_path: Path, api: tuple[str, list[str]], ends: str, tokens: list[str]
) -> None:
    server, seen = api
    client = await KubeClient.connect(write(tmp_path, server, ends))
    try:
        for _ in tokens:
            assert await client.request("GET", "/version") == {"gitVersion": "v1.37.2"}
        assert seen == [f"Bearer {token}" for token in tokens]
        # The informers' connection, which is made anew when it is refused.
        number = len(tokens) + 2 if tokens[0] == "token-2" else 1
        assert (await connection_info(client.configuration)).token == f"token-{number}"
    finally:
        await client.close()


async def test_a_program_that_fails_later_leaves_the_token(
    tmp_path: Path, api: tuple[str, list[str]]
) -> None:
    server, seen = api
    client = await KubeClient.connect(write(tmp_path, server, in_minutes(1)))
    try:
        (tmp_path / "program.py").write_text("raise SystemExit('signed out')")
        await client.request("GET", "/version")
        assert seen == ["Bearer token-1"]
    finally:
        await client.close()
