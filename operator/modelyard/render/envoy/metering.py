"""What is counted of requests and answers, and where the counts come from.

Usage is what the answer says; where an answer ends before it does, it is estimated from the size of the request and
the events that were sent. The counters are statistics of Envoy, which the operator reads.
"""

from typing import TypeAlias

from modelyard.render.envoy.names import METADATA, TENANT_KEY
from modelyard.render.envoy.settings import MEBIBYTE
from modelyard.render.envoy.typed import Json, extension

_Fields: TypeAlias = tuple[tuple[tuple[str, ...], str], ...]

_USAGE_FIELDS: _Fields = (
    # Chat, completions, embeddings (OpenAI API reference). Cached tokens are part of the prompt's.
    (("usage", "prompt_tokens"), "prompt_tokens"),
    (("usage", "prompt_tokens_details", "cached_tokens"), "cached_tokens"),
    (("usage", "completion_tokens"), "completion_tokens"),
    # Whole answers of /v1/responses, and of /v1/messages (Anthropic's Messages API).
    (("usage", "input_tokens"), "prompt_tokens"),
    (("usage", "input_tokens_details", "cached_tokens"), "cached_tokens"),
    (("usage", "output_tokens"), "completion_tokens"),
    # Of /v1/messages alone: beside `input_tokens`, not part of it
    # (https://docs.claude.com/en/docs/build-with-claude/prompt-caching, "Tracking cache performance").
    (("usage", "cache_read_input_tokens"), "cache_read_tokens"),
    (("usage", "cache_creation_input_tokens"), "cache_write_tokens"),
)
"""Where engines say what they used, and the metadata keys these numbers are copied to."""

_EVENT_FIELDS: _Fields = (
    # The last event of /v1/responses.
    (("response", "usage", "input_tokens"), "prompt_tokens"),
    (("response", "usage", "input_tokens_details", "cached_tokens"), "cached_tokens"),
    (("response", "usage", "output_tokens"), "completion_tokens"),
    # The first event of /v1/messages; its last ones have `usage` at the top.
    (("message", "usage", "input_tokens"), "prompt_tokens"),
    (("message", "usage", "cache_read_input_tokens"), "cache_read_tokens"),
    (("message", "usage", "cache_creation_input_tokens"), "cache_write_tokens"),
)
"""The same in events of a stream only: whole answers have `usage` at the top. Envoy looks for each field that it is
asked for, so one is asked for where it can be."""

TOKENS = ("prompt_tokens", "cached_tokens", "completion_tokens", "cache_read_tokens", "cache_write_tokens")
"""The metadata keys of what an answer told, which are also the names of the counters."""

ESTIMATED_TOKENS = ("estimated_prompt_tokens", "estimated_completion_tokens")
"""The same of what the request scan noted in case that the answer ends before it tells its usage."""

ESTIMATED_REQUESTS = "estimated_requests"
"""Counter of the requests that were charged by estimate."""

ARRIVED_KEY = "counted_as"
"""Key in the metadata of routes: the name that their requests arrive, and end, under."""

_ARRIVED = f"{METADATA}.arrived"
"""Filter state of a request that was counted as an arrival: under which name."""

# Nothing here is text of a client: the metadata comes from our own table, the tenant from the key that was checked.
_TAGS = [
    {"name": "route", "value_format": f"%METADATA(ROUTE:{METADATA}:route)%"},
    {"name": "model", "value_format": f"%METADATA(ROUTE:{METADATA}:model)%"},
    {"name": "deployment", "value_format": f"%METADATA(CLUSTER:{METADATA}:deployment)%"},
    {"name": "tenant", "value_format": f"%DYNAMIC_METADATA({METADATA}:{TENANT_KEY})%"},
]


def _usage_rules(fields: _Fields) -> list[Json]:
    return [
        {
            "selectors": [{"key": name} for name in path],
            "on_present": {"metadata_namespace": METADATA, "key": key, "type": "NUMBER"},
        }
        for path, key in fields
    ]


def streamed_usage() -> Json:
    """Return the filter that reads the usage out of a streamed answer."""
    parser = extension(
        "envoy.content_parsers.json",
        "envoy.extensions.content_parsers.json.v3.JsonContentParser",
        {"rules": [{"rule": rule} for rule in _usage_rules(_USAGE_FIELDS + _EVENT_FIELDS)]},
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
                "rules": _usage_rules(_USAGE_FIELDS),
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


def note_arrival() -> Json:
    """Return the filter that keeps under which name a request arrived; it stands behind the counter of arrivals.

    Its route may be another one at its end: a request that was held is routed again.
    """
    return extension(
        "modelyard.arrived",
        "envoy.extensions.filters.http.set_filter_state.v3.Config",
        {
            "on_request_headers": [
                {
                    "object_key": _ARRIVED,
                    "factory_key": "envoy.string",
                    "format_string": {
                        "text_format_source": {
                            "inline_string": f"%METADATA(ROUTE:{METADATA}:{ARRIVED_KEY})%"
                        },
                        "omit_empty_values": True,
                    },
                    "skip_if_empty": True,
                }
            ]
        },
    )


def end_counter() -> Json:
    """Return the counter of requests that ended, by the name that they arrived under; none: they were refused before.

    What arrived and has not ended is under way.
    """
    tags = [{"name": "route", "value_format": f"%FILTER_STATE({_ARRIVED}:PLAIN)%"}]
    return _stats_logger([{"stat": {"name": "ended", "tags": tags}, "value_fixed": 1}])


def token_counters() -> list[Json]:
    """Return the counters of tokens: of those that answers told, and estimates where an answer ended before.

    Each has a filter that its value is there; without one Envoy logs an error for each answer that lacks it.
    """
    told = [{**_counter(key), "filter": _has(key)} for key in TOKENS]
    estimated = [{**_counter(key), "filter": _all(_untold(), _has(key))} for key in ESTIMATED_TOKENS]
    count = _stats_logger([{"stat": {"name": ESTIMATED_REQUESTS, "tags": _TAGS}, "value_fixed": 1}])
    return [*told, *estimated, {**count, "filter": _all(_untold(), _has(ESTIMATED_TOKENS[0]))}]


def _counter(key: str) -> Json:
    value = f"%DYNAMIC_METADATA({METADATA}:{key})%"
    return _stats_logger([{"stat": {"name": key, "tags": _TAGS}, "value_format": value}])


def _has(key: str) -> Json:
    matcher = {"filter": METADATA, "path": [{"key": key}], "value": {"present_match": True}}
    return {"metadata_filter": {"matcher": matcher, "match_if_key_not_found": False}}


def _untold() -> Json:
    """Return the filter for requests that used something and whose usage is not known.

    The answer began well, or the client left before it did (no code): the prompt was read for nothing. Or its time
    ended (504): whoever had it went on working for as long.
    """
    # Envoy's log filters know no negation (`invert` does nothing here): a value that no usage has, or none at all.
    never = {"filter": METADATA, "path": [{"key": "prompt_tokens"}], "value": {"double_match": {"exact": -1}}}
    codes = {"or_filter": {"filters": [_status("LE", 299), _status("EQ", 504)]}}
    return _all({"metadata_filter": {"matcher": never, "match_if_key_not_found": True}}, codes)


def _status(comparison: str, code: int) -> Json:
    # The runtime key is mandatory; nothing sets it.
    value = {"default_value": code, "runtime_key": f"modelyard.estimated.{code}"}
    return {"status_code_filter": {"comparison": {"op": comparison, "value": value}}}


def _all(*filters: Json) -> Json:
    return {"and_filter": {"filters": list(filters)}}
