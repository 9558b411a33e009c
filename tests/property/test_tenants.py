"""Whoever calls reaches what he may use, by the first rule that takes him, and nothing else."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.core.routing import Endpoint, Route, RouteRule, RoutingTable, Tenant, Upstream, WeightedTarget
from modelyard.render.envoy.names import GROUPS_HEADER, MODELS_KEY, TENANT_HEADER, model_key
from modelyard.render.envoy.routes import list_routes, model_routes
from modelyard.render.envoy.rules import plan_route
from modelyard.render.envoy.settings import GatewaySettings
from modelyard.render.envoy.tenants import TenantGroups, tenant_groups

NAMES = ("t/a", "t/b", "t/c")
TENANTS = ("blue", "green", "red")
TIERS = ("gold", "silver")
SETTINGS = GatewaySettings()

route_rules = st.builds(
    RouteRule,
    targets=st.sampled_from(NAMES).map(lambda name: (WeightedTarget(name),)),
    tenants=st.sets(st.sampled_from((*TENANTS, "gone"))).map(frozenset),
    headers=st.sampled_from(((), (("x-tier", "gold"),), (("x-tier", "silver"),))),
)


@st.composite
def tables(draw: st.DrawFn) -> RoutingTable:
    """Tables with routes that each lead to a deployment of their own, unless a rule says otherwise."""
    routes = tuple(
        Route(name, (name,), (WeightedTarget(name),), tuple(draw(st.lists(route_rules, max_size=3))))
        for name in NAMES
    )
    rights = st.none() | st.sets(st.sampled_from(NAMES)).map(frozenset)
    return RoutingTable(
        routes,
        {name: Upstream(name, 0, name, (Endpoint("10.0.0.1", 1),)) for name in NAMES},
        tenants={name: Tenant(draw(rights)) for name in draw(st.sets(st.sampled_from(TENANTS), min_size=1))},
    )


def choose(routes: tuple[dict[str, Any], ...], headers: dict[str, str]) -> dict[str, Any]:
    """Return the route that Envoy takes: the first of which all header matches hold."""
    return next(
        route for route in routes if all(holds(match, headers) for match in route["match"].get("headers", ()))
    )


def holds(match: dict[str, Any], headers: dict[str, str]) -> bool:
    value = headers.get(match["name"], "" if match.get("treat_missing_header_as_empty") else None)
    if value is None:
        return False
    wanted = match["string_match"]
    found = value == wanted["exact"] if "exact" in wanted else wanted["contains"] in value
    return bool(found != match.get("invert_match", False))


def callers(table: RoutingTable, groups: TenantGroups) -> list[tuple[str | None, dict[str, str]]]:
    """Every tenant, and nobody, with the headers that the request scan sets for each."""
    found: list[tuple[str | None, dict[str, str]]] = [(None, {GROUPS_HEADER: groups.anonymous})]
    return found + [
        (name, {TENANT_HEADER: name, GROUPS_HEADER: value}) for name, value in groups.members.items()
    ]


@settings(deadline=None, max_examples=300)
@given(tables(), st.sampled_from((None, *TIERS)))
def test_a_request_goes_where_the_first_rule_says_if_its_tenant_may_use_the_route(
    table: RoutingTable, tier: str | None
) -> None:
    groups = tenant_groups(table)
    for tenant, headers in callers(table, groups):
        rights = None if tenant is None else table.tenants[tenant].routes
        sent = headers if tier is None else {**headers, "x-tier": tier}
        for route in table.routes:
            plan = plan_route(route, table, groups.users.get(route.name))
            chosen = choose(model_routes(route.name, plan, SETTINGS)[model_key(route.name)], sent)
            if rights is not None and route.name not in rights:
                assert chosen["direct_response"]["status"] == 403
                filters = chosen["typed_per_filter_config"]
                assert "envoy.filters.http.local_ratelimit" not in filters, "counted as no arrival"
                continue
            taken = next(
                (
                    rule
                    for rule in route.rules
                    if (not rule.tenants or tenant in rule.tenants)
                    and (not rule.headers or rule.headers == (("x-tier", tier),))
                ),
                route,
            )
            assert chosen["route"]["cluster"] == f"{taken.targets[0].upstream}~z0"


@settings(deadline=None)
@given(tables())
def test_a_tenant_is_shown_exactly_what_it_may_use(table: RoutingTable) -> None:
    groups = tenant_groups(table)
    for tenant, headers in callers(table, groups):
        rights = None if tenant is None else table.tenants[tenant].routes
        body = choose(list_routes(table, groups)[MODELS_KEY], headers)["direct_response"]["body"][
            "inline_string"
        ]
        shown = {name for name in NAMES if f'"{name}"' in body}
        assert shown == set(NAMES if rights is None else rights)
