"""Errors as OpenAI's API writes them, for everything that Envoy itself answers.

Replies of an engine pass unchanged. Replies of the request scan and of routes carry their own body; the mappers here
cover what Envoy's own filters and its router refuse.
"""

import json
from dataclasses import dataclass

from modelyard.render.envoy.limits import unlimited
from modelyard.render.envoy.names import METADATA
from modelyard.render.envoy.pickers import UNANSWERED_STATUS
from modelyard.render.envoy.settings import GatewaySettings
from modelyard.render.envoy.typed import Json, set_header

EXHAUSTED_STATUS = 402
"""Status that the route itself answers with; the connection manager makes 429 of it. Its own 429, for requests that a
limiter refuses, brings a body, which would take the place of the one here. Nothing else in the gateway answers 402."""

_MODEL = f"%DYNAMIC_METADATA({METADATA}:model)%"


@dataclass(frozen=True, slots=True)
class LocalError:
    """One kind of reply that Envoy makes up itself."""

    status: int
    kind: str
    code: str
    message: str
    flags: tuple[str, ...] = ()
    """Response flags, any of which must be set
    (https://www.envoyproxy.io/docs/envoy/v1.40.0/configuration/observability/access_log/usage)."""
    retry: bool = False
    """Whether `Retry-After` is sent."""


LOCAL_ERRORS = (
    # NC, "no cluster found", is both an unknown model (the catch-all route's 404) and a hold that ran out (503).
    LocalError(
        404, "invalid_request_error", "model_not_found", f"The model `{_MODEL}` does not exist.", ("NC",)
    ),
    LocalError(
        503,
        "server_error",
        "model_not_ready",
        f"The model `{_MODEL}` is not ready yet. Try again later.",
        ("NC",),
        retry=True,
    ),
    LocalError(413, "invalid_request_error", "request_too_large", "The request body is too large."),
    LocalError(400, "invalid_request_error", "bad_request", "The HTTP request is not valid.", ("DPE",)),
    LocalError(431, "invalid_request_error", "headers_too_large", "The request headers are too large."),
    LocalError(408, "invalid_request_error", "request_timeout", "The request was not sent in time."),
    # The operator refused: it says why, and brings its own `Retry-After`.
    LocalError(429, "rate_limit_error", "rate_limit_exceeded", "%LOCAL_REPLY_BODY%", ("RL",)),
    LocalError(
        429,
        "rate_limit_error",
        "rate_limit_exceeded",
        "Too many requests. Try again later.",
        # Whatever limits: Envoy 1.40's local limiter sets no response flag.
        retry=True,
    ),
    LocalError(
        503, "server_error", "overloaded", "The gateway is overloaded. Try again later.", ("OM",), retry=True
    ),
    LocalError(
        503,
        "server_error",
        "model_unavailable",
        f"The model `{_MODEL}` does not answer. Try again later.",
        ("UH", "UF", "UO", "UC", "UR", "LR", "URX", "NR"),
        retry=True,
    ),
    LocalError(
        502, "server_error", "bad_reply", f"The model `{_MODEL}` sent a reply that is not HTTP.", ("UPE",)
    ),
    LocalError(
        504, "server_error", "timeout", f"The model `{_MODEL}` took too long to answer.", ("UT", "SI", "DT")
    ),
    LocalError(500, "server_error", "reply_too_large", "The reply is too large."),
)
"""In this order, the first that fits."""  # fmt: skip


def error_body(message: str, kind: str, code: str) -> str:
    """Return the JSON of an error for a body that Envoy sends as it is."""
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}})


def local_reply(settings: GatewaySettings) -> Json:
    """Return the `local_reply_config` of the connection manager."""
    return {
        "mappers": [
            *(_mapper(error, settings) for error in LOCAL_ERRORS),
            _exhausted_mapper(),
            _picker_mapper(settings),
        ]
    }


def direct_error(
    status: int, message: str, kind: str, code: str, headers: dict[str, str] | None = None
) -> Json:
    """Return the part of a route that answers every request with an error."""
    refusal = direct_json(status, error_body(message, kind, code), headers)
    return {**refusal, "typed_per_filter_config": unlimited()}


def direct_json(status: int, body: str, headers: dict[str, str] | None = None) -> Json:
    """Return the part of a route that answers every request with a JSON body."""
    sent = {"content-type": "application/json", **(headers or {})}
    return {
        "direct_response": {"status": status, "body": {"inline_string": body}},
        "response_headers_to_add": [set_header(key, value) for key, value in sent.items()],
    }


def _mapper(error: LocalError, settings: GatewaySettings) -> Json:
    status = {
        "status_code_filter": {
            "comparison": {
                "op": "EQ",
                # The runtime key is mandatory; nothing sets it.
                "value": {"default_value": error.status, "runtime_key": f"modelyard.status.{error.code}"},
            }
        }
    }
    flags = {"response_flag_filter": {"flags": list(error.flags)}}
    headers = {"retry-after": str(settings.retry_after)} if error.retry else {}
    return {
        "filter": {"and_filter": {"filters": [status, flags]}} if error.flags else status,
        "body_format_override": {
            "json_format": {
                "error": {"message": error.message, "type": error.kind, "param": None, "code": error.code}
            },
        },
        "headers_to_add": [set_header(key, value) for key, value in headers.items()],
    }


def _picker_mapper(settings: GatewaySettings) -> Json:
    """Return the mapper for requests whose endpoint picker did not answer."""
    message = f"The endpoint picker of the model `{_MODEL}` does not answer. Try again later."
    error = LocalError(UNANSWERED_STATUS, "server_error", "model_unavailable", message, retry=True)
    return {**_mapper(error, settings), "status_code": 503}


def _exhausted_mapper() -> Json:
    """Return the mapper that gives refused requests their status; body and headers stay those of the route."""
    value = {"default_value": EXHAUSTED_STATUS, "runtime_key": "modelyard.status.exhausted"}
    return {
        "filter": {"status_code_filter": {"comparison": {"op": "EQ", "value": value}}},
        "status_code": 429,
    }
