"""The Service of an engine: a stable name inside the cluster, for people and for other gateways.

Modelyard's own gateway does not use it: it balances over pods.
"""

from typing import Any

from modelyard.render.probes import PORT_NAME
from modelyard.render.workload import Workload

SERVICE_PORT = 80
"""One port for all engines, so that a change of engine keeps the address."""


def build_service(workload: Workload) -> dict[str, Any]:
    """Return the Service."""
    port = {"name": PORT_NAME, "port": SERVICE_PORT, "protocol": "TCP", "targetPort": PORT_NAME}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": workload.build_metadata(),
        "spec": {"selector": workload.serving_selector, "ports": [port]},
    }
