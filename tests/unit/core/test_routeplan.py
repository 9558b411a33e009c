"""Routes that go where it costs least: from counters to targets, sizes and back."""

from dataclasses import replace

import pytest

from modelyard.core.budget.rules import divide
from modelyard.core.reasons import Code
from modelyard.core.routeplan.decide import decide_routes
from modelyard.core.routing import BudgetRule, Exhausted, WeightedTarget
from tests.unit.core.build import (
    KEY,
    make_deployment,
    make_provider,
    make_snapshot,
    make_targets_route,
)
from tests.unit.core.routestage import Stage

ROUTE, NAME = "team/chat", "team/chat@route"
API = "provider:acme/large"
OWN, LARGE = {"deployment": "llama"}, {"provider": "acme", "model": "large"}
PRICE = {"inputPerMillion": "0.1", "outputPerMillion": "0.5"}
"""0.000221 $ for the usual 1155 + 211 tokens: with an L4 at 0.8 $/h the break-even is at 1.006 requests/s."""
EACH = 5.0
"""Requests per second of one replica."""


def make_stage(
    *targets, price=PRICE, start=30.0, scaling=None, policy="LowestCost", others=(), **spec
) -> Stage:
    fleet = make_deployment(
        KEY,
        requests_per_minute=round(EACH * 60),
        scaling=scaling or {"min": 0, "max": 8, "idleAfter": "10m"},
    )
    route = make_targets_route(ROUTE, "chat", *(targets or (OWN, LARGE)), policy=policy, **spec)
    model = {"name": "large"} if price is None else {"name": "large", "price": price}
    snapshot = make_snapshot(fleet, *others, routes=(route,))
    return Stage(replace(snapshot, providers={"acme": make_provider("acme", model)}), start=start)


def test_little_goes_to_the_provider_and_the_deployment_sleeps():
    stage = make_stage()
    stage.run(120, {NAME: 0.5})
    plan = stage.decided(ROUTE)
    assert plan.choice.target.name == API
    assert plan.choice.reason.code == Code.PROVIDER_CHEAPER
    assert stage.replicas(KEY) == 0
    # The deployment stands by for a provider that fails, and gets nothing first.
    assert stage.route(ROUTE).targets == (
        WeightedTarget(API, 10, wanted=1),
        WeightedTarget(KEY, 0, standby=True, wanted=0),
    )


def test_above_the_break_even_the_fleet_takes_over_when_its_replicas_serve():
    stage = make_stage(start=30.0)
    stage.run(120, {NAME: 0.5})
    stage.run_until(lambda: stage.decided(ROUTE).choice.target.name == KEY, {NAME: 3.0})
    # Asked for, and nothing is sent there yet.
    assert stage.replicas(KEY) == 1
    assert stage.decided(ROUTE).spilled == 1.0
    assert stage.decided(ROUTE).spill.code == Code.STARTING
    first = stage.route(ROUTE).targets[0]
    assert (first.upstream, first.weight, first.wanted) == (KEY, 0, 1)
    stage.run(34, {NAME: 3.0})
    assert stage.decided(ROUTE).spilled == 0.0
    assert stage.route(ROUTE).targets == (
        WeightedTarget(KEY, 10, wanted=1),
        WeightedTarget(API, 0, standby=True, wanted=0),
    )


def test_a_route_that_falls_goes_back_and_its_deployment_sleeps_at_once():
    stage = make_stage(start=20.0)
    stage.run(600, {NAME: 4.0})
    assert stage.decided(ROUTE).choice.target.name == KEY
    assert stage.replicas(KEY) >= 1
    stage.run_until(lambda: stage.decided(ROUTE).choice.target.name == API, {NAME: 0.1})
    assert stage.replicas(KEY) == 0, "the last replicas go with the route, and not idleAfter later"
    assert stage.plans[KEY].size.reason.code == Code.PROVIDER_CHEAPER
    assert [name for _, name in stage.changes] == [API, KEY, API]


def test_the_fleet_has_the_size_of_the_whole_route_while_a_part_spills():
    stage = make_stage(start=60.0)
    stage.serve(KEY, 1)
    stage.run(300, {NAME: 3.0})
    assert stage.decided(ROUTE).spilled == 0.0
    stage.run_until(lambda: stage.decided(ROUTE).spilled > 0.0, {NAME: 12.0})
    assert stage.decided(ROUTE).spill.code == Code.SATURATED
    shown = {target.upstream: target.weight for target in stage.route(ROUTE).targets}
    assert 0 < shown[KEY] < 10
    assert shown[API] == 10 - shown[KEY]
    stage.run(240, {NAME: 12.0})
    assert stage.replicas(KEY) >= 3
    assert stage.decided(ROUTE).spilled == 0.0


