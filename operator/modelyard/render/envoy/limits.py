"""Limits of tenants in Envoy: which requests the operator is asked about, and what it is told at their end.

The filter is switched off in the listener and on in the virtual host while some tenant has limits; then it asks about
requests that the scan has marked, which are those of tenants with limits. Others cost a look into a map.

It stands before the arrivals are counted, because what is refused needs no replica. There Envoy asks about no request
whose cluster does not exist, so a second one stands after the hold, for requests to models that slept.
"""

from collections.abc import Iterable
from typing import Final

from modelyard.core.limits.account import ESTIMATED, TOLD
from modelyard.render.envoy.names import ASKED_HEADER, METADATA
from modelyard.render.envoy.settings import GatewaySettings
from modelyard.render.envoy.typed import CONTROL_PLANE, Json, extension, seconds, typed

_FIRST: Final = "envoy.filters.http.ratelimit"
_SECOND: Final = "modelyard.limits.held"
"""Names of the two filters; the first is Envoy's own for its kind."""

DOMAIN: Final = "modelyard"
"""What the service is asked for; other domains are nothing of ours."""

TENANT_ENTRY: Final = "tenant"
"""Entry of every descriptor: the LLMTenant's name."""

USED_ENTRY: Final = "used"
"""Entry of descriptors at the end of a request: what their number of hits says, a name of `TOLD` or `ESTIMATED`, or
`STATUS`."""

STATUS: Final = "status"
"""The HTTP status of the answer, sent as a number of hits."""

LIMITED_KEY: Final = "limited"
"""Key in our dynamic metadata: the tenant's name, if it has limits. The scan sets it."""

_SCAN: Final = "envoy.filters.http.lua"
"""Where the scan finds metadata of the virtual host."""


def limit_filter(settings: GatewaySettings) -> Json:
    """Return the filter that asks the operator, switched off."""
    return _filter(_FIRST, settings)


def held_filter(settings: GatewaySettings) -> Json:
    """Return the filter that asks about requests that were held, switched off."""
    return _filter(_SECOND, settings)


def _filter(name: str, settings: GatewaySettings) -> Json:
    config = extension(
        name,
        "envoy.extensions.filters.http.ratelimit.v3.RateLimit",
        {
            "domain": DOMAIN,
            "timeout": seconds(settings.limit_timeout),
            # Whoever has limits is served while nobody can tell whether they are used up.
            "failure_mode_deny": False,
            "disable_x_envoy_ratelimited_header": True,
            "rate_limit_service": {
                "transport_api_version": "V3",
                "grpc_service": {
                    "envoy_grpc": {"cluster_name": CONTROL_PLANE},
                    "timeout": seconds(settings.limit_timeout),
                },
            },
        },
    )
    return {**config, "disabled": True}


def limit_tenants(host: Json, tenants: Iterable[str]) -> Json:
    """Return a virtual host in which the operator is asked about requests of these tenants."""
    marks = {f"limited:{tenant}": True for tenant in sorted(tenants)}
    if not marks:
        return host
    known = host.get("metadata", {}).get("filter_metadata", {})
    metadata = {"filter_metadata": {**known, _SCAN: {**known.get(_SCAN, {}), **marks}}}
    filters = {
        **host.get("typed_per_filter_config", {}),
        _FIRST: _rules([_ask(_tenant()), *_tell()]),
        _SECOND: _rules([_ask(_tenant(), _not_asked())]),
    }
    return {**host, "metadata": metadata, "typed_per_filter_config": filters}


def unlimited() -> Json:
    """Return the part of a route that nobody is asked about: its answers cost nothing."""
    return {name: _rules([]) for name in (_FIRST, _SECOND)}


def _rules(rate_limits: list[Json]) -> Json:
    return typed("envoy.extensions.filters.http.ratelimit.v3.RateLimitPerRoute", {"rate_limits": rate_limits})


def _ask(*actions: Json) -> Json:
    return {"actions": list(actions), "hits_addend": {"number": 1}}


def _tell() -> list[Json]:
    """Return what the operator is told at the end of a request, as far as there are values."""
    values = {name: f"%DYNAMIC_METADATA({METADATA}:{name})%" for name in (*TOLD, *ESTIMATED)}
    return [
        {
            "actions": [
                _tenant(),
                {"generic_key": {"descriptor_key": USED_ENTRY, "descriptor_value": name}},
            ],
            "hits_addend": {"format": value},
            "apply_on_stream_done": True,
        }
        for name, value in {**values, STATUS: "%RESPONSE_CODE%"}.items()
    ]


def _tenant() -> Json:
    # The headers are the attempts' by the time a request ends. Without the key there is no descriptor, and no call.
    key = {"key": METADATA, "path": [{"key": LIMITED_KEY}]}
    return {"metadata": {"descriptor_key": TENANT_ENTRY, "metadata_key": key, "source": "DYNAMIC"}}


def _not_asked() -> Json:
    asked = {"name": ASKED_HEADER, "present_match": True}
    return {
        "header_value_match": {
            "descriptor_key": "held",
            "descriptor_value": "true",
            "expect_match": False,
            "headers": [asked],
        }
    }
