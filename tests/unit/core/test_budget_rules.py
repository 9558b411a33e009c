"""What budgets make of routes."""

from dataclasses import replace
from typing import Any

import pytest

from modelyard.core.budget import decide
from modelyard.core.budget.decide import RuleMemory, apply_budgets
from modelyard.core.budget.judge import judge_budgets
from modelyard.core.budget.prices import price_targets
from modelyard.core.budget.rules import divide
from modelyard.core.demand import find_shares
from modelyard.core.load import LoadShape
from modelyard.core.routing import (
    BudgetRule,
    Exhausted,
    ExternalUpstream,
    Route,
    RouteRule,
    RoutingTable,
    Upstream,
    WeightedTarget,
)
from tests.unit.core.budgetcases import LARGE, NOW, OWN, SMALL, at, budget, line, route, rules, spent
from tests.unit.core.build import make_deployment, make_provider


def test_a_budget_of_everything_closes_every_route():
    (rule,) = rules(route(OWN, LARGE), budget(), spend=spent(line(100)))
    assert rule == BudgetRule(
        closed=True,
        refusal=Exhausted(
            "Budget search is spent for this month; it resets at 2026-12-01T00:00:00+00:00.",
            int(at("2026-12-01T00:00:00+00:00")),
        ),
    )


def test_warn_refuses_nothing():
    warning = budget(hard={"action": "Warn"})
    assert rules(route(OWN, LARGE), warning, spend=spent(line(1000))) == ()
    assert rules(route(OWN, LARGE), warning, spend=None) == ()


def test_a_budget_of_providers_takes_them_away_and_closes_where_nothing_is_left():
    external = budget(scope={"providers": ["acme"]})
    known = spent(line(100, target=LARGE))
    table = route(OWN, LARGE, SMALL)
    (rule,) = rules(table, external, spend=known)
    assert (rule.closed, rule.without) == (False, (LARGE, SMALL))
    rest, _ = divide(replace(table, budgets=(rule,)))
    assert [target.upstream for target in rest.targets] == [OWN]
    only = route(LARGE)
    rest, _ = divide(replace(only, budgets=rules(only, external, spend=known)))
    assert rest.targets == ()
    assert rest.exhausted is not None
    assert rest.exhausted.message.startswith("Budget search is spent for this month")


def test_a_tenant_gets_the_sum_of_its_own_and_everybodys_budgets():
    everybody = budget("external", scope={"providers": ["acme"]})
    search = budget("search", period="Day", scope={"tenants": ["search"]})
    known = spent(line(100, tenant="search", target=LARGE))
    own, rest = rules(route(OWN, LARGE), everybody, search, spend=known)
    assert (own.tenant, own.closed, own.without) == ("search", True, (LARGE,))
    assert (rest.tenant, rest.closed, rest.without) == (None, False, (LARGE,))
    assert own.refusal is not None
    assert "Budget external is spent for this month" in own.refusal.message
    assert "Budget search is spent for today" in own.refusal.message
    assert own.refusal.until == int(at("2026-11-19T00:00:00+00:00")), "then its deployment answers again"


def test_a_route_opens_with_the_first_target_that_is_free_of_all_its_budgets():
    day = budget("day", period="Day", scope={"providers": ["acme"]})
    month = budget("month", scope={"deployments": [OWN]})
    known = spent(line(100, target=LARGE), line(100, target=OWN))
    (rule,) = rules(route(OWN, LARGE), day, month, spend=known)
    assert rule.refusal is not None
    assert rule.refusal.until == int(at("2026-11-19T00:00:00+00:00"))
    both = budget("week", period="Week", scope={"providers": ["acme"]})
    (rule,) = rules(route(OWN, LARGE), day, both, month, spend=known)
    assert rule.refusal is not None
    assert rule.refusal.until == int(at("2026-11-23T00:00:00+00:00"))