def test_names_of_its_own_keep_a_deployment_awake_that_its_route_has_left():
    stage = make_stage(start=10.0, scaling={"min": 0, "max": 8, "idleAfter": "3m"})
    stage.run(300, {NAME: 3.0, KEY: 0.5})
    assert stage.decided(ROUTE).choice.target.name == KEY
    stage.run(500, {NAME: 0.001, KEY: 0.5})
    assert stage.replicas(KEY) == 1
    stage.run(500, {NAME: 0.001})
    assert stage.replicas(KEY) == 0


def test_a_provider_without_a_price_is_never_chosen_and_is_told():
    stage = make_stage(price=None)
    stage.run(120, {NAME: 0.2})
    plan = stage.decided(ROUTE)
    assert plan.choice.target.name == KEY
    assert [target.upstream for target in plan.targets] == [KEY]
    (refusal,) = [cost.refusal for cost in plan.choice.costs if cost.refusal]
    assert refusal.code == Code.PRICE_UNKNOWN
    assert "models[].price" in refusal.message


@pytest.mark.parametrize("rate", [0.2, 3.0])
def test_spill_false_keeps_all_requests_where_they_should_be(rate):
    stage = make_stage(spill=False, start=60.0)
    stage.run(240, {NAME: rate})
    plan = stage.decided(ROUTE)
    assert plan.spilled == 0.0
    assert not plan.may_spill
    assert stage.route(ROUTE).targets[0].weight == 10


def test_without_readings_nothing_changes():
    stage = make_stage(start=10.0)
    stage.run(300, {NAME: 4.0})
    before = stage.decided(ROUTE)
    reading = stage.now
    stage.now += 120
    snapshot = replace(stage.snapshot, pods=stage.pods())
    plan, _ = decide_routes(
        snapshot,
        stage.table.routes,
        stage.routes_memory,
        stage.memory.deployments,
        reading + 120,
        stage.policy,
    )
    assert plan.routes[ROUTE].targets == before.targets
    assert plan.routes[ROUTE].choice.reason.code == Code.NO_DATA
    assert plan.asked[KEY].replicas >= stage.replicas(KEY)


def test_after_a_restart_the_route_goes_where_its_status_says():
    stage = make_stage(start=10.0)
    route = stage.snapshot.routes[ROUTE]
    told = {"target": API, "since": "2026-12-31T00:00:00Z", "reason": "ProviderCheaper"}
    status = route.status.model_validate({"choice": told})
    stage.snapshot = replace(stage.snapshot, routes={ROUTE: route.model_copy(update={"status": status})})
    stage.serve(KEY, 1)
    stage.build()
    assert [target.upstream for target in stage.route(ROUTE).targets] == [API, KEY]
    stage.run(2, {NAME: 0.2})
    assert stage.decided(ROUTE).choice.target.name == API
    assert stage.decided(ROUTE).since == 1_798_675_200


def test_a_provider_that_a_budget_takes_away_is_left_and_stays_away():
    stage = make_stage(start=10.0)
    stage.run(300, {NAME: 0.5})
    assert stage.decided(ROUTE).choice.target.name == API
    refusal = Exhausted("Budget search is spent for this month.")
    stage.budgets = (BudgetRule(without=(API,), refusal=refusal),)
    stage.build()
    # At once, before anything is decided: what stood by takes its place.
    obeyed, _ = divide(stage.route(ROUTE))
    assert [(target.upstream, target.weight) for target in obeyed.targets] == [(KEY, 1)]
    for _ in range(10):
        stage.run(2, {NAME: 0.5})
        assert stage.decided(ROUTE).choice.target.name == KEY
    told = {cost.target.name: cost.refusal for cost in stage.decided(ROUTE).choice.costs}
    assert told[API].code == Code.BUDGET_LIMITED
    assert told[API].message == refusal.message
    assert stage.replicas(KEY) >= 1
    # The budget still sees the target that it is about.
    assert API in {target.upstream for target in stage.route(ROUTE).targets}


