"""Requests of any route go elsewhere while replicas are missing, and come back."""

from dataclasses import replace

import pytest

from modelyard.core.breakeven.inputs import BreakEvenPolicy, OwnTarget, RouteLoad
from modelyard.core.breakeven.need import Work
from modelyard.core.demand import find_shares
from modelyard.core.load import LoadShape
from modelyard.core.reasons import Code
from modelyard.core.routeplan.spill import Rooms, spill
from modelyard.core.routeplan.views import DeploymentView
from modelyard.core.routing import WeightedTarget, rule_name
from tests.unit.core.build import KEY, make_deployment
from tests.unit.core.test_routeplan import API, LARGE, NAME, OWN, ROUTE, make_stage

OTHER = "team/other"
LOAD = RouteLoad(10.0, 10.0, 0.0)


def make_rooms(**serving: int) -> Rooms:
    """Deployments `team/NAME` with so many serving replicas of 5 requests/s each."""
    views = {
        f"team/{name}": DeploymentView(
            f"team/{name}", None, LoadShape(), count, count, 0, 8, 30.0, measured=True
        )
        for name, count in serving.items()
    }
    return Rooms(views, BreakEvenPolicy())


def own(*names: str) -> dict[str, OwnTarget]:
    return {f"team/{name}": OwnTarget(f"team/{name}", 5.0) for name in names}


def test_what_has_room_stays():
    rooms = make_rooms(a=4)
    rooms.work["team/a"] = Work(2.0, 0.0)
    found = spill({"team/a": 1}, ("team/a", API), own("a"), LOAD, rooms)
    assert (found.weights, found.part, found.reason) == ({"team/a": 10, API: 0}, 0.0, None)


def test_a_deployment_without_serving_replicas_spills_all_to_the_next():
    found = spill({"team/a": 1}, ("team/a", API), own("a"), LOAD, make_rooms(a=0))
    assert found.weights == {"team/a": 0, API: 10}
    assert found.part == 1.0
    assert found.reason.code == Code.STARTING


def test_a_saturated_one_spills_what_it_has_no_room_for():
    rooms = make_rooms(a=1)
    rooms.work["team/a"] = Work(2.0, 0.0)
    found = spill({"team/a": 1}, ("team/a", API), own("a"), LOAD, rooms)
    # Two replicas' work, planned with 0.9 or so of each: less than half of it stays.
    assert found.weights["team/a"] in (4, 5)
    assert found.part == pytest.approx(1 - found.weights["team/a"] / 10)
    assert found.reason.code == Code.SATURATED


def test_what_the_size_rule_lets_miss_is_no_saturation():
    rooms = make_rooms(a=1)
    rooms.work["team/a"] = Work(0.93, 0.0)
    usual = spill({"team/a": 1}, ("team/a", API), own("a"), LOAD, rooms)
    assert usual.reason is not None
    assert usual.reason.code == Code.SATURATED
    # Calm has taught the size rule that one replica is enough, so nothing is started, and nothing has to spill.
    rooms.deployments = {"team/a": replace(rooms.deployments["team/a"], missed=0.03)}
    learned = spill({"team/a": 1}, ("team/a", API), own("a"), LOAD, rooms)
    assert (learned.part, learned.reason) == (0.0, None)


def test_a_deployment_takes_no_more_than_it_has_room_for_and_the_next_gets_the_rest():
    rooms = make_rooms(a=0, b=1)
    found = spill({"team/a": 1}, ("team/a", "team/b", API), own("a", "b"), LOAD, rooms)
    # 10 requests/s come, and one replica of 5 answers less than half of them with headroom.
    assert 0 < found.weights["team/b"] < 5
    assert found.weights[API] == 10 - found.weights["team/b"]
    # A second route finds it full.
    again = spill({"team/a": 1}, ("team/a", "team/b", API), own("a", "b"), LOAD, rooms)
    assert again.weights["team/b"] == 0


def test_what_nobody_has_room_for_waits_where_it_should_go():
    rooms = make_rooms(a=0, b=0)
    found = spill({"team/a": 1}, ("team/a", "team/b"), own("a", "b"), LOAD, rooms)
    assert (found.weights, found.part) == ({"team/a": 10, "team/b": 0}, 0.0)


def test_each_part_of_a_weighted_route_spills_for_itself():
    rooms = make_rooms(a=0, b=4)
    found = spill({"team/a": 1, "team/b": 3}, ("team/a", "team/b", API), own("a", "b"), LOAD, rooms)
    assert found.weights == {"team/a": 0, "team/b": 40, API: 0}
    assert found.part == pytest.approx(0.25)


