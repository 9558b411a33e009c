"""The route configuration: one exact match per model name.

The request scan puts what a request asks for into one header, and the virtual host finds the route for it in a
hash map, however many models there are. A request that the scan has not seen yet matches the catch-all; it must be
a real `route` action, because Envoy ignores the body limit of a direct response.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from modelyard.core.routing import Route, RoutingTable
from modelyard.render.envoy.errors import direct_error, direct_json
from modelyard.render.envoy.forwarding import forward, split
from modelyard.render.envoy.limits import limit_tenants, unlimited
from modelyard.render.envoy.metering import ARRIVED_KEY
from modelyard.render.envoy.models import model_info_body, model_list_body
from modelyard.render.envoy.names import (
    KEY_HEADERS,
    METADATA,
    MODELS_KEY,
    ROUTE_HEADER,
    SCANNED_HEADER,
    STREAM_HEADER,
    encode_model,
    encode_stat,
    model_info_key,
    model_key,
)
from modelyard.render.envoy.pickers import ask_picker, no_picker
from modelyard.render.envoy.refusals import for_tenant, refuse_exhausted
from modelyard.render.envoy.rules import Branch, RoutePlan, branch_headers, refuse_others
from modelyard.render.envoy.settings import MEBIBYTE, GatewaySettings
from modelyard.render.envoy.tenants import TenantGroups, is_member
from modelyard.render.envoy.typed import Json, extension, on_demand, seconds, typed

ROUTE_CONFIGURATION = "models"
"""Name of the one route configuration."""

ARRIVALS = "modelyard_arrivals"
"""First element of the stat names of the arrival counters."""

NO_CLUSTER = "__none__"
"""A cluster that never exists; no deployment can have this name."""

MAX_LIST_BYTES = 4 * MEBIBYTE
"""Largest reply of `/v1/models`: room for 30,000 models (Envoy's default of 4 KiB is room for 30)."""


def listed_models(table: RoutingTable) -> Iterator[tuple[str, Route]]:
    """Yield every model name once, with the first route that has it."""
    seen: set[str] = set()
    for route in table.routes:
        for model in route.models:
            if model not in seen:
                seen.add(model)
                yield model, route


def model_routes(model: str, plan: RoutePlan, settings: GatewaySettings) -> dict[str, tuple[Json, ...]]:
    """Return the routes of one model name by their keys: requests, and its entry in the model list.

    Of several routes under one key the first that matches is taken.
    """
    refused = list(refuse_others(model, plan.users))
    parts = [
        *(for_tenant(tenant, _inference_routes(model, plan, own, settings)) for tenant, own in plan.limited),
        _inference_routes(model, plan, plan.branches, settings),
    ]
    return {
        model_key(model): tuple(chain(refused, *parts)),
        model_info_key(model): (*refused, _reply(200, model_info_body(model, plan.route))),
    }


def list_routes(table: RoutingTable, groups: TenantGroups) -> dict[str, tuple[Json, ...]]:
    """Return the routes of `GET /v1/models` by their key: each tenant is shown what it may use."""
    listed = tuple(listed_models(table))
    routes = [
        _reply(200, model_list_body(item for item in listed if item[1].name in names), [is_member(group)])
        for group, names in groups.lists
    ]
    return {MODELS_KEY: (*routes, _reply(200, model_list_body(listed)))}


def route_configuration(settings: GatewaySettings, known: Json, limited: Iterable[str] = ()) -> Json:
    """Return the route configuration with an empty map of models.

    `known` is what `known_keys` says of callers, `limited` are the tenants that have limits.

    `fill` of the resource builder puts the routes in: they are encoded one by one, so that a change of one model
    does not encode all of them again.
    """
    return {
        "name": ROUTE_CONFIGURATION,
        # Clusters appear and vanish while their routes stay.
        "validate_clusters": False,
        "max_direct_response_body_size_bytes": MAX_LIST_BYTES,
        # The client's key is for the gateway; engines ask for none.
        "request_headers_to_remove": list(KEY_HEADERS),
        "virtual_hosts": [limit_tenants(_host(settings, known), limited)],
    }


def route_action(*routes: Json) -> Json:
    """Return a route, or several of which the first that matches is taken, as the action of a matcher."""
    if len(routes) == 1:
        return {"action": extension("route", "envoy.config.route.v3.Route", routes[0])}
    return {"action": extension("routes", "envoy.config.route.v3.RouteList", {"routes": list(routes)})}


def _host(settings: GatewaySettings, known: Json) -> Json:
    return {
        "name": "models",
        "domains": ["*"],
        "typed_per_filter_config": no_picker(),
        "metadata": known,
        "request_body_buffer_limit": settings.max_body_bytes,
        "matcher": {
            "matcher_tree": {
                "input": extension(
                    "route",
                    "envoy.type.matcher.v3.HttpRequestHeaderMatchInput",
                    {"header_name": ROUTE_HEADER},
                ),
                # Filled in later; a map without any entry is refused by Envoy.
                "exact_match_map": {"map": {}},
            },
            "on_no_match": route_action(
                {
                    "match": {"prefix": "/"},
                    "typed_per_filter_config": unlimited(),
                    "request_body_buffer_limit": settings.max_body_bytes,
                    "route": {"cluster": NO_CLUSTER, "cluster_not_found_response_code": "NOT_FOUND"},
                }
            ),
        },
    }


def _reply(status: int, body: str, headers: Sequence[Json] = ()) -> Json:
    match: Json = {"prefix": "/", "headers": list(headers)} if headers else {"prefix": "/"}
    return {"match": match, **direct_json(status, body)}


def _inference_routes(
    model: str, plan: RoutePlan, branches: Iterable[Branch], settings: GatewaySettings
) -> tuple[Json, ...]:
    return tuple(
        entry for branch in branches for entry in _branch_routes(model, plan.route, branch, settings)
    )


def _branch_routes(model: str, route: Route, branch: Branch, settings: GatewaySettings) -> Iterator[Json]:
    """Yield the routes of the requests of a branch: to its targets, or the answer that there are none."""
    headers = branch_headers(branch)
    everything = {"match": {"prefix": "/", "headers": headers}}
    if branch.exhausted is not None and branch.refusal is None:
        yield {**refuse_exhausted(branch.exhausted, settings), **everything}
        return
    passing: Json = {
        "metadata": {
            "filter_metadata": {
                METADATA: {
                    "route": encode_stat(route.name),
                    "model": encode_stat(encode_model(model)),
                    ARRIVED_KEY: encode_stat(branch.counted_as),
                },
                # What the request scan reads.
                "envoy.filters.http.lua": {"route": route.name},
            }
        },
        "request_body_buffer_limit": settings.max_body_bytes,
        "typed_per_filter_config": {
            "envoy.filters.http.local_ratelimit": _arrival_counter(branch.counted_as),
            "envoy.filters.http.on_demand": typed(
                "envoy.extensions.filters.http.on_demand.v3.PerRouteConfig",
                {"odcds": {"source": on_demand(), "timeout": seconds(route.hold_seconds)}},
            ),
        },
    }
    if branch.refusal is not None or not branch.targets:
        refusal = branch.refusal or "The model has no target."
        error = direct_error(
            503, refusal, "server_error", "model_unavailable", {"retry-after": str(settings.retry_after)}
        )
        filters = {**passing["typed_per_filter_config"], **unlimited()}
        yield {**everything, **passing, **error, "typed_per_filter_config": filters}
        return
    held = passing
    for choice, match in zip(branch.targets, split(branch.targets), strict=True):
        asked = {} if choice.picker is None else ask_picker(choice.picker)
        passing = {**held, "typed_per_filter_config": {**held["typed_per_filter_config"], **asked}}
        if asked:
            # A picker may write the body anew, so what the scan has found need not stand where it was.
            passing["request_headers_to_remove"] = [SCANNED_HEADER]
        if route.first_token_seconds is not None:
            streamed = {"name": STREAM_HEADER, "string_match": {"exact": "true"}}
            action = forward(route, choice, settings, route.first_token_seconds)
            yield {"match": {**match, "headers": [*headers, streamed]}, **passing, **action}
        yield {"match": {**match, "headers": headers}, **passing, **forward(route, choice, settings)}


def _arrival_counter(name: str) -> Json:
    """Return the counter of requests that passed the scan.

    A rate limiter that never limits (nothing is enforced) counts every request it sees, before any hold.
    """
    return typed(
        "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
        {
            "stat_prefix": f"{ARRIVALS}.{encode_stat(name)}",
            "token_bucket": {"max_tokens": 1, "tokens_per_fill": 1, "fill_interval": "3600s"},
            "filter_enabled": {
                "default_value": {"numerator": 100, "denominator": "HUNDRED"},
                "runtime_key": "modelyard.arrivals.enabled",
            },
            "filter_enforced": {
                "default_value": {"numerator": 0, "denominator": "HUNDRED"},
                "runtime_key": "modelyard.arrivals.enforced",
            },
        },
    )
