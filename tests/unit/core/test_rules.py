"""What the table makes of a route's rules, what the status says of them, and whose demand they are."""

from dataclasses import replace

from modelyard.core.budget.rules import divide
from modelyard.core.demand import Share, find_shares
from modelyard.core.names import build_routing_table, resolve_names
from modelyard.core.reasons import Code, Reason
from modelyard.core.routing import BudgetRule, Exhausted, Route, RouteRule, RoutingTable, WeightedTarget
from modelyard.core.snapshot import Snapshot
from modelyard.core.status import build_route_status
from modelyard.gateway.counters import Answered, GatewayCounters
from modelyard.runtime.readings import build_reading
from tests.unit.core.build import NOW, make_deployment, make_provider, make_snapshot, make_targets_route

OWN, ACME = {"deployment": "llama"}, {"provider": "acme", "model": "large"}
LLAMA, LARGE = WeightedTarget("team/llama"), WeightedTarget("provider:acme/large")
GOLD = {"headers": [{"name": "X-Tier", "value": "Gold"}]}


def build(*rules: dict[str, object], **spec: object) -> tuple[Route, tuple[str, str, str], RoutingTable]:
    """The route of a table, its Ready condition, and the table."""
    route = make_targets_route("team/chat", "chat", OWN, rules=list(rules), **spec)
    snapshot = make_snapshot(make_deployment("team/llama"), routes=(route,))
    snapshot = replace(snapshot, providers={"acme": make_provider()})
    return _route(snapshot)


def _route(snapshot: Snapshot) -> tuple[Route, tuple[str, str, str], RoutingTable]:
    table = build_routing_table(snapshot, resolve_names(snapshot), {}, RoutingTable(), anonymous=True)
    (route,) = (item for item in table.routes if item.name == "team/chat@route")
    status = build_route_status(
        snapshot.routes["team/chat"], snapshot, (True, Reason(Code.ROUTED, "here")), NOW
    )
    ready, *_ = status.conditions
    return route, (ready.status, ready.reason, ready.message), table


def test_a_rule_names_headers_in_lower_case_and_values_as_they_are():
    route, ready, table = build(
        {"match": {**GOLD, "tenants": ["blue", "red"]}, "targets": [{**ACME, "weight": 3}, OWN]}
    )
    assert route.rules == (
        RouteRule((replace(LARGE, weight=3), LLAMA), frozenset({"blue", "red"}), (("x-tier", "Gold"),)),
    )
    assert table.externals.keys() == {"provider:acme/large"}, "also those that only a rule uses"
    assert ready[0] == "True"
    assert route.upstreams == ("team/llama", "provider:acme/large")


def test_policy_and_quality_hold_in_rules():
    route, ready, table = build({"match": GOLD, "targets": [ACME]}, dataPolicy="Sovereign")
    assert (route.refusal, route.targets) == (None, (LLAMA,))
    (rule,) = route.rules
    assert rule.targets == ()
    assert "provider acme gets no request" in (rule.refusal or "")
    assert table.externals == {}
    assert ready[:2] == ("False", Code.DATA_POLICY_VIOLATED)

    low = {**OWN, "quality": "0.3"}
    snapshot_route = make_targets_route(
        "team/chat",
        "chat",
        {**OWN, "quality": "0.9"},
        rules=[{"match": GOLD, "targets": [low]}],
        minQuality="0.5",
    )
    route, ready, _ = _route(make_snapshot(make_deployment("team/llama"), routes=(snapshot_route,)))
    assert route.rules[0].targets == ()
    assert ready[:2] == ("False", Code.QUALITY_TOO_LOW)


def test_a_sovereign_neighbour_closes_the_rules_too():
    first = make_targets_route("team/chat", "chat", OWN, rules=[{"match": GOLD, "targets": [ACME]}])
    second = make_targets_route(
        "team/other", "chat", OWN, dataPolicy="Sovereign", created="2026-02-01T00:00:00Z"
    )
    snapshot = make_snapshot(make_deployment("team/llama"), routes=(first, second))
    route, ready, _ = _route(replace(snapshot, providers={"acme": make_provider()}))
    assert route.rules[0].targets == ()
    assert ready[1] == Code.DATA_POLICY_VIOLATED


def test_a_target_that_is_missing_in_two_rules_is_named_once():
    gone = {"match": GOLD, "targets": [{"deployment": "gone"}]}
    _, ready, _ = build(gone, gone)
    assert ready == ("False", Code.TARGET_NOT_FOUND, "LLMDeployment team/gone does not exist")


RULED = Route("r@route", ("chat",), (LLAMA,), (RouteRule((LARGE, LLAMA)), RouteRule((LARGE,))))


def test_what_a_rule_takes_is_its_own_demand():
    assert find_shares((RULED,), {"team/llama": None}) == {
        "team/llama": (Share("r@route#0", 0.5), Share("r@route", 1.0))
    }
    first = replace(RULED, priority=True)
    assert find_shares((first,), {"team/llama": None}) == {"team/llama": (Share("r@route", 1.0),)}


def test_what_is_under_way_is_the_work_of_the_targets_that_it_came_to():
    """Requests to one branch of a route keep no target of another awake, nor does what was refused let one sleep."""
    own = replace(RULED, rules=(RouteRule((WeightedTarget("team/gold"),)), *RULED.rules))
    refused = {(Answered("r@route", "chat", ""), "4xx"): 50}
    counters = GatewayCounters(
        arrivals={"r@route": 103, "r@route#0": 4, "r@route#1": 4, "r@route#2": 1},
        ended={"r@route": 100, "r@route#0": 4, "r@route#1": 2},
        requests={(Answered("r@route", "chat", "team/llama"), "2xx"): 106, **refused},
    )
    reading = build_reading(counters, {"envoy": counters}, (own,), NOW)
    assert reading.active == {"team/gold": 0, "team/llama": 3 + 2}
    gone = GatewayCounters(arrivals={"r@route#0": 9}, ended={"r@route#0": 2})
    assert build_reading(gone, {"envoy": counters}, (own,), NOW).active["team/gold"] == 0, (
        "of those there are"
    )


def test_budgets_hold_in_rules():
    spent = Exhausted("spent")
    rest, named = divide(replace(RULED, budgets=(BudgetRule(without=(LARGE.upstream,), refusal=spent),)))
    assert named == ()
    assert (rest.targets, rest.exhausted) == ((LLAMA,), None)
    assert rest.rules == (RouteRule((LLAMA,)), RouteRule((), exhausted=spent))
    closed, _ = divide(replace(RULED, budgets=(BudgetRule(closed=True, refusal=spent),)))
    assert (closed.targets, closed.rules, closed.exhausted) == ((), (), spent)
    ordered, _ = divide(
        replace(RULED, budgets=(BudgetRule(order=(LLAMA.upstream, LARGE.upstream), refusal=spent),))
    )
    others = (WeightedTarget(LARGE.upstream, 0, standby=True),)
    assert ordered.rules[0].targets == (replace(LLAMA, weight=2), *others)
