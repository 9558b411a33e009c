"""Placement on small fleets whose answer can be worked out by hand."""

import math
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from modelyard.core.placement.greedy import extend, place_greedily
from modelyard.core.placement.problem import (
    Allocation,
    Budget,
    Candidate,
    NodeGroup,
    PlacementDemand,
    PlacementPolicy,
    PlacementProblem,
)
from modelyard.core.placement.solve import solve

L4 = Candidate("l4", "l4", 1, capacity=1.0, price=1.0)
H100 = Candidate("h100", "h100", 1, capacity=10.0, price=7.0)
H100_X4 = Candidate("h100-x4", "h100", 4, capacity=50.0, price=28.0)
SPOT = Candidate("l4-spot", "l4-spot", 1, capacity=1.0, price=0.4, spot=True)


def _demand(key: str = "a/a", *candidates: Candidate, capacity: float = 10.0, **more: Any) -> PlacementDemand:
    return PlacementDemand(key, candidates or (L4, H100), capacity, **more)


def _nodes(pool: str, *free: int, zone: str = "", **more: Any) -> NodeGroup:
    return NodeGroup(f"{pool}{zone}", frozenset({pool}), free, zone, **more)


def _problem(
    *demands: PlacementDemand, groups: tuple[NodeGroup, ...] | None = None, **more: Any
) -> PlacementProblem:
    return PlacementProblem(demands, groups, **more)


def _only(problem: PlacementProblem) -> Allocation:
    (allocation,) = solve(problem).allocations.values()
    return allocation


def test_the_cheapest_mix_is_chosen_where_nothing_is_scarce():
    result = solve(_problem(_demand(capacity=12.0)))
    assert result.allocations["a/a"] == Allocation({"h100": 1, "l4": 2})
    assert result.cost == 9.0
    assert result.method == "optimal"


def test_a_replica_needs_its_accelerators_on_one_node():
    demand = _demand("a/a", H100_X4, L4, capacity=3.0)
    big = replace(demand, candidates=(replace(H100_X4, price=1.0), L4))
    allocation = _only(_problem(big, groups=(_nodes("h100", 3, 3), _nodes("l4", 8))))
    assert allocation.replicas == {"l4": 3}
    assert allocation.limits == ("nodes of pool h100 have at most 3 free on one node, 4 needed",)


def test_sizes_that_do_not_divide_each_other_are_packed_exactly():
    three = Candidate("three", "p", 3, capacity=3.0, price=3.0)
    two = Candidate("two", "p", 2, capacity=1.9, price=2.0)
    demands = (_demand("a/a", three, capacity=6.0), _demand("b/b", two, capacity=3.8))
    fits = solve(_problem(*demands, groups=(_nodes("p", 5, 5),)))
    assert {k: dict(a.replicas) for k, a in fits.allocations.items()} == {
        "a/a": {"three": 2},
        "b/b": {"two": 2},
    }
    # As many accelerators, but one node cannot take three and three, nor two and two beside.
    short = solve(_problem(*demands, groups=(_nodes("p", 4, 6),)))
    assert sum(a.shortage for a in short.allocations.values()) > 0


def test_a_running_replica_keeps_a_larger_one_out_but_not_one_of_higher_priority():
    running = ({("b/b", "small"): 1}, {("b/b", "small"): 1})
    small = Candidate("small", "h100", 1, capacity=1.0, price=1.0)
    groups = (_nodes("h100", 4, 4, running=running),)
    low = _demand("b/b", small, capacity=2.0, current={"small": 2})
    high = _demand("a/a", H100_X4, capacity=50.0)
    equal = solve(_problem(high, low, groups=groups)).allocations
    assert equal["a/a"].shortage == 50.0
    assert equal["b/b"].replicas == {"small": 2}
    above = solve(_problem(replace(high, priority=5), low, groups=groups)).allocations
    assert above["a/a"].replicas == {"h100-x4": 1}
    assert above["b/b"].replicas == {"small": 2}


def test_the_higher_priority_gets_what_there_is():
    groups = (_nodes("l4", 4),)
    demands = [_demand(f"a/{i}", L4, capacity=4.0, priority=i) for i in range(3)]
    result = solve(_problem(*demands, groups=groups))
    assert [result.allocations[f"a/{i}"].shortage for i in range(3)] == [4.0, 4.0, 0.0]
    assert result.allocations["a/0"].limits == ("nodes of pool l4 have no free accelerators",)


