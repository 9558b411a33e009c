"""Routes are encoded once: what follows from one change is built, all else is kept, and the result is the same."""

from dataclasses import replace

import pytest
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.core.limits.account import Limits
from modelyard.core.routing import (
    BudgetRule,
    Endpoint,
    Exhausted,
    Route,
    RouteRule,
    RoutingTable,
    Tenant,
    Upstream,
    WeightedTarget,
)
from modelyard.gateway import protos
from modelyard.gateway.resources import ResourceBuilder, build_resources
from modelyard.gateway.routeencoder import RouteEncoder
from modelyard.render.envoy.routes import model_routes, route_action
from modelyard.render.envoy.rules import plan_route
from modelyard.render.envoy.settings import GatewaySettings
from modelyard.render.envoy.tenants import tenant_groups

SETTINGS = GatewaySettings()
POD = Endpoint("10.0.0.1", 8000)
SPENT = Exhausted("Budget blue is spent for today; it resets at noon.", 1_800_000_000)
NAMES = ("t/a", "t/b", "t/c")
MODELS = ("a", "b", "c", "shared")

targets = st.lists(
    st.builds(WeightedTarget, st.sampled_from(NAMES), st.integers(0, 3), standby=st.booleans()),
    max_size=3,
    unique_by=lambda item: item.upstream,
).map(tuple)
spent = st.builds(Exhausted, st.sampled_from(["one", "two"]), st.none() | st.just(1_800_000_000))
rules = st.lists(
    st.builds(
        RouteRule,
        targets,
        st.frozensets(st.sampled_from(["blue", "red"]), max_size=2),
        st.sampled_from([(), (("x-tier", "gold"),)]),
        refusal=st.none() | st.just("not here"),
    ),
    max_size=2,
).map(tuple)
budgets = st.lists(
    st.builds(
        BudgetRule,
        st.sampled_from([None, "blue", "red"]),
        closed=st.booleans(),
        without=st.lists(st.sampled_from(NAMES), max_size=2, unique=True).map(
            lambda names: tuple(sorted(names))
        ),
        refusal=spent,
    ),
    max_size=3,
    unique_by=lambda rule: rule.tenant,
).map(lambda found: tuple(sorted(found, key=lambda rule: (rule.tenant is None, rule.tenant or ""))))


@st.composite
def tables(draw) -> RoutingTable:
    """A table of few names, so that one often has what the one before had."""
    routes = tuple(
        Route(
            name,
            (model, *draw(st.sampled_from([(), ("shared",)]))),
            draw(targets),
            draw(rules),
            priority=draw(st.booleans()),
            budgets=draw(budgets),
            hold_seconds=draw(st.sampled_from([60, 600])),
            first_token_seconds=draw(st.none() | st.just(5)),
            refusal=draw(st.none() | st.just("suspended")),
            created=draw(st.integers(0, 1)),
        )
        for name, model in zip(NAMES, MODELS, strict=False)
        if draw(st.booleans())
    )
    upstreams = {
        name: Upstream(name, draw(st.integers(0, 1)), name, (POD,) * draw(st.integers(0, 2)))
        for name in NAMES
        if draw(st.booleans())
    }
    rights = st.none() | st.frozensets(st.sampled_from(NAMES))
    limits = st.none() | st.just(Limits(60, None))
    tenants = {name: Tenant(draw(rights), draw(limits)) for name in ("blue", "red") if draw(st.booleans())}
    return RoutingTable(routes, upstreams, {}, tenants, anonymous=draw(st.booleans()))


KEYS = st.dictionaries(st.sampled_from(["0a", "0b"]), st.sampled_from(["blue", "red"]))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(tables(), KEYS), min_size=2, max_size=4))
def test_one_table_after_the_other_gives_what_each_gives_alone(steps):
    builder = ResourceBuilder(SETTINGS)
    for table, keys in steps:
        assert builder.build(table, tenant_keys=keys) == build_resources(table, SETTINGS, tenant_keys=keys)


@settings(deadline=None, max_examples=60)
@given(tables())
def test_what_is_encoded_in_parts_is_what_the_routes_say(table):
    """The parts are put together as bytes: they must be the message that their routes make together."""
    encoder = RouteEncoder(SETTINGS)
    message = protos.message_class("envoy.config.route.v3.RouteConfiguration").FromString(
        encoder.encode(table, {})
    )
    actions = message.virtual_hosts[0].matcher.matcher_tree.exact_match_map.map
    told, users = {}, tenant_groups(table).users
    for route in reversed(table.routes):
        for model in route.models:
            told |= model_routes(model, plan_route(route, table, users.get(route.name)), SETTINGS)
    for key, found in told.items():
        expected = protos.parse("xds.type.matcher.v3.Matcher.OnMatch", route_action(*found))
        assert as_dict(actions[key]) == as_dict(expected)


def as_dict(message):
    return json_format.MessageToDict(message, descriptor_pool=protos.pool())


@pytest.fixture
def counted(monkeypatch):
    """The kinds of messages that are encoded."""
    kinds, encode = [], protos.encode
    monkeypatch.setattr(protos, "encode", lambda kind, value: kinds.append(kind) or encode(kind, value))
    return kinds


def fleet(count: int, **changes) -> RoutingTable:
    names = [f"t/m{number}" for number in range(count)]
    return RoutingTable(
        tuple(Route(name, (name,), (WeightedTarget(name),), **changes) for name in names),
        {name: Upstream(name, 0, name, (POD,)) for name in names},
        {},
        {"blue": Tenant()},
    )


def test_a_spent_budget_of_a_tenant_encodes_one_refusal_for_all_models(counted):
    builder = ResourceBuilder(SETTINGS)
    builder.build(fleet(200))
    counted.clear()
    builder.build(fleet(200, budgets=(BudgetRule("blue", closed=True, refusal=SPENT),)))
    assert len(counted) == 1
    later = replace(SPENT, until=SPENT.until + 1)
    builder.build(fleet(200, budgets=(BudgetRule("blue", closed=True, refusal=later),)))
    assert len(counted) == 2
    # The budget opens again: everything is known.
    builder.build(fleet(200))
    assert len(counted) == 2


def test_a_model_that_is_renamed_or_gone_leaves_nothing_behind():
    encoder = RouteEncoder(SETTINGS)
    encoder.encode(fleet(50), {})
    kept = len(encoder._parts)
    encoder.encode(fleet(50, budgets=(BudgetRule(closed=True, refusal=SPENT),)), {})
    encoder.encode(fleet(50), {})
    assert len(encoder._parts) == kept
    encoder.encode(fleet(1), {})
    assert len(encoder._parts) == 2
    assert len(encoder._uses) == 2
