"""Budgets: how they stand, what they make of routes and sizes, and what their status says."""

from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest

from modelyard.api.llmbudget import LLMBudget
from modelyard.core.budget import decide
from modelyard.core.budget.decide import RuleMemory, apply_budgets, limit_sizes
from modelyard.core.budget.judge import STALE_AFTER, Standing, judge_budgets
from modelyard.core.budget.limits import SizeLimit, limit_bounds
from modelyard.core.budget.period import period_at
from modelyard.core.budget.prices import price_targets
from modelyard.core.budget.rules import divide
from modelyard.core.budget.status import KnownNames, build_budget_status
from modelyard.core.decide import decide_deployment
from modelyard.core.demand import Demand, find_shares
from modelyard.core.load import LoadShape
from modelyard.core.reasons import Code
from modelyard.core.replicas import SizeInput, SizeMemory, SizePolicy, decide_size
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
from modelyard.core.scaling.schedules import Bounds
from modelyard.core.spend import Spend, SpendKey, SpendLine
from modelyard.core.state import Policy
from tests.unit.core.build import make_deployment, make_provider, make_snapshot
from tests.unit.core.plainload import PLAIN_LOAD

LARGE, SMALL, OWN = "provider:acme/large", "provider:acme/small", "team/own"


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


NOW = at("2026-11-18T12:30:00+00:00")
"""A Wednesday."""


def budget(name: str = "search", amount: str = "100", period: str = "Month", **spec: Any) -> LLMBudget:
    metadata = {"name": name, "namespace": "modelyard-system", "generation": 2}
    body = {"metadata": metadata, "spec": {"amount": amount, "period": period, **spec}}
    return LLMBudget.model_validate(body)


def line(dollars: float, time: str = "2026-11-18T10:00:00+00:00", **key: str) -> SpendLine:
    kind = "Provider" if key.get("target", "").startswith("provider:") else "Own"
    return SpendLine(int(at(time)), SpendKey(**key), kind, dollars)


def spent(*lines: SpendLine, time: float = NOW) -> Spend:
    return Spend(time, lines)


def judge(one: LLMBudget, spend: Spend | None, now: float = NOW) -> Standing:
    (standing,) = judge_budgets((one,), spend, now)
    return standing


def route(*targets: str, name: str = "team/chat@route") -> Route:
    return Route(name, ("chat",), tuple(WeightedTarget(target) for target in targets))


def rules(
    table: Route, *budgets: LLMBudget, spend: Spend | None, prices: dict[str, float] | None = None
) -> tuple[BudgetRule, ...]:
    known = {LARGE: 0.02, SMALL: 0.01} if prices is None else prices
    (limited,) = apply_budgets((table,), judge_budgets(budgets, spend, NOW), known)
    return limited.budgets


@pytest.mark.parametrize(
    ("kind", "zone", "now", "begin", "hours"),
    [
        ("Day", "Etc/UTC", "2026-11-18T00:00:00+00:00", "2026-11-18T00:00:00+00:00", 24),
        # Clocks are set back on 25 October and forward on 29 March.
        ("Day", "Europe/Berlin", "2026-10-25T22:59:59+00:00", "2026-10-25T00:00:00+02:00", 25),
        ("Day", "Europe/Berlin", "2026-03-29T12:00:00+02:00", "2026-03-29T00:00:00+01:00", 23),
        ("Week", "Europe/Berlin", "2026-10-25T12:00:00+01:00", "2026-10-19T00:00:00+02:00", 169),
        ("Week", "Etc/UTC", "2026-11-23T00:00:00+00:00", "2026-11-23T00:00:00+00:00", 168),
        ("Month", "America/New_York", "2026-12-01T04:59:59+00:00", "2026-11-01T00:00:00-04:00", 721),
        ("Month", "Asia/Kathmandu", "2026-02-10T00:00:00+00:00", "2026-02-01T00:00:00+05:45", 28 * 24),
        # There is no midnight on 24 April in Cairo, and there are two on 1 November in Havana.
        ("Day", "Africa/Cairo", "2026-04-24T12:00:00+03:00", "2026-04-23T22:00:00+00:00", 23),
        ("Day", "America/Havana", "2026-11-01T04:30:00+00:00", "2026-11-01T04:00:00+00:00", 25),
    ],
)
def test_periods_follow_the_clocks_of_their_zone(kind: Any, zone: str, now: str, begin: str, hours: int):
    period = period_at(kind, zone, at(now))
    assert period.begin == at(begin)
    assert (period.end - period.begin) / 3600 == hours


