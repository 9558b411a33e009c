"""Laws of budgets: more spend never opens anything, the strictest wins, not knowing is safe."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.api.llmbudget import LLMBudget
from modelyard.core.budget.decide import RuleMemory, apply_budgets, limit_sizes
from modelyard.core.budget.judge import STALE_AFTER, SpendSums, judge_budgets
from modelyard.core.budget.limits import limit_bounds
from modelyard.core.budget.rules import divide
from modelyard.core.routing import EXTERNAL_PREFIX, BudgetRule, Route, WeightedTarget
from modelyard.core.scaling.schedules import Bounds
from modelyard.core.spend import HOUR, NOTHING_ARCHIVED, OTHER_TENANTS, Archived, Spend, SpendKey, SpendLine
from tests.property.budgetcases import (
    NOW,
    TARGETS,
    TENANTS,
    lines,
    outcome,
    parts,
    prices,
    reached,
    routes,
    several,
    spends,
)


@settings(max_examples=300, deadline=None)
@given(routes, several, spends, prices, st.lists(lines, max_size=6))
def test_more_spend_never_opens_what_less_refused(table, held, spend, costs, more):
    before = outcome(apply_budgets(table, judge_budgets(held, spend, NOW), costs))
    larger = Spend(NOW, (*spend.lines, *more))
    after = outcome(apply_budgets(table, judge_budgets(held, larger, NOW), costs))
    assert all(after[key] <= before[key] for key in before)


@settings(max_examples=300, deadline=None)
@given(routes, several, spends, prices)
def test_the_strictest_wins(table, held, spend, costs):
    """All budgets together leave exactly what each of them leaves."""
    together = outcome(apply_budgets(table, judge_budgets(held, spend, NOW), costs))
    alone = [outcome(apply_budgets(table, judge_budgets((one,), spend, NOW), costs)) for one in held]
    for key, left in together.items():
        assert left == frozenset.intersection(*(item[key] for item in alone))


@settings(max_examples=300, deadline=None)
@given(routes, several, spends, prices, st.sampled_from(("missing", "stale")))
def test_unknown_spend_closes_providers_and_nothing_else(table, held, spend, costs, how):
    known = None if how == "missing" else replace(spend, time=NOW - STALE_AFTER - 1)
    found = apply_budgets(table, judge_budgets(held, known, NOW), costs)
    whole = {route.name: parts(route) for route in found}
    for (name, tenant, number), left in outcome(found).items():
        all_of = {target.upstream for target in whole[name][number]}
        own = {upstream for upstream in all_of if not upstream.startswith(EXTERNAL_PREFIX)}
        assert own <= left, "own accelerators serve on"
        refusing = [
            item
            for item in held
            if item.spec.hard.action == "Refuse"
            and (item.spec.scope.tenants is None or tenant in item.spec.scope.tenants)
            and (item.spec.scope.namespaces is None or name.partition("/")[0] in item.spec.scope.namespaces)
            and (item.spec.scope.routes is None or name.removesuffix("@route") in item.spec.scope.routes)
            and name.endswith("@route" if item.spec.scope.routes is not None else "")
            and item.spec.scope.deployments is None
            and item.spec.scope.providers is None
        ]
        if refusing:
            assert left == own, "no byte to a provider whose spend nobody knows"


@settings(max_examples=200, deadline=None)
@given(routes, several, spends, prices)
def test_a_tenants_budget_changes_nothing_for_others(table, held, spend, costs):
    """Nor for requests without a tenant."""
    mine = tuple(
        item.model_copy(
            update={
                "spec": item.spec.model_copy(
                    update={"scope": item.spec.scope.model_copy(update={"tenants": ("search",)})}
                )
            }
        )
        for item in held
    )
    for known in (spend, None):
        found = apply_budgets(table, judge_budgets(mine, known, NOW), costs)
        for route, plain in zip(found, table, strict=True):
            rest, named = divide(route)
            assert rest == plain
            assert {tenant for tenant, _ in named} <= {"search"}


@settings(max_examples=200, deadline=None)
@given(routes, several, spends, prices)
def test_a_refusal_names_its_budgets_and_a_time_to_come(table, held, spend, costs):
    for known in (spend, None):
        for route in apply_budgets(table, judge_budgets(held, known, NOW), costs):
            for rule in route.budgets:
                told = [told for told in (rule.refusal, *rule.rule_refusals) if told is not None]
                assert bool(told) == (rule.closed or bool(rule.without))
                for refusal in told:
                    assert any(f"udget {item.name} " in refusal.message for item in held)
                    assert refusal.until is None or refusal.until > NOW
            assert route.budgets.count(BudgetRule()) <= 1
            assert [rule.tenant for rule in route.budgets if rule.tenant is None] in ([], [None])


planned = st.lists(
    st.builds(
        lambda key, weight, standby, wanted: WeightedTarget(key, weight, standby and not weight, wanted),
        st.sampled_from(TARGETS),
        st.integers(0, 10),
        st.booleans(),
        st.none() | st.integers(0, 10),
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda target: target.upstream,
).map(tuple)


@settings(max_examples=500, deadline=None)
@given(planned, st.permutations(TARGETS), st.sets(st.sampled_from(TARGETS)))
def test_preferring_the_cheapest_sends_nothing_where_the_plan_sends_nothing(chosen, order, tried):
    rule = BudgetRule(order=tuple(order), tried=tuple(name for name in order if name in tried))
    rest, _ = divide(Route("one/chat@route", ("chat",), chosen, budgets=(rule,)))
    before = {target.upstream: target for target in chosen}
    total, wanted = (sum(item.weight for item in chosen), sum(item.wanted or 0 for item in chosen))
    assert {target.upstream for target in rest.targets} == before.keys()
    assert sum(target.weight for target in rest.targets) == total
    for target in rest.targets:
        was = before[target.upstream]
        assert target.wanted == was.wanted
        if not was.weight:
            assert target == was
        elif (was.wanted or 0) * total > was.weight * wanted:
            assert target.weight <= was.weight, "no more than its replicas can take"
    first = [target.upstream for target in rest.targets][: len([item for item in chosen if item.weight])]
    assert first == [name for name in order if name in before and before[name].weight]


@settings(max_examples=60, deadline=None)
@given(routes, several, spends)
def test_every_request_that_is_refused_is_told_when_to_come_again(table, held, spend):
    """At that time, and not before, some target is left to it if nothing else is spent and all prices are known."""
    costs = dict.fromkeys(TARGETS, 0.01)
    # What was counted for no tenant makes the spend of some unknown, and nobody can tell for how long.
    spend = replace(spend, recent=tuple(line for line in spend.recent if line.key.tenant != OTHER_TENANTS))
    for route in apply_budgets(table, judge_budgets(held, spend, NOW), costs):
        rest, named = divide(route)
        for part in (rest, *(own for _, own in named)):
            for branch in (*part.rules, part):
                if not branch.targets:
                    assert branch.exhausted is not None
        for tenant in TENANTS:
            own = dict(named).get(tenant, rest)
            refused = [branch.exhausted for branch in (*own.rules, own)]
            if own.exhausted is not None and not own.rules:
                refused = [own.exhausted] * len(parts(route))
            for number, refusal in enumerate(refused):
                if refusal is None or refusal.until is None:
                    continue
                for moment, opens in ((refusal.until - 1, False), (refusal.until, True)):
                    # Those that have reset by then are as if they did not exist.
                    left = [
                        item
                        for item in judge_budgets(held, spend, NOW)
                        if item.period is not None and not (item.exhausted and item.period.end <= moment)
                    ]
                    (then,) = apply_budgets((replace(route, budgets=()),), left, costs)
                    assert bool(reached(then, tenant)[number]) == opens


@settings(max_examples=60, deadline=None)
@given(routes, several, st.lists(spends, min_size=2, max_size=4), prices)
def test_rules_that_are_kept_are_those_that_are_worked_out(table, held, readings, costs):
    memory = RuleMemory()
    for spend in readings:
        standings = judge_budgets(held, spend, NOW)
        assert apply_budgets(table, standings, costs, (), memory) == apply_budgets(table, standings, costs)


@settings(max_examples=200, deadline=None)
@given(several, spends, st.integers(0, 20), st.integers(1, 40), st.integers(0, 60))
def test_soft_limits_lower_max_but_never_min_or_the_last_replica(held, spend, low, extra, present):
    bounds = Bounds(low, low + extra)
    standings = judge_budgets(held, spend, NOW)
    for limit in limit_sizes(("one/own", "two/own", "three/own"), standings).values():
        limited = limit_bounds(bounds, limit, present)
        assert (limited.min, limited.until) == (bounds.min, bounds.until)
        assert max(bounds.min, 1) <= limited.max <= bounds.max
        assert bool(limited.budget) == (limited.max < bounds.max)
        if not limit.grows:
            assert limited.max <= max(present, bounds.min, 1)
    assert limit_sizes(("one/own",), judge_budgets(held, None, NOW)) == {}, "not knowing lowers nothing"


@settings(max_examples=200, deadline=None)
@given(several, spends)
def test_the_sum_of_a_budget_is_too_high_by_one_hour_at_most(held, spend):
    # What was counted for no tenant may make a tenant's sum unknown.
    spend = replace(spend, recent=tuple(line for line in spend.recent if line.key.tenant != OTHER_TENANTS))
    for standing in judge_budgets(held, spend, NOW):
        assert standing.period is not None
        assert standing.spent is not None
        inside = [line.dollars for line in spend.lines if line.hour >= standing.period.begin]
        hour = [line.dollars for line in spend.lines if line.hour == standing.period.first_hour]
        assert standing.spent <= sum(inside) + sum(hour) + 1e-6
        if standing.budget.spec.scope.model_dump(exclude_none=True) == {}:
            assert standing.spent >= sum(inside) - 1e-6


@st.composite
def days_of_requests(
    draw: st.DrawFn,
) -> tuple[list[tuple[float, float, float, int]], list[float], list[float]]:
    """Requests (when they come, how long they take, what they cost, where), readings, and delays of pushes."""
    requests = draw(
        st.lists(
            st.tuples(
                st.floats(0, 300), st.floats(0.1, 60), st.floats(0.01, 3), st.integers(0, 2)
            ),
            min_size=1,
            max_size=60,
        )
    )  # fmt: skip
    readings = [float(time) for time in range(0, 400, 10)]
    # While no operator runs nothing is read.
    away, back = draw(st.integers(0, 300)), draw(st.sampled_from((0, 45)))
    readings = [time for time in readings if not away <= time < away + back]
    return requests, readings, draw(st.lists(st.floats(0, 2), min_size=3, max_size=3))


@settings(max_examples=200, deadline=None)
@given(days_of_requests(), st.sampled_from(("1", "10", "100")))
def test_overspend_is_one_interval_and_what_is_in_flight(day, amount):
    """Three gateways; an answer is counted when it ends; a refusal reaches each gateway a little later."""
    requests, readings, delays = day
    base = NOW - NOW % HOUR
    metadata = {"name": "all", "namespace": "modelyard-system", "generation": 1}
    held = (LLMBudget.model_validate({"metadata": metadata, "spec": {"amount": amount, "period": "Month"}}),)
    table = (Route("one/chat@route", ("chat",), (WeightedTarget("provider:acme/large"),)),)
    key = SpendKey("", "one", "one/chat@route", "provider:acme/large")
    closed_from = [float("inf")] * 3
    before, found_at = 0.0, None
    admitted = sorted(requests)
    for reading in readings:
        ended = [
            cost for came, took, cost, at in admitted if came < closed_from[at] and came + took <= reading
        ]
        known = Spend(base + reading, (SpendLine(int(base), key, "Provider", sum(ended)),))
        found = apply_budgets(table, judge_budgets(held, known, base + reading), {key.target: 0.01})
        refused = reached(found[0], "") == (frozenset(),)
        assert refused == (sum(ended) >= float(amount))
        if refused and found_at is None:
            found_at = reading
            closed_from = [reading + delay for delay in delays]
        if found_at is None:
            before = reading
    let_through = [item for item in admitted if item[0] < closed_from[item[3]]]
    total = sum(cost for _, _, cost, _ in let_through)
    if found_at is None:
        return
    last = max(closed_from)
    interval = sum(cost for came, took, cost, _ in let_through if before < came + took <= last)
    in_flight = sum(cost for came, took, cost, _ in let_through if came <= last < came + took)
    assert total - float(amount) <= interval + in_flight + 1e-9


@settings(max_examples=100, deadline=None)
@given(several, st.lists(st.lists(lines, max_size=4), min_size=1, max_size=5), st.integers(0, 3))
def test_sums_that_are_kept_are_those_of_all_lines(held, readings, behind):
    """Hours that are over stay as they are; what comes later belongs to the newest hours.

    All but the newest ones are archived, some hours late.
    """
    sums, known, archived = None, (), NOTHING_ARCHIVED
    for number, found in enumerate(readings):
        # Half an hour passes from one reading to the next.
        now = NOW + number * HOUR / 2
        newest = int(now - now % HOUR)
        come = found if number == 0 else [replace(line, hour=newest) for line in found]
        known = (*known, *come)
        over = sorted({line.hour for line in known if line.hour < newest - behind * HOUR})
        if over != list(archived.hours):
            archived = Archived(
                tuple(over), tuple(tuple(line for line in known if line.hour == hour) for hour in over)
            )
        recent = tuple(line for line in known if line.hour not in over)
        spend, plain = Spend(now, recent, archived), Spend(now, known)
        assert sorted(spend.lines, key=repr) == sorted(plain.lines, key=repr)
        sums = SpendSums(spend, sums)
        assert judge_budgets(held, spend, now, sums) == judge_budgets(held, plain, now)
