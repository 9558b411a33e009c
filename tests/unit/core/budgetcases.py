"""Budgets, spend and routes for the tests of budgets."""

from datetime import datetime
from typing import Any

from modelyard.api.llmbudget import LLMBudget
from modelyard.core.budget.decide import apply_budgets
from modelyard.core.budget.judge import Standing, judge_budgets
from modelyard.core.routing import BudgetRule, Route, WeightedTarget
from modelyard.core.spend import Spend, SpendKey, SpendLine

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