def test_what_counts_is_what_the_scope_names():
    lines = [
        line(1, tenant="search", namespace="team", route="team/chat@route", target=LARGE),
        line(2, tenant="mail", namespace="team", route="team/chat@route", target=OWN),
        line(4, tenant="search", namespace="team", route="team/own", target=OWN),
        line(8, tenant="", namespace="team", target=OWN),
        line(16, tenant="search", namespace="other", route="other/chat@route", target="other/own"),
        line(32, tenant="search", namespace="team", route="team/own:lora", target="team/own:lora"),
        # Of the month before, and of the first hour of this one.
        line(64, "2026-10-31T23:00:00+00:00", tenant="search", namespace="team", target=OWN),
        line(128, "2026-11-01T00:00:00+00:00", tenant="nobody", namespace="none", target="none/none"),
    ]

    def total(**scope: Any) -> float | None:
        return judge(budget(scope=scope), spent(*lines)).spent

    assert total() == 1 + 2 + 4 + 8 + 16 + 32 + 128
    assert total(tenants=["search"]) == 1 + 4 + 16 + 32
    assert total(namespaces=["team"]) == 1 + 2 + 4 + 8 + 32
    assert total(routes=["team/chat"]) == 1 + 2
    assert total(routes=["team/own"]) == 0, "routes names LLMRoutes, deployments the others"
    assert total(deployments=["team/own"]) == 2 + 4 + 8 + 32
    assert total(providers=["acme"]) == 1
    assert total(providers=["acme"], deployments=["other/own"]) == 1 + 16
    assert total(tenants=["search"], providers=["acme"], namespaces=["other"]) == 0


def test_in_a_zone_of_half_hours_the_hour_at_the_border_counts_for_both_periods():
    border = line(5, "2026-11-17T18:00:00+00:00")  # Midnight in India is 18:30 UTC.
    one = budget(period="Day", timeZone="Asia/Kolkata")
    before, after = at("2026-11-17T18:29:00+00:00"), at("2026-11-17T18:31:00+00:00")
    assert judge(one, spent(border, time=before), before).spent == 5
    assert judge(one, spent(border, time=after), after).spent == 5
    later = line(5, "2026-11-17T17:00:00+00:00")
    assert judge(one, spent(later, time=after), after).spent == 0


def test_spend_that_is_missing_or_old_is_not_known():
    assert judge(budget(), None).unknown.code == Code.LEDGER_MISSING
    stale = judge(budget(), spent(line(1000), time=NOW - STALE_AFTER - 1))
    assert (stale.unknown.code, stale.spent, stale.exhausted) == (Code.LEDGER_STALE, None, False)
    assert judge(budget(), spent(time=NOW - STALE_AFTER)).unknown is None


def test_raising_the_amount_opens_at_once():
    known = spent(line(150))
    assert judge(budget(amount="150"), known).exhausted
    assert not judge(budget(amount="150.01"), known).exhausted


def test_it_runs_out_when_the_mean_of_the_last_days_says_so():
    # US$ 2 an hour in the last week, and US$ 40 on the first of the month, which do not count for the rate.
    begin = at("2026-11-11T12:00:00+00:00")
    steady = [SpendLine(int(begin) + hour * 3600, SpendKey(), "Own", 2.0) for hour in range(168)]
    old = line(40, "2026-11-01T05:00:00+00:00")
    known = spent(old, *steady, time=NOW)
    standing = judge(budget(amount="496"), known)
    assert standing.spent == 376
    # 120 are left, and 336 were spent in 168.5 hours.
    assert standing.runs_out == pytest.approx(NOW + 120 / (336 / 168.5) * 3600)
    assert judge(budget(amount="5000"), known).runs_out is None, "not in this month"
    assert judge(budget(amount="100"), spent(time=NOW)).runs_out is None, "nothing is spent"
    young = spent(line(10, "2026-11-18T12:00:00+00:00"))
    assert judge(budget(amount="20"), young).runs_out == pytest.approx(NOW + 3600), (
        "at most as fast as in an hour"
    )


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


KNOWN = KnownNames(routes=("team/chat",), deployments=(OWN,), providers=("acme",))


def conditions(one: LLMBudget, spend: Spend | None) -> dict[str, tuple[str, str]]:
    status = build_budget_status(judge(one, spend), KNOWN, NOW)
    return {item.type: (item.status, item.reason) for item in status.conditions}


