"""Budgets: what counts in which period, how they stand, and what their status says."""

from dataclasses import replace
from typing import Any

import pytest

from modelyard.api.llmbudget import LLMBudget
from modelyard.core.budget.judge import STALE_AFTER
from modelyard.core.budget.period import period_at
from modelyard.core.budget.status import KnownNames, build_budget_status
from modelyard.core.reasons import Code
from modelyard.core.spend import Spend, SpendKey, SpendLine
from tests.unit.core.budgetcases import LARGE, NOW, OWN, at, budget, judge, line, spent


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
