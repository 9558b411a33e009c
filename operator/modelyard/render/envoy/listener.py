"""The listener and its chain of HTTP filters.

strip internal headers -> health check -> scan the request -> count the arrival -> hold while asleep -> read the usage
of the reply -> forward
"""

from modelyard.render.envoy import scripts
from modelyard.render.envoy.errors import local_reply
from modelyard.render.envoy.names import INTERNAL_PREFIX, METADATA
from modelyard.render.envoy.routes import ROUTE_CONFIGURATION
from modelyard.render.envoy.settings import MEBIBYTE, GatewaySettings
from modelyard.render.envoy.typed import Json, ads, extension, seconds, socket_address

LISTENER = "gateway"
"""Name of the one listener."""

HEALTH_PATH = "/healthz"
"""Path that load balancers ask; answered without a key, and with 503 while Envoy drains."""

_USAGE_FIELDS = (
    # Chat, completions, embeddings (OpenAI API reference).
    (("usage", "prompt_tokens"), "prompt_tokens"),
    (("usage", "completion_tokens"), "completion_tokens"),
    # Whole answers of /v1/responses, and of /v1/messages (Anthropic's Messages API).
    (("usage", "input_tokens"), "prompt_tokens"),
    (("usage", "output_tokens"), "completion_tokens"),
    # The last event of /v1/responses.
    (("response", "usage", "input_tokens"), "prompt_tokens"),
    (("response", "usage", "output_tokens"), "completion_tokens"),
    # The first event of /v1/messages; its last ones have `usage` at the top.
    (("message", "usage", "input_tokens"), "prompt_tokens"),
)
"""Where engines say what they used, and the metadata keys these numbers are copied to."""

_TOKENS = ("prompt_tokens", "completion_tokens")
"""The metadata keys, which are also the names of the counters."""

_TAGS = [
    {"name": "route", "value_format": f"%METADATA(ROUTE:{METADATA}:route)%"},
    {"name": "model", "value_format": f"%METADATA(ROUTE:{METADATA}:model)%"},
    {"name": "deployment", "value_format": f"%METADATA(CLUSTER:{METADATA}:deployment)%"},
]


def listener(settings: GatewaySettings) -> Json:
    """Return the listener that clients connect to."""
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
                ]
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
        "rds": {"route_config_name": ROUTE_CONFIGURATION, "config_source": ads()},
        "early_header_mutation_extensions": [
            extension(
                "envoy.http.early_header_mutation.header_mutation",
                "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
                {
                    "mutations": [
                        {"remove_on_match": {"key_matcher": {"prefix": INTERNAL_PREFIX}}},
                        # Envoy takes timeouts, retries and stat names from these if the client is in the cluster.
                        {"remove_on_match": {"key_matcher": {"prefix": "x-envoy-"}}},
                        # Names a pod to endpoint pickers (Gateway API inference extension).
                        {"remove_on_match": {"key_matcher": {"prefix": "x-gateway-"}}},
                    ]
                },
            )
        ],
        "local_reply_config": local_reply(settings),
        "access_log": [_request_counter(), _token_counter()],
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
            # Counts nothing by itself: each route brings its own counter.
            extension(
                "envoy.filters.http.local_ratelimit",
                "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
                {"stat_prefix": "unused"},
            ),
            extension("envoy.filters.http.on_demand", "envoy.extensions.filters.http.on_demand.v3.OnDemand"),
            _streamed_usage(),
            _unary_usage(),
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


def _usage_rules() -> list[Json]:
    return [
        {
            "selectors": [{"key": name} for name in path],
            "on_present": {"metadata_namespace": METADATA, "key": key, "type": "NUMBER"},
        }
        for path, key in _USAGE_FIELDS
    ]


def _streamed_usage() -> Json:
    parser = extension(
        "envoy.content_parsers.json",
        "envoy.extensions.content_parsers.json.v3.JsonContentParser",
        {"rules": [{"rule": rule} for rule in _usage_rules()]},
    )
    return extension(
        "envoy.filters.http.sse_to_metadata",
        "envoy.extensions.filters.http.sse_to_metadata.v3.SseToMetadata",
        # An event may carry a whole answer with token probabilities; Envoy's default is 8 KiB.
        {"response_rules": {"content_parser": parser, "max_event_size": MEBIBYTE}},
    )


def _unary_usage() -> Json:
    return extension(
        "envoy.filters.http.json_to_metadata",
        "envoy.extensions.filters.http.json_to_metadata.v3.JsonToMetadata",
        {
            "response_rules": {
                "rules": _usage_rules(),
                # The default takes no parameters such as `; charset=utf-8`.
                "allow_content_types_regex": {"regex": "application/json.*"},
            }
        },
    )


def _stats_logger(counters: list[Json]) -> Json:
    return extension(
        "envoy.access_loggers.stats",
        "envoy.extensions.access_loggers.stats.v3.Config",
        {"stats_scope": {"prefix": METADATA}, "counters": counters},
    )


def _request_counter() -> Json:
    code = {"name": "code", "value_format": "%RESPONSE_CODE%"}
    return _stats_logger([{"stat": {"name": "requests", "tags": [*_TAGS, code]}, "value_fixed": 1}])


def _token_counter() -> Json:
    """Return the counters of tokens, for replies that carry usage; without the filter Envoy logs an error each."""
    logger = _stats_logger(
        [
            {
                "stat": {"name": key, "tags": _TAGS},
                "value_format": f"%DYNAMIC_METADATA({METADATA}:{key})%",
            }
            for key in _TOKENS
        ]
    )
    present = {"filter": METADATA, "path": [{"key": "prompt_tokens"}], "value": {"present_match": True}}
    return {
        **logger,
        "filter": {"metadata_filter": {"matcher": present, "match_if_key_not_found": False}},
    }