UNKNOWN = BudgetRule(
    without=(API,), unknown=(API,), refusal=Exhausted("What was spent of budget search is not known.")
)


def test_a_moment_of_unknown_spend_changes_where_requests_go_and_not_what_was_chosen():
    stage = make_stage(start=30.0)
    stage.run(120, {NAME: 0.5})
    since = stage.decided(ROUTE).since
    stage.budgets = (UNKNOWN,)
    stage.build()
    obeyed, _ = divide(stage.route(ROUTE))
    assert [target.upstream for target in obeyed.targets] == [KEY]
    stage.run(6, {NAME: 0.5})
    plan = stage.decided(ROUTE)
    assert plan.choice.target.name == API
    assert plan.choice.reason.code == Code.BUDGET_LIMITED
    assert "not known" in plan.choice.reason.message
    assert plan.targets[1].upstream == KEY
    assert plan.targets[1].wanted == 1
    # Requests come to it, and they are not left to wait for a replica that never starts.
    assert stage.plan.asked[KEY].released_at is None
    assert not stage.plan.asked[KEY].relieved
    stage.budgets = ()
    stage.build()
    stage.run(4, {NAME: 0.5})
    plan = stage.decided(ROUTE)
    assert (plan.choice.target.name, plan.since) == (API, since)
    assert plan.targets[0] == WeightedTarget(API, 10, wanted=1)
    assert stage.replicas(KEY) == 0
    assert [name for _, name in stage.changes] == [API]


def test_a_restart_that_does_not_know_the_spend_yet_goes_on_with_the_choice_and_starts_nothing():
    stage = make_stage(start=30.0)
    route = stage.snapshot.routes[ROUTE]
    told = {"target": API, "since": "2026-12-31T00:00:00Z", "reason": "ProviderCheaper"}
    status = route.status.model_validate({"choice": told})
    stage.snapshot = replace(stage.snapshot, routes={ROUTE: route.model_copy(update={"status": status})})
    stage.budgets = (UNKNOWN,)
    stage.build()
    stage.run(4, {NAME: 0.0})
    assert stage.decided(ROUTE).choice.target.name == API
    stage.budgets = ()
    stage.build()
    stage.run(60, {NAME: 0.0})
    assert stage.decided(ROUTE).choice.target.name == API
    assert stage.decided(ROUTE).since == 1_798_675_200
    assert stage.replicas(KEY) == 0


def test_a_provider_of_unknown_spend_takes_nothing_that_own_replicas_have_no_room_for():
    stage = make_stage(start=20.0)
    stage.serve(KEY, 1)
    stage.run(120, {NAME: 3.0})
    stage.budgets = (UNKNOWN,)
    stage.build()
    stage.run(20, {NAME: 14.0})
    assert stage.decided(ROUTE).choice.target.name == KEY
    assert stage.decided(ROUTE).spilled == 0.0
    assert not stage.plan.asked[KEY].relieved


@pytest.mark.parametrize(
    "rule", [BudgetRule(order=(API, KEY)), BudgetRule(closed=True, refusal=Exhausted("spent"))]
)
def test_what_budgets_send_elsewhere_or_refuse_is_no_load_beside_a_route_of_lowest_cost(rule):
    other, counted = "team/a", "team/a@route"
    stage = make_stage(start=10.0)
    route = make_targets_route(other, "a-model", OWN, LARGE, policy="Priority")
    stage.snapshot = replace(stage.snapshot, routes={**stage.snapshot.routes, other: route})
    make = stage.build

    def build():
        make()
        routes = tuple(
            replace(item, budgets=(rule,) if item.name == counted else ()) for item in stage.table.routes
        )
        stage.table = replace(stage.table, routes=routes)

    stage.build = build
    stage.build()
    stage.run(200, {NAME: 0.5, counted: 4.0})
    assert stage.decided(ROUTE).choice.target.name == API
    assert stage.decided(other).spilled == 0.0
    assert stage.replicas(KEY) == 0


def test_a_route_of_lowest_cost_that_a_budget_closes_is_no_load():
    stage = make_stage(start=10.0)
    stage.budgets = (BudgetRule(closed=True, refusal=Exhausted("spent")),)
    stage.build()
    stage.run(120, {NAME: 4.0})
    assert stage.decided(ROUTE).choice.numbers["requestsPerSecond"] == 0.0
    assert stage.replicas(KEY) == 0
