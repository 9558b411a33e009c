"""Names as they travel through Envoy: in headers, stat names and labels.

Model names are free text, so they are percent-encoded wherever Envoy matches on them; that also keeps line breaks
and quotes out of headers. Stat names treat `.` and `:` specially, so they get an escape of their own.
"""

import re
from urllib.parse import quote

ROUTE_HEADER = "x-modelyard-route"
"""Request header, set by the request scan, that the virtual host matches on."""

SERVED_MODEL_HEADER = "x-modelyard-served-model"
"""Request header, set per attempt by a cluster, that tells the rewrite which model name to put into the body."""

AUTHORITY_HEADER = "x-modelyard-authority"
"""Request header, set per attempt by a provider's cluster: host and port that the provider is addressed by."""

PATH_HEADER = "x-modelyard-path"
"""Request header, set per attempt by a provider's cluster: what takes the place of the gateway's `/v1`."""

USAGE_HEADER = "x-modelyard-usage"
"""Request header, set per attempt by the cluster of a target that tells the usage of streams only where it is asked
to."""

STREAM_HEADER = "x-modelyard-stream"
"""Request header, set by the request scan where the body asks for a streamed answer."""

SCANNED_HEADER = "x-modelyard-scanned"
"""Request header, set by the request scan: where in the body the model's name stands, and where usage is asked for."""

TENANT_HEADER = "x-modelyard-tenant"
"""Request header, set where the API key is checked: name of the LLMTenant that calls. Absent: anonymous."""

GROUPS_HEADER = "x-modelyard-groups"
"""Request header, set where the API key is checked: the groups of tenants that the caller belongs to
(`render/envoy/tenants.py`)."""

TENANT_KEY = "tenant"
"""Key in our dynamic metadata that the request scan copies the tenant to: attempts change the headers, and what is
counted at the end of a request must not depend on them."""

ASKED_HEADER = "x-modelyard-asked"
"""Request header, set by the operator when it is asked about a request's limits: it is not asked a second time."""

AFFINITY_KEY = "affinity"
"""Key in our dynamic metadata, set by the request scan: what requests for the same pod have in common."""

KEY_HEADERS = ("authorization", "x-api-key")
"""Request headers that clients send their API key in."""

OWN_HEADERS = "x-modelyard-"
"""What the names of our own headers begin with."""

INTERNAL_HEADERS = "x[-_](modelyard|envoy|gateway)[-_].*"
"""Headers that only the gateway, Envoy itself and its filters may set (RE2, on lower case): clients' are removed."""

METADATA = "modelyard"
"""Namespace of our dynamic, route and cluster metadata, and prefix of our counters."""

MODELS_KEY = "models"
"""Route key of `GET /v1/models`."""

_UNRESERVED = "-._~/:@"
"""Characters besides letters and digits that a route key keeps; the Lua scan keeps the same ones."""

_ESCAPED = re.compile(r"_([0-9a-f]{2})")


def encode_model(model: str) -> str:
    """Return a model name as printable ASCII, reversible and safe in a header."""
    return quote(model, safe=_UNRESERVED)


def model_key(model: str) -> str:
    """Return the route key of requests for a model."""
    return f"model:{encode_model(model)}"


def model_info_key(model: str) -> str:
    """Return the route key of `GET /v1/models/{model}`."""
    return f"info:{encode_model(model)}"


def encode_stat(name: str) -> str:
    """Return a name as one element of a stat name: letters, digits, `-` and `/`, all else as `_` and hex."""
    kept = re.compile(r"[A-Za-z0-9/-]")
    return "".join(
        character if kept.fullmatch(character) else "".join(f"_{byte:02x}" for byte in character.encode())
        for character in name
    )


def decode_stat(element: str) -> str:
    """Return the name that `encode_stat` was given."""
    raw = _ESCAPED.sub(lambda match: chr(int(match.group(1), 16)), element)
    return raw.encode("latin-1").decode()
