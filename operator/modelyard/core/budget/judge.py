"""How much of each budget is spent, and whether that is known."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal

from modelyard.api.llmbudget import LLMBudget
from modelyard.api.scaling import known_time_zones
from modelyard.core.budget.period import Period, period_at
from modelyard.core.budget.scope import counts
from modelyard.core.reasons import Code, Reason
from modelyard.core.spend import HOUR, Spend, SpendKey

STALE_AFTER = 60.0
"""Seconds after which what was spent counts as not known. The ledger is written every few seconds; an Envoy that is
replaced cannot be read for as long as its pod takes to start, some tens of seconds."""

FORECAST_HOURS = {"Day": 24, "Week": 168, "Month": 168}
"""Hours before now whose mean goes on, by period: whole days, and whole weeks where weekdays and weekends differ."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How one budget stands."""

    budget: LLMBudget
    period: Period | None
    """None: its time zone is not known here."""
    spent: float | None
    """US dollars since the period began; None: not known."""
    share: float | None
    """Of the amount."""
    unknown: Reason | None = None
    """Set where `spent` is not known."""
    runs_out: float | None = None
    """Unix time at which the amount is spent if money goes on as it does now; None: not within this period."""

    @property
    def exhausted(self) -> bool:
        """Whether the amount is known to be spent."""
        return self.share is not None and self.share >= 1.0

    @property
    def soft_reached(self) -> bool:
        """Whether the soft limit is known to be reached."""
        soft = self.budget.spec.soft
        return soft is not None and self.share is not None and self.share >= float(soft.at)


def judge_budgets(budgets: Iterable[LLMBudget], spend: Spend | None, now: float) -> tuple[Standing, ...]:
    """Return how the budgets stand, in their order."""
    sums = _Sums(spend)
    return tuple(_judge(budget, sums, spend, now) for budget in budgets)


def explain_unknown(spend: Spend | None, now: float) -> Reason | None:
    """Return why what was spent is not known, or None if it is."""
    if spend is None:
        return Reason(Code.LEDGER_MISSING, "what was spent has not been read yet")
    if now - spend.time > STALE_AFTER:
        return Reason(
            Code.LEDGER_STALE,
            f"what was spent is only known until {now - spend.time:.0f} s ago, and counts for {STALE_AFTER:.0f} s: see "
            "whether the operator reads all Envoys and may write its ledger",
        )
    return None


class _Sums:
    """Sums by key since a moment, each worked out once however many budgets ask."""

    def __init__(self, spend: Spend | None) -> None:
        self._lines = spend.lines if spend is not None else ()
        self._known: dict[float, Mapping[SpendKey, float]] = {}
        self.first = min((line.hour for line in self._lines), default=None)

    def since(self, begin: float) -> Mapping[SpendKey, float]:
        """Return US dollars by key of all hours that begin at or after a moment."""
        if begin not in self._known:
            found: dict[SpendKey, list[float]] = {}
            for line in self._lines:
                if line.hour >= begin:
                    found.setdefault(line.key, []).append(line.dollars)
            self._known[begin] = {key: math.fsum(dollars) for key, dollars in found.items()}
        return self._known[begin]

    def of(self, budget: LLMBudget, begin: float) -> float:
        """Return US dollars in the budget's scope of all hours that begin at or after a moment."""
        scope = budget.spec.scope
        # `fsum` gives the same in whatever order the lines come.
        return math.fsum(value for key, value in self.since(begin).items() if counts(scope, key))


def _judge(budget: LLMBudget, sums: _Sums, spend: Spend | None, now: float) -> Standing:
    spec = budget.spec
    if spec.time_zone not in known_time_zones():
        reason = Reason(
            Code.INVALID_PARAMETER, f"timeZone {spec.time_zone} is not known here: use another name"
        )
        return Standing(budget, None, None, None, reason)
    period = period_at(spec.period, spec.time_zone, now)
    unknown = explain_unknown(spend, now)
    if unknown is not None:
        return Standing(budget, period, None, None, unknown)
    spent = sums.of(budget, period.first_hour)
    amount = float(Decimal(spec.amount))
    runs_out = _forecast(budget, sums, amount - spent, now) if spent < amount else None
    if runs_out is not None and runs_out >= period.end:
        runs_out = None
    return Standing(budget, period, spent, spent / amount, runs_out=runs_out)


def _forecast(budget: LLMBudget, sums: _Sums, left: float, now: float) -> float | None:
    """Return when the rest of the amount is spent at the mean rate of the last day or week, or of what is known."""
    if sums.first is None:
        return None
    begin = max(now - now % HOUR - FORECAST_HOURS[budget.spec.period] * HOUR, sums.first)
    rate = sums.of(budget, begin) / max(now - begin, HOUR)
    return now + left / rate if rate > 0 else None
