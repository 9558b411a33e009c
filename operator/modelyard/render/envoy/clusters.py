"""The Envoy cluster of a deployment's pods, and their addresses."""

import json
from collections.abc import Mapping

from modelyard.core.routing import Endpoint, Upstream
from modelyard.render.envoy import scripts
from modelyard.render.envoy.affinity import balancer
from modelyard.render.envoy.breakers import circuit_breakers
from modelyard.render.envoy.names import (
    ASKED_HEADER,
    GROUPS_HEADER,
    METADATA,
    ROUTE_HEADER,
    SERVED_MODEL_HEADER,
    STREAM_HEADER,
    TENANT_HEADER,
    USAGE_HEADER,
)
from modelyard.render.envoy.pickers import picked
from modelyard.render.envoy.settings import GatewaySettings
from modelyard.render.envoy.typed import Json, ads, extension, seconds, set_header, socket_address, typed


def cluster(upstream: Upstream, settings: GatewaySettings) -> Json:
    """Return the cluster of one generation of a deployment; its addresses come separately (`endpoints`)."""
    policy = balancer(affinity=upstream.affinity)
    return {
        "name": upstream.cluster,
        "type": "EDS",
        "eds_cluster_config": {"eds_config": ads()},
        "connect_timeout": seconds(settings.connect_timeout),
        "metadata": {"filter_metadata": {METADATA: {"deployment": upstream.deployment}}},
        "load_balancing_policy": policy if upstream.picker is None else picked(policy),
        "circuit_breakers": circuit_breakers(settings),
        "outlier_detection": {
            # An engine's own 500 is about the request, not about the pod.
            "enforcing_consecutive_5xx": 0,
            "enforcing_success_rate": 0,
            "consecutive_gateway_failure": settings.failures_before_ejection,
            "enforcing_consecutive_gateway_failure": 100,
            "interval": "1s",
            "base_ejection_time": seconds(settings.ejection_seconds),
            # Half of the pods at most: a fault that all share must not leave the model without any.
            "max_ejection_percent": 50,
        },
        # The rewrite needs the whole body in the upstream chain.
        "per_connection_buffer_limit_bytes": settings.max_body_bytes,
        "typed_extension_protocol_options": http_options(
            settings.upstream_idle_timeout,
            [
                attempt_headers(
                    {
                        SERVED_MODEL_HEADER: escape_model(upstream.model),
                        **({USAGE_HEADER: "true"} if upstream.asks_usage else {}),
                    }
                ),
                attempt_script("engine_request", scripts.engine_request()),
            ],
        ),
    }


def endpoints(upstream: Upstream) -> Json:
    """Return the addresses of a cluster."""
    return {
        "cluster_name": upstream.cluster,
        "endpoints": [
            {
                "lb_endpoints": [_endpoint(endpoint) for endpoint in upstream.endpoints],
            }
        ],
    }


def _endpoint(endpoint: Endpoint) -> Json:
    """Return one address."""
    address: Json = {"endpoint": {"address": socket_address(endpoint.address, endpoint.port)}}
    return address if endpoint.weight == 1 else {**address, "load_balancing_weight": endpoint.weight}


def http_options(idle_timeout: float, filters: list[Json]) -> Json:
    """Return the protocol options of a cluster: HTTP/1.1, and a chain that runs once per attempt."""
    name = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    codec = extension(
        "envoy.filters.http.upstream_codec",
        "envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec",
    )
    return {
        name: typed(
            name,
            {
                "explicit_http_config": {"http_protocol_options": {}},
                "common_http_protocol_options": {"idle_timeout": seconds(idle_timeout)},
                "http_filters": [*filters, codec],
            },
        )
    }


def attempt_headers(values: Mapping[str, str]) -> Json:
    """Return the filter that sets headers for an attempt and takes away what is not for any target.

    An attempt finds the headers as the one before left them, the key of another provider included.
    """
    return extension(
        "envoy.filters.http.header_mutation",
        "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
        {
            "mutations": {
                "request_mutations": [
                    *({"append": set_header(key, value)} for key, value in values.items()),
                    {"remove": ROUTE_HEADER},
                    {"remove": STREAM_HEADER},
                    {"remove": TENANT_HEADER},
                    {"remove": GROUPS_HEADER},
                    {"remove": ASKED_HEADER},
                    {"remove": "authorization"},
                ]
            }
        },
    )


def attempt_script(name: str, source: str) -> Json:
    """Return the filter that runs a script for an attempt.

    `name` stands for the source: one interpreter per worker serves all clusters, instead of one per cluster.
    """
    return extension(
        "envoy.filters.http.lua",
        "envoy.extensions.filters.http.lua.v3.Lua",
        {"default_source_code": {"inline_string": source}, "shared_vm_id": name},
    )


def escape_model(model: str) -> str:
    """Return a model name as it stands in JSON, safe in a header too; `%` is doubled for Envoy."""
    return json.dumps(model)[1:-1].replace("%", "%%")