def test_a_budget_is_a_limit_and_named():
    budget = Budget("team-a", frozenset({"a/a"}), 5.0)
    result = solve(_problem(_demand("a/a", L4), budgets=(budget,)))
    assert result.allocations["a/a"].replicas == {"l4": 5}
    assert result.allocations["a/a"].shortage == 5.0
    assert result.allocations["a/a"].limits == ("budget team-a of 5 $/h is used up",)


def test_maximum_and_ceiling_are_limits_and_named():
    top = _only(_problem(_demand("a/a", L4, maximum=8)))
    assert (top.replicas, top.limits) == ({"l4": 8}, ("maximum of 8 replicas",))
    scarce = _only(_problem(_demand("a/a", replace(H100, ceiling=0), L4)))
    assert scarce.replicas == {"l4": 10}
    assert scarce.limits == ("only 0 replicas on h100 can be had at present",)


def test_limits_are_told_in_words_of_the_user():
    named = replace(H100_X4, name="zzzzz", label="4 x h100", nodes="nodes of class h100", price=1.0)
    full = _only(
        _problem(_demand("a/a", named, L4, capacity=3.0), groups=(_nodes("h100", 3), _nodes("l4", 8)))
    )
    assert full.limits == ("nodes of class h100 have at most 3 free on one node, 4 needed",)
    scarce = _only(_problem(_demand("a/a", replace(named, ceiling=1), L4, capacity=100.0)))
    assert scarce.limits == ("only 1 replica on 4 x h100 can be had at present",)
    one = _only(_problem(_demand("a/a", L4, maximum=1)))
    assert one.limits == ("maximum of 1 replica",)


def test_what_is_left_when_a_zone_is_lost_meets_the_load():
    groups = tuple(_nodes("l4-spot", 8, 8, zone=zone) for zone in "abc")
    assert _only(_problem(_demand("a/a", SPOT, L4), groups=groups)).replicas == {"l4-spot": 15}


def test_spot_of_one_zone_carries_nothing_alone_but_serves_where_nothing_else_is():
    groups = (_nodes("l4-spot", 8, 8, zone="a"), _nodes("l4", 16, zone="a"))
    assert _only(_problem(_demand("a/a", SPOT, L4), groups=groups)).replicas == {"l4": 10}
    assert _only(_problem(_demand("a/a", SPOT, L4), groups=groups[:1])).replicas == {"l4-spot": 10}


def test_the_on_demand_base_stands_beside_spot():
    groups = (*(_nodes("l4-spot", 8, 8, zone=zone) for zone in "abc"), _nodes("l4", 16))
    allocation = _only(_problem(_demand("a/a", SPOT, L4, on_demand_base=2), groups=groups))
    assert allocation.replicas == {"l4": 2, "l4-spot": 12}


def test_a_base_needs_no_more_replicas_than_the_load():
    assert _only(_problem(_demand("a/a", L4, capacity=1.0, on_demand_base=3))).replicas == {"l4": 1}


def test_a_change_must_earn_back_what_it_costs():
    slow = replace(H100, price=9.0, start_time=600.0)
    current = {"l4": 10}
    demand = _demand("a/a", replace(L4, start_time=600.0), slow, current=current)
    # 1 $/h saved against 10 replicas paid twice for ten minutes: more than half an hour's saving.
    held = _only(_problem(demand))
    assert held.replicas == current
    assert held.limits == ("a change to h100 would not earn back what it costs",)
    patient = PlacementPolicy(switching_hours=24.0)
    assert _only(_problem(demand, policy=patient)).replicas == {"h100": 1}


@pytest.mark.parametrize("wobble", [0.98, 0.99, 1.01, 1.02])
def test_prices_that_wobble_change_nothing(wobble: float):
    twin = replace(L4, name="twin")
    demand = _demand("a/a", L4, replace(twin, price=wobble), current={"l4": 6, "twin": 4})
    assert _only(_problem(demand)).replicas == {"l4": 6, "twin": 4}


def test_scaling_up_and_down_is_no_switch():
    grown = _demand("a/a", replace(L4, start_time=900.0), capacity=12.0, current={"l4": 10})
    result = solve(_problem(grown))
    assert result.allocations["a/a"].replicas == {"l4": 12}
    assert result.objective == pytest.approx(12.0)
    assert _only(_problem(replace(grown, capacity=3.0))).replicas == {"l4": 3}


