"""A metrics adapter for tests: serves the external metrics API from what the operator publishes.

The API server reaches it through an APIService whose Service is an ExternalName: it refuses loopback endpoints.
"""

import http.server
import json
import re
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

from dev.cluster.certificates import KeyPair
from modelyard.core.external import METRIC
from modelyard.kube.resources import EXTERNAL_METRICS_PATH

GROUP_VERSION = EXTERNAL_METRICS_PATH.removeprefix("/apis/")
_LABELS = re.compile(r"(\w+)=([\w-]+)")


@contextmanager
def serve_adapter(metrics_url: str, certificate: KeyPair) -> Iterator[int]:
    """Serve the operator's gauge on a free loopback port, which is given."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the name is http.server's
            status, body = _answer(metrics_url, self.path)
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def adapter_manifests(namespace: str, port: int) -> list[dict[str, Any]]:
    """Return what makes the API server ask an adapter on that loopback port."""
    group, _, version = GROUP_VERSION.partition("/")
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "adapter", "namespace": namespace},
            "spec": {"type": "ExternalName", "externalName": "localhost"},
        },
        {
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": f"{version}.{group}"},
            "spec": {
                "group": group,
                "version": version,
                "groupPriorityMinimum": 100,
                "versionPriority": 100,
                "insecureSkipTLSVerify": True,
                "service": {"name": "adapter", "namespace": namespace, "port": port},
            },
        },
    ]


def _answer(metrics_url: str, path: str) -> tuple[int, dict[str, Any]]:
    parts = urlsplit(path)
    if parts.path == EXTERNAL_METRICS_PATH:
        return 200, {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": GROUP_VERSION,
            "resources": [],
        }
    if not parts.path.endswith(f"/{METRIC}"):
        return 404, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404}
    labels = dict(_LABELS.findall(parse_qs(parts.query)["labelSelector"][0]))
    value = _read(metrics_url, labels)
    item = {
        "metricName": METRIC,
        "metricLabels": labels,
        "timestamp": "2026-01-01T00:00:00Z",
        "value": value,
    }
    return 200, {
        "kind": "ExternalMetricValueList",
        "apiVersion": GROUP_VERSION,
        "metadata": {},
        "items": [item] if value is not None else [],
    }


def _read(metrics_url: str, labels: dict[str, str]) -> str | None:
    try:
        with urllib.request.urlopen(metrics_url, timeout=30) as reply:
            page = reply.read().decode()
    except (urllib.error.URLError, OSError):
        return None
    series = f'{METRIC}{{deployment="{labels["deployment"]}",namespace="{labels["namespace"]}"}} '
    found = [line for line in page.splitlines() if line.startswith(series)]
    return str(int(float(found[0].removeprefix(series)))) if found else None
