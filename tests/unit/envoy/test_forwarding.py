"""Which clusters a route's requests are sent to, one attempt after the other."""

from dataclasses import replace

import pytest

from modelyard.core.routing import Endpoint, ExternalUpstream, Route, RoutingTable, Upstream, WeightedTarget
from modelyard.render.envoy.forwarding import Choice, forward, route_targets, split
from modelyard.render.envoy.routes import model_routes
from modelyard.render.envoy.rules import Branch, RoutePlan
from modelyard.render.envoy.settings import GatewaySettings

ONE, TWO = Endpoint("10.0.0.1", 8000), Endpoint("10.0.0.2", 8000)
ACME = ExternalUpstream("acme", "large", "api.acme.example")
SETTINGS = GatewaySettings()


def table(*pods: Endpoint) -> RoutingTable:
    """`t/a` has these pods, `t/b` has one, `t/asleep` none."""
    upstreams = {
        "t/a": Upstream("t/a", 0, "a", pods),
        "t/b": Upstream("t/b", 2, "b", (ONE,)),
        "t/asleep": Upstream("t/asleep", 5, "asleep", ()),
    }
    return RoutingTable((), upstreams, {ACME.cluster: ACME}, anonymous=True)


def route(*targets: str, **changes) -> Route:
    return Route("t/r@route", ("r",), tuple(WeightedTarget(target) for target in targets), **changes)


@pytest.mark.parametrize(
    ("targets", "clusters"),
    [
        (("t/a",), ("t/a~z0",)),
        (("t/asleep",), ("t/asleep~z5",)),
        ((ACME.cluster,), (ACME.cluster,)),
        (("t/a", ACME.cluster), ("t/a~z0", "t/a~z0", ACME.cluster)),
        ((ACME.cluster, "t/a"), (ACME.cluster, "t/a~z0", "t/a~z0")),
        (("t/b", "t/a", ACME.cluster), ("t/b~z2", "t/a~z0", "t/a~z0", ACME.cluster)),
        (("t/asleep", ACME.cluster), ("t/asleep~z5", ACME.cluster)),
        ((ACME.cluster, "t/asleep", "t/b"), (ACME.cluster, "t/b~z2")),
        ((ACME.cluster, "t/asleep"), (ACME.cluster,)),
        (("t/gone", "t/b"), ("t/b~z2",)),
        (("t/gone",), None),
    ],
)
def test_targets_are_tried_in_their_order(targets, clusters):
    found = route_targets(route(*targets, priority=True), table(ONE, TWO))
    assert found == (() if clusters is None else (Choice(1, clusters),))


def test_each_drawn_target_falls_back_to_those_after_it_and_then_to_those_before_it():
    found = route_targets(route("t/a", "t/b", ACME.cluster), table(ONE))
    assert [choice.clusters for choice in found] == [
        ("t/a~z0", "t/b~z2", ACME.cluster),
        ("t/b~z2", ACME.cluster, "t/a~z0"),
        (ACME.cluster, "t/a~z0", "t/b~z2"),
    ]


def test_a_route_with_one_target_does_not_change_when_its_pods_do():
    assert route_targets(route("t/a"), table(ONE)) == route_targets(route("t/a"), table(ONE, TWO))


def test_a_sovereign_route_has_no_provider_even_if_its_table_says_so():
    found = route_targets(route(ACME.cluster, "t/b", sovereign=True), table())
    assert found == (Choice(1, ("t/b~z2",)),)


def test_shares_are_cumulative_parts_of_one_random_number():
    matches = split((Choice(5, ("a",)), Choice(3, ("b",)), Choice(2, ("c",))))
    parts = [match.get("runtime_fraction", {}).get("default_value") for match in matches]
    assert parts == [
        {"numerator": 500_000, "denominator": "MILLION"},
        {"numerator": 800_000, "denominator": "MILLION"},
        None,
    ]


def test_as_many_retries_as_further_attempts():
    action = forward(route("t/a", ACME.cluster), Choice(1, ("x", "x", "y")), SETTINGS)["route"]
    policy = action["retry_policy"]
    assert (policy["num_retries"], policy["refresh_cluster_on_retry"]) == (2, True)
    assert "5xx" in policy["retry_on"]
    alone = forward(route("t/a"), Choice(1, ("x",)), SETTINGS)["route"]
    assert alone["cluster"] == "x"
    assert "5xx" not in alone["retry_policy"]["retry_on"]
    assert alone["retry_policy"]["num_retries"] == SETTINGS.retries


def test_only_streams_have_a_time_to_the_first_token():
    bounded = replace(route("t/a", priority=True), first_token_seconds=20)
    choices = (Choice(1, ("t/a~z0",)),)
    branches = (Branch("t/r", choices),)
    routes = model_routes("r", RoutePlan(bounded, branches), SETTINGS)["model:r"]
    streamed, unary = routes
    assert streamed["match"]["headers"] == [{"name": "x-modelyard-stream", "string_match": {"exact": "true"}}]
    assert streamed["route"]["retry_policy"]["per_try_timeout"] == "20s"
    assert not unary["match"].get("headers")
    assert "per_try_timeout" not in unary["route"]["retry_policy"]
    assert len(model_routes("r", RoutePlan(route("t/a"), branches), SETTINGS)["model:r"]) == 1