def test_a_capacity_that_is_only_assumed_says_nothing_about_saturation():
    rooms = make_rooms(a=1)
    rooms.work["team/a"] = Work(50.0, 0.0)
    views = {"team/a": replace(rooms.deployments["team/a"], measured=False)}
    assert Rooms(views, BreakEvenPolicy(), rooms.work).tenths("team/a") == 10


def test_a_priority_route_spills_while_its_deployment_starts_and_comes_back():
    stage = make_stage(policy="Priority", start=40.0)
    stage.run(10, {NAME: 1.0})
    # Asleep: the first requests wake it, and go to the provider meanwhile.
    assert stage.replicas(KEY) >= 1
    route = stage.route(ROUTE)
    assert not route.priority
    assert route.targets == (
        WeightedTarget(KEY, 0, standby=True, wanted=1),
        WeightedTarget(API, 10, standby=False, wanted=0),
    )
    (share,) = find_shares((route,), {KEY: None})[KEY]
    assert share.part == 1.0
    stage.run(44, {NAME: 1.0})
    route = stage.route(ROUTE)
    assert route.priority
    assert route.targets == (WeightedTarget(KEY), WeightedTarget(API))
    assert stage.decided(ROUTE).spilled == 0.0


def test_spill_false_makes_a_priority_route_wait_as_before():
    stage = make_stage(policy="Priority", spill=False, start=40.0)
    stage.run(10, {NAME: 1.0})
    assert stage.plan.routes == {}
    assert stage.route(ROUTE).priority
    assert stage.route(ROUTE).targets == (WeightedTarget(KEY), WeightedTarget(API))


def test_what_spills_does_not_count_as_waiting():
    """Else a start would be followed by replicas that work off what a provider has answered long ago."""
    backlogs = []
    for spills in (None, False):
        stage = make_stage(policy="Priority", spill=spills, start=60.0)
        stage.run(40, {NAME: 4.0})
        backlogs.append(stage.plans[KEY].size.numbers["backlog"])
    assert backlogs[0] == 0.0
    assert backlogs[1] > 0.0


@pytest.mark.parametrize("policy", ["Priority", "LowestCost"])
def test_a_sovereign_route_spills_to_own_deployments_only(policy):
    other = make_deployment(OTHER, requests_per_minute=300)
    targets = (OWN, {"deployment": "other"})
    stage = make_stage(*targets, policy=policy, start=60.0, others=(other,), dataPolicy="Sovereign")
    stage.serve(OTHER, 1)
    stage.run(20, {NAME: 1.0})
    route = stage.route(ROUTE)
    first = {target.upstream for target in route.targets if target.weight}
    assert first == {OTHER}
    assert all(not target.upstream.startswith("provider:") for target in route.targets)


def test_a_sovereign_route_never_spills_to_a_provider_that_should_have_been_refused():
    for policy in ("Priority", "Weighted", "LowestCost"):
        stage = make_stage(OWN, LARGE, policy=policy, dataPolicy="Sovereign")
        stage.run(20, {NAME: 1.0})
        assert {target.upstream for target in stage.route(ROUTE).targets} == {KEY}


def test_the_targets_of_rules_stay_in_their_order_while_the_route_spills():
    rules = [{"match": {"headers": [{"name": "x-tier", "value": "low"}]}, "targets": [LARGE, OWN]}]
    stage = make_stage(policy="Priority", start=40.0, rules=rules)
    stage.run(10, {NAME: 1.0})
    route = stage.route(ROUTE)
    assert not route.priority
    assert route.rules[0].targets == (WeightedTarget(API, 1), WeightedTarget(KEY, 0, standby=True))
    stage.run(60, {NAME: 1.0})
    assert stage.route(ROUTE).priority
    assert stage.route(ROUTE).rules[0].targets == (WeightedTarget(API), WeightedTarget(KEY))


def test_rules_of_a_route_of_lowest_cost_follow_its_choice_and_count_for_their_targets():
    rules = [{"match": {"headers": [{"name": "x-tier", "value": "low"}]}, "targets": [LARGE, OWN]}]
    stage = make_stage(start=10.0, rules=rules)
    ruled = rule_name(NAME, 0)
    stage.run(300, {NAME: 3.0, ruled: 0.5})
    assert stage.decided(ROUTE).choice.target.name == KEY
    assert stage.route(ROUTE).rules[0].targets == (
        WeightedTarget(KEY, 1),
        WeightedTarget(API, 0, standby=True),
    )
    shares = {share.route: share.part for share in find_shares(stage.table.routes, {KEY: None})[KEY]}
    assert (shares[NAME], shares[ruled]) == (1.0, 1.0)
    # What rules take counts as other work of the deployment.
    assert [share.route for share in stage.routes_memory.others[KEY].shares] == [KEY, ruled]