@pytest.mark.parametrize(
    ("demand", "replicas", "shortage"),
    [
        (_demand("a/a", capacity=0.0), {}, 0.0),
        (PlacementDemand("a/a", (), 5.0, minimum=1), {}, 5.0),
        (_demand("a/a", replace(L4, capacity=0.0), capacity=0.0, minimum=2), {"l4": 2}, 0.0),
        (_demand("a/a", replace(L4, capacity=0.0), capacity=5.0), {}, 5.0),
        (_demand("a/a", L4, capacity=0.0, minimum=9, maximum=3), {"l4": 3}, 0.0),
        (_demand("a/a", L4, capacity=0.0, minimum=50), {"l4": 6}, 0.0),
        (_demand("a/a", replace(L4, price=0.0), capacity=3.0), {"l4": 3}, 0.0),
        (_demand("a/a", replace(L4, capacity=math.inf), capacity=3.0), {"l4": 1}, 0.0),
        (_demand("a/a", replace(L4, capacity=1e-9), capacity=1e9), {}, 1e9),
        (_demand("a/a", replace(L4, accelerators=99), capacity=3.0), {}, 3.0),
    ],
    ids=[
        "nothing",
        "no variant",
        "no capacity",
        "no use",
        "bounds",
        "minimum",
        "free",
        "endless",
        "huge",
        "large",
    ],
)
@pytest.mark.parametrize("decide", [solve, place_greedily])
def test_odd_input(decide, demand: PlacementDemand, replicas: dict[str, int], shortage: float):
    result = decide(_problem(demand, groups=(_nodes("l4", 4, 2, 0),)))
    assert result.allocations["a/a"].replicas == replicas
    assert result.allocations["a/a"].shortage == pytest.approx(shortage)
    assert math.isfinite(result.objective)


def test_no_deployments_and_no_nodes():
    assert solve(_problem()).allocations == {}
    empty = solve(_problem(_demand(), groups=(NodeGroup("g", frozenset(), ()),)))
    assert empty.allocations["a/a"].limits == ("there are no nodes of pool h100",)
    assert solve(_problem(_demand(), groups=())).allocations["a/a"].shortage == 10.0


def test_extend_adds_to_what_runs_and_takes_away():
    other = _demand("b/b", L4, capacity=3.0, current={"l4": 3})
    groups = (_nodes("l4", 8), _nodes("h100", 2))
    grown = _demand("a/a", L4, H100, capacity=6.0, current={"l4": 4})
    assert extend(_problem(grown, other, groups=groups), "a/a").replicas == {"l4": 5, "h100": 1}
    shrunk = replace(grown, capacity=2.0)
    assert extend(_problem(shrunk, other, groups=groups), "a/a").replicas == {"l4": 2}
    with pytest.raises(KeyError):
        extend(_problem(other), "a/a")


def test_extend_respects_budget_and_ceiling():
    budget = Budget("team", frozenset({"a/a", "b/b"}), 6.0)
    other = _demand("b/b", L4, capacity=3.0, current={"l4": 3})
    grown = _demand("a/a", L4, capacity=6.0, current={"l4": 1})
    allocation = extend(_problem(grown, other, budgets=(budget,)), "a/a")
    assert (allocation.replicas, allocation.shortage) == ({"l4": 3}, 3.0)
    assert allocation.limits == ("budget team of 6 $/h is used up",)
    capped = replace(grown, candidates=(replace(L4, ceiling=2),))
    assert extend(_problem(capped), "a/a").replicas == {"l4": 2}


def test_greedy_says_how_far_it_may_be_off():
    result = place_greedily(_problem(_demand(capacity=12.0)))
    assert result.method == "greedy"
    assert 0 < result.bound <= 9.0 <= result.objective
    assert result.gap == pytest.approx(1 - result.bound / result.objective)


def test_the_solver_prints_no_progress():
    code = (
        "from modelyard.core.placement.problem import *\n"
        "from modelyard.core.placement.solve import solve\n"
        "c = Candidate('l4', 'l4', 1, 1.0, 1.0)\n"
        "solve(PlacementProblem((PlacementDemand('a/a', (c,), 3.0),), None))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": "operator"},
    )
    assert run.stdout == ""