def test_a_rule_with_another_target_opens_at_its_own_time():
    """The route goes to its deployment until the day ends, its rule to a provider until the month does."""
    table = replace(route(OWN), rules=(RouteRule((WeightedTarget(LARGE),), headers=(("x-class", "best"),)),))
    day = budget("day", "1", "Day", scope={"deployments": [OWN]})
    month = budget("month", "1", scope={"providers": ["acme"]})
    known = spent(line(5, target=OWN), line(5, target=LARGE))
    (rule,) = rules(table, day, month, spend=known)
    rest, _ = divide(replace(table, budgets=(rule,)))
    tomorrow, december = int(at("2026-11-19T00:00:00+00:00")), int(at("2026-12-01T00:00:00+00:00"))
    assert rest.exhausted is not None
    assert rest.rules[0].exhausted is not None
    assert (rest.exhausted.until, rest.rules[0].exhausted.until) == (tomorrow, december)
    assert "month" not in rest.exhausted.message.split("resets")[0]
    # Closed as a whole until the week ends, the rule stays closed longer.
    week = budget("week", "1", "Week")
    (rule,) = rules(table, day, month, week, spend=known)
    rest, _ = divide(replace(table, budgets=(rule,)))
    assert (rest.targets, rest.rules[0].targets) == ((), ())
    assert rest.exhausted is not None
    assert rest.rules[0].exhausted is not None
    assert (rest.exhausted.until, rest.rules[0].exhausted.until) == (
        int(at("2026-11-23T00:00:00+00:00")),
        december,
    )


def test_budgets_that_do_nothing_cost_nothing(monkeypatch: pytest.MonkeyPatch):
    """Beyond one look at each, however many routes there are; and routes stay the same objects."""
    looks = []
    monkeypatch.setattr(decide, "names_route", lambda *_: looks.append(1))
    budgets = [budget(f"b{number}", scope={"tenants": [f"t{number}"]}) for number in range(20)]
    table = tuple(route(OWN, LARGE, name=f"team/r{number}@route") for number in range(50))
    standings = judge_budgets(budgets, spent(line(1, tenant="t1")), NOW)
    assert all(
        new is old for new, old in zip(apply_budgets(table, standings, {LARGE: 0.1}), table, strict=True)
    )
    assert looks == []


def test_alike_routes_and_tenants_share_their_rules_from_table_to_table(monkeypatch: pytest.MonkeyPatch):
    combined = []
    plain = decide._combine
    monkeypatch.setattr(decide, "_combine", lambda *args: combined.append(1) or plain(*args))
    many = budget("many", scope={"tenants": [f"t{number}" for number in range(40)]})
    one = budget("one", "10", scope={"tenants": ["t1"]})
    memory = RuleMemory()

    def table(dollars: float, weight: int) -> tuple[Route, ...]:
        plain = (route(f"team/d{number}", LARGE, name=f"team/r{number}@route") for number in range(50))
        weighted = (
            replace(item, targets=(replace(item.targets[0], weight=weight), *item.targets[1:]))
            for item in plain
        )
        known = spent(line(dollars, tenant="t1"))
        return apply_budgets(weighted, judge_budgets((many, one), known, NOW), {LARGE: 0.1}, (), memory)

    first = table(200, 1)
    assert len(first[0].budgets) == 40
    assert all(item.budgets is first[0].budgets for item in first)
    assert len(combined) == 3, "everybody else, t1, and the other 39"
    again = table(300, 2)
    assert len(combined) == 3, "weights and sums have changed, but not what is spent out"
    assert again[0].budgets is first[0].budgets
    assert [rule.tenant for rule in table(50, 1)[0].budgets] == ["t1"]


def test_rules_that_are_kept_follow_the_prices():
    """A tenant may not go on to a provider whose price is gone, whatever is known of other providers and tenants."""
    mine = budget("mine", scope={"tenants": ["t1"]})
    spent_out = budget("other", "1", scope={"tenants": ["t2"], "providers": ["acme"]})
    standings = judge_budgets((mine, spent_out), spent(line(5, tenant="t2", target=LARGE)), NOW)
    memory = RuleMemory()

    def without(prices: dict[str, float]) -> dict[str | None, tuple[str, ...]]:
        (limited,) = apply_budgets((route(OWN, LARGE, SMALL),), standings, prices, (), memory)
        return {rule.tenant: rule.without for rule in limited.budgets}

    assert without({LARGE: 0.1}) == {"t1": (SMALL,), "t2": (LARGE, SMALL)}
    assert without({}) == {"t1": (LARGE, SMALL), "t2": (LARGE, SMALL)}
    assert without({LARGE: 0.1, SMALL: 0.1}) == {"t2": (LARGE, SMALL)}


