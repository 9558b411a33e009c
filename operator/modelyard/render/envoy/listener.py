"""The listener and its chain of HTTP filters.

strip internal headers -> health check -> scan the request -> ask about limits -> count the arrival -> hold while asleep
-> ask for a replica -> read the usage of the reply -> forward
"""

from modelyard.render.envoy import scripts
from modelyard.render.envoy.affinity import keep_affinity
from modelyard.render.envoy.certificates import downstream_tls
from modelyard.render.envoy.errors import local_reply
from modelyard.render.envoy.limits import held_filter, limit_filter
from modelyard.render.envoy.metering import (
    end_counter,
    note_arrival,
    request_counter,
    streamed_usage,
    token_counters,
    unary_usage,
)
from modelyard.render.envoy.names import INTERNAL_HEADERS
from modelyard.render.envoy.pickers import picker_filter
from modelyard.render.envoy.routes import ROUTE_CONFIGURATION
from modelyard.render.envoy.settings import GatewaySettings
from modelyard.render.envoy.typed import Json, ads, extension, seconds, socket_address

LISTENER = "gateway"
"""Name of the one listener."""

HEALTH_PATH = "/healthz"
"""Path that load balancers ask; answered without a key, and with 503 while Envoy drains."""


def listener(settings: GatewaySettings) -> Json:
    """Return the listener that clients connect to."""
    security = {"transport_socket": downstream_tls()} if settings.tls else {}
    return {
        "name": LISTENER,
        "address": socket_address(settings.listener_address, settings.listener_port),
        # Unary replies are held until their usage is read.
        "per_connection_buffer_limit_bytes": settings.max_body_bytes,
        "filter_chains": [
            {
                "filters": [
                    extension(
                        "envoy.filters.network.http_connection_manager",
                        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                        _connection_manager(settings),
                    )
                ],
                **security,
            }
        ],
    }


def _connection_manager(settings: GatewaySettings) -> Json:
    return {
        "stat_prefix": LISTENER,
        "use_remote_address": True,
        "normalize_path": True,
        "merge_slashes": True,
        "always_set_request_id_in_response": True,
        "stream_idle_timeout": seconds(settings.body_idle_timeout),
        "request_headers_timeout": seconds(settings.headers_timeout),
        "rds": {"route_config_name": ROUTE_CONFIGURATION, "config_source": ads(patient=True)},
        "early_header_mutation_extensions": [
            extension(
                "envoy.http.early_header_mutation.header_mutation",
                "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
                {
                    "mutations": [
                        # Envoy takes timeouts, retries and stat names from x-envoy- if the client is in the cluster,
                        # and x-gateway- names a pod to endpoint pickers (Gateway API inference extension). Servers
                        # that make variables of headers cannot tell an underscore from a dash.
                        {"remove_on_match": {"key_matcher": {"safe_regex": {"regex": INTERNAL_HEADERS}}}},
                    ]
                },
            )
        ],
        "local_reply_config": local_reply(settings),
        "access_log": [request_counter(), end_counter(), *token_counters()],
        "http_filters": [
            _health_check(),
            extension(
                "envoy.filters.http.lua",
                "envoy.extensions.filters.http.lua.v3.Lua",
                {
                    "default_source_code": {"inline_string": scripts.request_scan()},
                    # The script clears the cache itself, after it has set the header.
                    "clear_route_cache": False,
                },
            ),
            keep_affinity(),
            # Before the arrivals: requests that are refused need no replica.
            limit_filter(settings),
            # Counts nothing by itself: each route brings its own counter.
            extension(
                "envoy.filters.http.local_ratelimit",
                "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
                {"stat_prefix": "unused"},
            ),
            note_arrival(),
            extension("envoy.filters.http.on_demand", "envoy.extensions.filters.http.on_demand.v3.OnDemand"),
            held_filter(settings),
            picker_filter(),
            streamed_usage(),
            unary_usage(),
            extension(
                "envoy.filters.http.router",
                "envoy.extensions.filters.http.router.v3.Router",
                {"suppress_envoy_headers": True},
            ),
        ],
    }


def _health_check() -> Json:
    return extension(
        "envoy.filters.http.health_check",
        "envoy.extensions.filters.http.health_check.v3.HealthCheck",
        {
            "pass_through_mode": False,
            "headers": [{"name": ":path", "string_match": {"exact": HEALTH_PATH}}],
        },
    )
