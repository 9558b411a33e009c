"""The HTTPRoute of Gateway API that leads from a Gateway of the cluster to the Service of ours."""

from dataclasses import dataclass
from typing import Any, Final

from modelyard.api.meta import LABEL_MANAGED_BY, MANAGED_BY
from modelyard.core.gatewayroute import GatewayParent

ROUTE_NAME: Final = "modelyard"
"""Name of the HTTPRoute."""

PATH: Final = "/v1"
"""Where everything that clients ask for begins; the rest of the host is left to others."""

NO_TIMEOUT: Final = "0s"
"""Turns off the time limit of the Gateway in front: a stream may be long, and a request for a sleeping model is held
for minutes. Our own Envoy bounds both (https://gateway-api.sigs.k8s.io/geps/gep-1742/)."""


@dataclass(frozen=True, slots=True)
class GatewayRouteSettings:
    """Which Gateways lead to us, and where we are."""

    parents: tuple[GatewayParent, ...]
    """One at least."""
    hostnames: tuple[str, ...] = ()
    """Host names of clients; empty: every one that the listener takes."""
    service: str = "modelyard-gateway"
    """The Service of our Envoys, in the namespace of the operator."""
    port: int = 80
    """Port of that Service."""


def build_http_route(settings: GatewayRouteSettings, namespace: str, service_uid: str) -> dict[str, Any]:
    """Return the HTTPRoute. It goes with the Service that it leads to, which owns it."""
    spec: dict[str, Any] = {
        "parentRefs": [_parent_ref(parent) for parent in settings.parents],
        "rules": [
            {
                "matches": [{"path": {"type": "PathPrefix", "value": PATH}}],
                "backendRefs": [{"name": settings.service, "port": settings.port}],
                "timeouts": {"request": NO_TIMEOUT},
            }
        ],
    }
    if settings.hostnames:
        spec["hostnames"] = list(settings.hostnames)
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {
            "name": ROUTE_NAME,
            "namespace": namespace,
            "labels": {LABEL_MANAGED_BY: MANAGED_BY},
            "ownerReferences": [
                {"apiVersion": "v1", "kind": "Service", "name": settings.service, "uid": service_uid}
            ],
        },
        "spec": spec,
    }


def _parent_ref(parent: GatewayParent) -> dict[str, Any]:
    reference = {"namespace": parent.namespace, "name": parent.name}
    return reference if parent.section is None else {**reference, "sectionName": parent.section}