def test_status_says_what_acts_and_when_it_ends():
    one = budget(timeZone="Europe/Berlin", soft={"at": "0.5", "action": "PreferCheaper"})
    status = build_budget_status(judge(one, spent(line(80))), KNOWN, NOW)
    assert (status.period_begin, status.period_end) == ("2026-10-31T23:00:00Z", "2026-11-30T23:00:00Z")
    assert (status.spent, status.share) == ("80", "0.8")
    assert status.runs_out == "2026-11-18"
    assert conditions(one, spent(line(80))) == {
        "Ready": ("True", Code.SPEND_READ),
        "SpendUnknown": ("False", Code.SPEND_READ),
        "BudgetExhausted": ("False", Code.AMOUNT_LEFT),
        "SoftLimitReached": ("True", Code.SOFT_LIMIT),
    }
    assert conditions(one, spent(line(100)))["BudgetExhausted"] == ("True", Code.AMOUNT_SPENT)
    assert conditions(one, None) == {
        "Ready": ("False", Code.LEDGER_MISSING),
        "SpendUnknown": ("True", Code.LEDGER_MISSING),
    }


def test_status_names_what_the_scope_cannot_find():
    one = budget(scope={"routes": ["team/chat", "team/gone"], "providers": ["nobody"]})
    status = build_budget_status(judge(one, spent()), KNOWN, NOW)
    ready = status.conditions[0]
    assert (ready.status, ready.reason) == ("False", Code.SCOPE_NOT_FOUND)
    assert ready.message.startswith("route team/gone, provider nobody of scope cannot be found")


def test_figures_move_beyond_a_dead_band_and_always_at_the_end():
    one = budget()
    first = build_budget_status(judge(one, spent(line(50))), KNOWN, NOW)
    known = one.model_copy(update={"status": first})
    assert build_budget_status(judge(known, spent(line(50.9))), KNOWN, NOW) == first
    moved = build_budget_status(judge(known, spent(line(51.1))), KNOWN, NOW)
    assert (moved.spent, moved.share) == ("51.1", "0.511")
    near = one.model_copy(
        update={"status": build_budget_status(judge(one, spent(line(99.999999))), KNOWN, NOW)}
    )
    assert near.status.share == "0.9999"
    assert build_budget_status(judge(near, spent(line(100))), KNOWN, NOW).share == "1"


def test_what_was_counted_for_no_tenant_may_be_a_tenants():
    one = budget(amount="100", scope={"tenants": ["search"], "providers": ["acme"]})
    mine = line(60, tenant="search", target=LARGE)

    def code(*lines: SpendLine) -> str:
        standing = judge(one, spent(mine, *lines))
        assert (standing.spent is None) == (standing.unknown is not None)
        return standing.unknown.code if standing.unknown is not None else ""

    assert code(line(39, tenant="_other", target=LARGE)) == ""
    assert code(line(40, tenant="_other", target=LARGE)) == Code.TENANTS_NOT_COUNTED
    assert code(line(40, tenant="_other", target=OWN)) == "", "not in its scope"
    assert judge(one, spent(mine, mine, line(40, tenant="_other", target=LARGE))).exhausted
    assert judge(budget(), spent(line(60), line(39, tenant="_other"))).spent == 99, "it counts for all"


def test_attempts_that_a_provider_lost_may_be_anybodys():
    """They are counted for no route: whoever may have spent them is stopped before it is too late."""
    lost = line(40, tenant="_other", target=LARGE)
    mine = line(60, tenant="search", namespace="team", route="team/chat@route", target=LARGE)
    for scope in (
        {"namespaces": ["team"]},
        {"routes": ["team/chat"]},
        {"tenants": ["search"], "namespaces": ["team"], "providers": ["acme"]},
    ):
        standing = judge(budget(amount="100", scope=scope), spent(mine, lost))
        assert standing.unknown is not None, scope
        assert standing.unknown.code == Code.TENANTS_NOT_COUNTED
        assert judge(budget(amount="101", scope=scope), spent(mine, lost)).spent == 60
    for scope in ({}, {"providers": ["acme"]}):
        assert judge(budget(amount="1000", scope=scope), spent(mine, lost)).spent == 100
    for scope in ({"deployments": [OWN]}, {"namespaces": ["team"], "providers": ["other"]}):
        assert judge(budget(amount="10", scope=scope), spent(mine, lost)).spent == 0


def test_status_names_accelerators_without_a_price():
    def prices(one: LLMBudget) -> list[str]:
        known = replace(KNOWN, unpriced=("team/own", "team/other"))
        found = build_budget_status(judge(one, spent()), known, NOW).conditions
        return [item.message for item in found if (item.type, item.status) == ("PricesKnown", "False")]

    (message,) = prices(budget())
    assert "team/other, team/own have no price" in message
    (message,) = prices(budget(scope={"deployments": ["team/own"]}))
    assert "team/other" not in message
    assert prices(budget(scope={"providers": ["acme"]})) == []
