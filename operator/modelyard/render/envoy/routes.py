"""The route configuration: one exact match per model name.

The request scan puts what a request asks for into one header, and the virtual host finds the route for it in a
hash map, however many models there are. A request that the scan has not seen yet matches the catch-all; it must be
a real `route` action, because Envoy ignores the body limit of a direct response.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from itertools import chain

from modelyard.core.routing import Route, RoutingTable
from modelyard.render.envoy.affinity import use_affinity
from modelyard.render.envoy.limits import limit_tenants, unlimited
from modelyard.render.envoy.models import model_list_body
from modelyard.render.envoy.names import KEY_HEADERS, MODELS_KEY, ROUTE_HEADER
from modelyard.render.envoy.parts import model_parts, reply
from modelyard.render.envoy.pickers import use_pickers
from modelyard.render.envoy.rules import RoutePlan
from modelyard.render.envoy.settings import MEBIBYTE, GatewaySettings
from modelyard.render.envoy.tenants import TenantGroups, is_member
from modelyard.render.envoy.typed import Json, extension

ROUTE_CONFIGURATION = "models"
"""Name of the one route configuration."""

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
    return {
        key: tuple(chain.from_iterable(part.render(settings) for part in parts))
        for key, parts in model_parts(model, plan).items()
    }


def list_routes(table: RoutingTable, groups: TenantGroups) -> dict[str, tuple[Json, ...]]:
    """Return the routes of `GET /v1/models` by their key: each tenant is shown what it may use."""
    listed = tuple(listed_models(table))
    routes = [
        reply(200, model_list_body(item for item in listed if item[1].name in names), [is_member(group)])
        for group, names in groups.lists
    ]
    return {MODELS_KEY: (*routes, reply(200, model_list_body(listed)))}


def route_configuration(
    settings: GatewaySettings,
    known: Json,
    limited: Iterable[str] = (),
    *,
    pickers: bool = False,
    affinity: bool = False,
) -> Json:
    """Return the route configuration with an empty map of models.

    `known` is what `known_keys` says of callers, `limited` are the tenants that have limits. `pickers` and `affinity`:
    whether any model has an endpoint picker, or any has affinity; the filters for them are switched on then.

    `fill` of the resource builder puts the routes in: they are encoded one by one, so that a change of one model
    does not encode all of them again.
    """
    filters = {**(use_pickers() if pickers else {}), **(use_affinity() if affinity else {})}
    tenants = tuple(limited)
    # Whatever the route of unmatched requests says about a filter switches it on for all, since all begin there.
    unmatched = unlimited() if tenants else {}
    return {
        "name": ROUTE_CONFIGURATION,
        # Clusters appear and vanish while their routes stay.
        "validate_clusters": False,
        "max_direct_response_body_size_bytes": MAX_LIST_BYTES,
        # The client's key is for the gateway; engines ask for none.
        "request_headers_to_remove": list(KEY_HEADERS),
        "virtual_hosts": [_versioned(limit_tenants(_host(settings, known, filters, unmatched), tenants))],
    }


def _versioned(host: Json) -> Json:
    """Return a virtual host in which the scan can see whether the metadata is still what it has read."""
    content = json.dumps(host["metadata"], sort_keys=True).encode()
    version = hashlib.sha256(content).hexdigest()[:16]
    unmatched = host["matcher"]["on_no_match"]["action"]["typed_config"]
    unmatched["metadata"] = {"filter_metadata": {"envoy.filters.http.lua": {"version": version}}}
    return host


def route_action(*routes: Json) -> Json:
    """Return a route, or several of which the first that matches is taken, as the action of a matcher."""
    if len(routes) == 1:
        return {"action": extension("route", "envoy.config.route.v3.Route", routes[0])}
    return {"action": extension("routes", "envoy.config.route.v3.RouteList", {"routes": list(routes)})}


def _host(settings: GatewaySettings, known: Json, filters: Json, unmatched: Json) -> Json:
    return {
        "name": "models",
        "domains": ["*"],
        "typed_per_filter_config": filters,
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
                    **({"typed_per_filter_config": unmatched} if unmatched else {}),
                    "request_body_buffer_limit": settings.max_body_bytes,
                    "route": {"cluster": NO_CLUSTER, "cluster_not_found_response_code": "NOT_FOUND"},
                }
            ),
        },
    }
