"""What is counted of requests and answers, and where the counts come from.

Usage is what the answer says; the counters are statistics of Envoy, which the operator reads.
"""

from modelyard.render.envoy.names import METADATA
from modelyard.render.envoy.settings import MEBIBYTE
from modelyard.render.envoy.typed import Json, extension

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


def _usage_rules() -> list[Json]:
    return [
        {
            "selectors": [{"key": name} for name in path],
            "on_present": {"metadata_namespace": METADATA, "key": key, "type": "NUMBER"},
        }
        for path, key in _USAGE_FIELDS
    ]


def streamed_usage() -> Json:
    """Return the filter that reads the usage out of a streamed answer."""
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


def unary_usage() -> Json:
    """Return the filter that reads the usage out of a whole answer."""
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


def request_counter() -> Json:
    """Return the counter of finished requests."""
    code = {"name": "code", "value_format": "%RESPONSE_CODE%"}
    return _stats_logger([{"stat": {"name": "requests", "tags": [*_TAGS, code]}, "value_fixed": 1}])


def token_counter() -> Json:
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