def test_what_is_not_known_takes_providers_away():
    (rule,) = rules(route(OWN, LARGE), budget(), spend=None)
    assert (rule.closed, rule.without) == (False, (LARGE,))
    assert rule.unknown == (LARGE,)
    assert rule.refusal == Exhausted(
        "What was spent of budget search is not known, so no provider is used for now.", None
    )
    both = [budget("old", timeZone="Nowhere/Gone"), budget("spent", scope={"providers": ["acme"]})]
    (rule,) = rules(route(OWN, LARGE), *both, spend=spent(line(100, target=LARGE)))
    assert (rule.without, rule.unknown) == ((LARGE,), ()), "what is spent is no matter of a moment"
    assert rules(route(OWN), budget(), spend=None) == ()
    assert rules(route(OWN, LARGE), budget(scope={"providers": ["other"]}), spend=None) == ()


def test_a_provider_without_a_price_cannot_be_counted_and_is_not_used():
    known, free = spent(line(1)), {SMALL: 0.0}
    (rule,) = rules(route(OWN, LARGE, SMALL), budget(), spend=known, prices=free)
    assert rule == BudgetRule(
        without=(LARGE,),
        refusal=Exhausted(
            "Budget search counts dollars, so a provider whose price nobody states is not used.", None
        ),
    )
    assert rules(route(OWN, LARGE), budget(hard={"action": "Warn"}), spend=known, prices={}) == ()
    assert rules(route(OWN, LARGE), budget(scope={"deployments": [OWN]}), spend=known, prices={}) == ()


def test_the_cheapest_is_preferred_in_scope_and_unknown_prices_come_last():
    soft = budget(soft={"at": "0.5", "action": "PreferCheaper"}, scope={"namespaces": ["team"]})
    known = spent(line(50, namespace="team"))
    prices = {LARGE: 0.01, SMALL: 0.002}
    table = route(OWN, LARGE, SMALL)
    (rule,) = rules(table, soft, spend=known, prices=prices)
    assert rule == BudgetRule(order=(SMALL, LARGE, OWN))
    rest, _ = divide(replace(table, budgets=(rule,)))
    spare = [WeightedTarget(name, 0, standby=True) for name in (LARGE, OWN)]
    assert rest.targets == (WeightedTarget(SMALL, 3), *spare)
    assert rules(table, soft, spend=spent(line(49, namespace="team")), prices=prices) == ()
    assert rules(route(OWN), soft, spend=known, prices=prices) == (), "nothing to choose from"
    assert rules(route(OWN, SMALL, name="other/chat@route"), soft, spend=known, prices=prices) == ()


def test_the_cheapest_is_none_that_does_not_answer():
    """It is tried last; where its time has come, one request in ten finds out whether it answers again."""
    soft = budget(soft={"at": "0.5", "action": "PreferCheaper"})
    standings = judge_budgets((soft,), spent(line(50)), NOW)
    prices = {LARGE: 0.01, SMALL: 0.002}

    def preferred(table: Route, **known: Any) -> tuple[WeightedTarget, ...]:
        (limited,) = apply_budgets((table,), standings, prices, **known)
        rest, _ = divide(limited)
        return rest.targets

    both = route(SMALL, LARGE)
    cheap, dear = WeightedTarget(SMALL, 2), WeightedTarget(LARGE, 2)
    spare = [replace(item, weight=0, standby=True) for item in (dear, cheap)]
    assert preferred(both) == (cheap, spare[0])
    assert preferred(both, silent={SMALL}) == (dear, spare[1])
    assert preferred(both, silent={SMALL, LARGE}) == (cheap, spare[0]), "one of them has to be first"
    planned = Route(both.name, both.models, (WeightedTarget(SMALL, 1), WeightedTarget(LARGE, 9)))
    trial = {"silent": {SMALL}, "tried": {SMALL}}
    assert preferred(planned, **trial) == (WeightedTarget(LARGE, 9), WeightedTarget(SMALL, 1))
    even = Route(both.name, both.models, (WeightedTarget(SMALL, 50), WeightedTarget(LARGE, 50)))
    assert preferred(even, **trial) == (WeightedTarget(LARGE, 90), WeightedTarget(SMALL, 10))


