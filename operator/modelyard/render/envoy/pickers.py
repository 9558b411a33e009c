"""Endpoint pickers: a service of its own chooses the replica of each request.

Protocol: https://github.com/kubernetes-sigs/gateway-api-inference-extension/tree/v1.6.0/docs/proposals/004-endpoint-picker-protocol
Envoy sends the request to the picker (external processing) after the hold, so that there is a replica to choose, and
the cluster takes the address that comes back. One that is no replica of the model is left out for the usual choice.
"""

from modelyard.core.routing import Picker
from modelyard.render.envoy.breakers import circuit_breakers
from modelyard.render.envoy.names import KEY_HEADERS, OWN_HEADERS
from modelyard.render.envoy.settings import GatewaySettings
from modelyard.render.envoy.typed import CONTROL_PLANE, Json, extension, seconds, socket_address, typed

FILTER = "envoy.filters.http.ext_proc"

NAMESPACE = "envoy.lb"
"""Metadata through which picker and balancer talk, as the protocol names it."""
CHOSEN, SERVED = "x-gateway-destination-endpoint", "x-gateway-destination-endpoint-served"
"""The addresses that the picker chose, and the one that answered."""

MESSAGE_SECONDS = 60.0
"""How long a picker may keep a request. It may queue it until a replica has room, and a message that is streamed is not
answered before the body is complete."""

UNANSWERED, UNANSWERED_STATUS = "InsufficientStorage", 507
"""What the filter answers where the picker does not. The connection manager makes 503 of it: 503 itself may be the
picker's own answer, which passes as it is. Nothing else in the gateway answers 507."""

_EXT_PROC = "envoy.extensions.filters.http.ext_proc.v3"

_MODE: Json = {
    "request_header_mode": "SEND",
    "request_body_mode": "FULL_DUPLEX_STREAMED",
    "request_trailer_mode": "SEND",
    "response_header_mode": "SEND",
    "response_body_mode": "FULL_DUPLEX_STREAMED",
    "response_trailer_mode": "SEND",
}
"""What the picker sees of a request and its answer: all of it, as the protocol wants it."""


def picker_filter() -> Json:
    """Return the filter that asks pickers, where a route names one.

    Switched off in the listener and on in the virtual host while some model has a picker: beside a request that asks
    none it costs as much as all counters together.
    """
    config = extension(
        FILTER,
        f"{_EXT_PROC}.ExternalProcessor",
        {
            # Never asked: each route names its own.
            **_service(CONTROL_PLANE),
            # Nothing, unless a route says so: answers that Envoy makes before it looks for a route pass here too.
            "processing_mode": {"request_header_mode": "SKIP", "response_header_mode": "SKIP"},
            "message_timeout": seconds(MESSAGE_SECONDS),
            # Pickers are a team's own: like its engines they get no client's key and nothing of the gateway's. The
            # router takes both away only after this filter.
            "forward_rules": {
                "disallowed_headers": {
                    "patterns": [*({"exact": name} for name in KEY_HEADERS), {"prefix": OWN_HEADERS}]
                }
            },
            "status_on_error": {"code": UNANSWERED},
            # Where the request goes is decided; only the replica is the picker's to choose.
            "route_cache_action": "RETAIN",
            "mutation_rules": {
                "disallow_all": True,
                "allow_expression": {"regex": f"{CHOSEN}|content-length"},
            },
            "metadata_options": {
                "receiving_namespaces": {"untyped": [NAMESPACE]},
                "forwarding_namespaces": {"untyped": [NAMESPACE]},
            },
        },
    )
    return {**config, "disabled": True}


def use_pickers() -> dict[str, Json]:
    """Return what switches the filter on for a virtual host, in which it asks nobody unless a route says so.

    Envoy decides before the request scan has found the route which filters a request passes, so no route can switch it
    on.
    """
    return {FILTER: typed(f"{_EXT_PROC}.ExtProcPerRoute", {"disabled": True})}


def ask_picker(cluster: str) -> dict[str, Json]:
    """Return what switches the filter on for a route."""
    overrides = {**_service(cluster), "processing_mode": _MODE}
    return {FILTER: typed(f"{_EXT_PROC}.ExtProcPerRoute", {"overrides": overrides})}


def picked(fallback: Json) -> Json:
    """Return the balancing policy of a cluster whose replicas a picker chooses."""
    metadata = {"metadata": {"key": NAMESPACE, "path": [{"key": CHOSEN}]}}
    return {
        "policies": [
            {
                "typed_extension_config": extension(
                    "envoy.load_balancing_policies.override_host",
                    "envoy.extensions.load_balancing_policies.override_host.v3.OverrideHost",
                    {
                        "override_host_sources": [metadata, {"header": CHOSEN}],
                        "selected_host_key": {"key": NAMESPACE, "path": [{"key": SERVED}]},
                        "fallback_policy": fallback,
                    },
                )
            }
        ]
    }


def picker_cluster(picker: Picker, settings: GatewaySettings) -> Json:
    """Return the cluster of a picker: gRPC over HTTP/2 without TLS, inside the cluster's network."""
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    return {
        "name": picker.cluster,
        "type": "STRICT_DNS",
        "dns_lookup_family": "V4_PREFERRED",
        "connect_timeout": seconds(settings.connect_timeout),
        # Each request is one of the picker's until its answer ends.
        "circuit_breakers": circuit_breakers(settings),
        "load_assignment": {
            "cluster_name": picker.cluster,
            "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": socket_address(picker.host, picker.port)}}]}
            ],
        },
        "typed_extension_protocol_options": {
            options: typed(options, {"explicit_http_config": {"http2_protocol_options": {}}})
        },
    }


def _service(cluster: str) -> Json:
    return {"grpc_service": {"envoy_grpc": {"cluster_name": cluster}, "timeout": seconds(MESSAGE_SECONDS)}}
