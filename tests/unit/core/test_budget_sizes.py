"""What budgets make of sizes."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

from modelyard.core.budget.decide import limit_sizes
from modelyard.core.budget.judge import judge_budgets
from modelyard.core.budget.limits import SizeLimit, limit_bounds
from modelyard.core.decide import decide_deployment
from modelyard.core.demand import Demand, find_shares
from modelyard.core.reasons import Code
from modelyard.core.replicas import SizeInput, SizeMemory, SizePolicy, decide_size
from modelyard.core.routing import BudgetRule, Exhausted
from modelyard.core.scaling.schedules import Bounds
from modelyard.core.state import Policy
from tests.unit.core.budgetcases import LARGE, NOW, OWN, budget, line, route, spent
from tests.unit.core.build import make_deployment, make_snapshot
from tests.unit.core.plainload import PLAIN_LOAD


def test_demand_goes_where_budgets_leave_it():
    table = route(OWN, LARGE)
    keys = {OWN: None}
    assert [share.part for share in find_shares((table,), keys)[OWN]] == [0.5]
    without = replace(table, budgets=(BudgetRule(without=(LARGE,), refusal=Exhausted("x")),))
    assert [share.part for share in find_shares((without,), keys)[OWN]] == [1.0]
    closed = replace(table, budgets=(BudgetRule(closed=True, refusal=Exhausted("x")),))
    assert find_shares((closed,), keys)[OWN] == ()


def test_sizes_are_limited_by_the_smallest_share():
    soft = {"at": "0.5", "action": "LowerMax"}
    all_of = budget("all", soft={**soft, "maxShare": "0.75"})
    team = budget("team", soft={**soft, "maxShare": "0.5"}, scope={"namespaces": ["team"]})
    sleepy = budget("sleepy", soft={"at": "0.5", "action": "Sleep"}, scope={"deployments": [OWN]})
    known = spent(line(50, namespace="team", target=OWN))
    limits = limit_sizes((OWN, "other/own"), judge_budgets((all_of, team, sleepy), known, NOW))
    assert limits[OWN].capped_by == "all, team"
    assert limits[OWN].slept_by == "sleepy"
    assert limits["other/own"].capped_by == "all"
    assert limit_bounds(Bounds(1, 9), limits[OWN], 9) == Bounds(1, 5, budget="all, team")
    assert limit_bounds(Bounds(6, 9), limits[OWN], 9).max == 6, "min holds"
    assert limit_bounds(Bounds(0, 9), SizeLimit(capped_by="x", grows=False), 0).max == 1, "it can wake"
    assert limit_bounds(Bounds(1, 9), SizeLimit(capped_by="x", grows=False), 4).max == 4


def size_input(rate: float, current: int, **changes: Any) -> SizeInput:
    low, high = changes.pop("low", 1), changes.pop("high", 10)
    scaling = make_deployment(scaling={"min": low, "max": high, "idleAfter": "5m"}).spec.scaling
    assert scaling is not None
    demand = Demand(rate, changes.pop("last_arrival", NOW))
    return SizeInput(scaling, current, current, 0, 1.0, demand, **changes)


POLICY = SizePolicy(load=PLAIN_LOAD, down_window=300.0)


def test_a_lowered_max_is_kept_to_at_once_and_the_reason_names_the_budget():
    limited = Bounds(1, 3, budget="team")
    for current in (2, 3, 8):
        data = size_input(8.0, current, high=3, bounds=limited)
        size, _ = decide_size(data, SizeMemory(since=0.0), NOW, POLICY)
        assert (size.replicas, size.reason.code) == (3, Code.BUDGET_LIMITED)
        assert "max is lowered to 3 by budget team" in size.reason.message
    below, _ = decide_size(size_input(0.5, 1, high=3, bounds=limited), SizeMemory(since=0.0), NOW, POLICY)
    assert below.reason.code == Code.OFFERED_LOAD, "what does not bind is not named"


def test_a_budget_lets_it_sleep_as_soon_as_it_is_idle():
    idle = {"low": 0, "last_arrival": NOW - 30}
    memory = SizeMemory(since=0.0)
    awake, _ = decide_size(size_input(0.0, 1, **idle), memory, NOW, POLICY)
    assert awake.replicas == 1
    asleep, _ = decide_size(size_input(0.0, 1, slept_by="all", **idle), memory, NOW, POLICY)
    assert (asleep.replicas, asleep.reason.code) == (0, Code.BUDGET_LIMITED)
    assert asleep.reason.message == "sleeps: not used for 10 s, as budget all asks"
    used, _ = decide_size(size_input(0.1, 1, low=0, slept_by="all"), memory, NOW, POLICY)
    assert used.replicas == 1, "in use"
    held, _ = decide_size(size_input(0.0, 1, slept_by="all", last_arrival=NOW - 30), memory, NOW, POLICY)
    assert held.replicas == 1, "min 1 holds"


def test_the_decision_about_a_deployment_obeys_its_limit():
    deployment = make_deployment(scaling={"min": 2, "max": 8})
    snapshot = make_snapshot(deployment, children={deployment.key: 8})
    limit = SizeLimit(capped_by="team", grows=True, max_share=None)
    plan, _ = decide_deployment(deployment.key, snapshot, None, NOW, Policy())
    assert plan.size is not None
    assert plan.size.replicas == 8
    lowered = replace(snapshot, limits={deployment.key: replace(limit, max_share=Decimal("0.5"))})
    plan, _ = decide_deployment(deployment.key, lowered, None, NOW, Policy())
    assert plan.size is not None
    assert plan.size.replicas == 4