def test_a_route_of_lowest_cost_is_left_alone():
    """It knows more than prices: accelerators that stay on cost the same whoever answers."""
    soft = budget(soft={"at": "0.5", "action": "PreferCheaper"})
    standings = judge_budgets((soft,), spent(line(50)), NOW)
    table = route(OWN, SMALL)
    (limited,) = apply_budgets((table,), standings, {SMALL: 0.1}, {table.name})
    assert limited.budgets == ()


def test_what_was_not_chosen_takes_over_where_a_budget_takes_the_chosen_away():
    chosen = WeightedTarget(LARGE, 1)
    spare, other = WeightedTarget(OWN, 0, standby=True), WeightedTarget(SMALL, 0)
    taken = BudgetRule(tenant="search", without=(LARGE,), refusal=Exhausted("spent"))

    def left(*targets: WeightedTarget, rule: BudgetRule = taken) -> list[tuple[str, bool]]:
        table = Route("team/chat@route", ("chat",), targets, budgets=(rule,))
        rest, ((_, part),) = divide(table)
        assert rest == replace(table, budgets=())
        assert part.exhausted is None
        return [(target.upstream, target.weight > 0) for target in part.targets]

    assert left(chosen, other, spare) == [(SMALL, False), (OWN, True)]
    assert left(chosen, other) == [(SMALL, True)]
    assert left(other, spare) == [(SMALL, False), (OWN, False)], "nothing was chosen before either"
    cheap = BudgetRule(tenant="search", order=(SMALL, OWN, LARGE))
    assert left(chosen, other, spare, rule=cheap) == [(LARGE, True), (SMALL, False), (OWN, False)]


def test_the_cheapest_does_not_cancel_a_spill():
    """It sleeps, or is busy: requests go where the plan sends them, and it still grows for what it should have."""
    cheap = BudgetRule(order=(OWN, SMALL, LARGE))

    def preferred(*targets: WeightedTarget) -> tuple[WeightedTarget, ...]:
        rest, _ = divide(Route("team/chat@route", ("chat",), targets, budgets=(cheap,)))
        assert not rest.priority
        return rest.targets

    asleep = WeightedTarget(OWN, 0, standby=True, wanted=1)
    dear, small = WeightedTarget(LARGE, 4, wanted=0), WeightedTarget(SMALL, 6, wanted=0)
    least = replace(small, weight=10)
    spare = replace(dear, weight=0, standby=True)
    assert preferred(asleep, dear, small) == (least, spare, asleep)
    busy = WeightedTarget(OWN, 6, wanted=1)
    assert preferred(busy, dear, small) == (busy, least, spare)
    assert (
        find_shares(
            (Route("team/chat@route", ("chat",), (asleep, dear, small), budgets=(cheap,)),), {OWN: None}
        )[OWN][0].part
        == 1.0
    )


def test_prices_are_those_of_providers_and_what_own_tokens_cost_now():
    priced = make_deployment(OWN, status={"cost": {"perHour": "2", "perMillionTokens": "3"}})
    provider = make_provider(
        "acme",
        {"name": "large", "price": {"inputPerMillion": "10", "outputPerMillion": "30"}},
        {"name": "small"},
    )
    table = RoutingTable(
        upstreams={OWN: Upstream(OWN, 0, "own"), "team/new": Upstream("team/new", 0, "new")},
        externals={
            LARGE: ExternalUpstream("acme", "large", "h"),
            SMALL: ExternalUpstream("acme", "small", "h"),
        },
    )
    deployments = {OWN: priced, "team/new": make_deployment("team/new")}
    found = price_targets(table, deployments, (provider,), LoadShape(1000, 100))
    assert found == {OWN: pytest.approx(0.0033), LARGE: pytest.approx(0.013)}
