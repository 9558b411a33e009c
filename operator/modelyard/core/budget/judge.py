"""How much of each budget is spent, and whether that is known."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import chain

from modelyard.api.llmbudget import BudgetScope, LLMBudget
from modelyard.api.scaling import known_time_zones
from modelyard.core.budget.period import Period, period_at
from modelyard.core.budget.scope import counts
from modelyard.core.reasons import Code, Reason
from modelyard.core.spend import HOUR, OTHER_TENANTS, Archived, Spend, SpendKey, SpendLine

READ_SECONDS = 5.0
"""How long one reading of an Envoy may take: the page is made in its main thread, which may be busy with a large
update."""


def stale_after(interval: float) -> float:
    """Return the seconds after which what was spent counts as not known, for seconds between two readings.

    Two readings in a row may fail at their time limit, and the third need all of its own; one interval more passes
    until it is told, and one is left over.
    """
    return 5 * interval + 3 * READ_SECONDS


STALE_AFTER = stale_after(2.0)
"""The same for the operator's usual interval (`--read-interval`)."""

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


def judge_budgets(
    budgets: Iterable[LLMBudget],
    spend: Spend | None,
    now: float,
    sums: "SpendSums | None" = None,
    stale: float = STALE_AFTER,
) -> tuple[Standing, ...]:
    """Return how the budgets stand, in their order.

    `sums`: those of `spend`, where they are kept. `stale`: `stale_after` of the interval.
    """
    sums = SpendSums(spend) if sums is None else sums
    unknown = explain_unknown(spend, now, stale)
    return tuple(_judge(budget, sums, unknown, now) for budget in budgets)


def explain_unknown(spend: Spend | None, now: float, stale: float = STALE_AFTER) -> Reason | None:
    """Return why what was spent is not known, or None if it is."""
    if spend is None:
        return Reason(Code.LEDGER_MISSING, "what was spent has not been read yet")
    if now - spend.time > stale:
        return Reason(
            Code.LEDGER_STALE,
            f"what was spent is only known until {now - spend.time:.0f} s ago, and counts for {stale:.0f} s: see "
            "whether the operator reads all Envoys and may write its ledger",
        )
    return None


@dataclass(frozen=True, slots=True)
class ClosedHours:
    """Hours that do not change any more, and what they were added up to so far."""

    until: int
    """Unix time at which the first hour begins that is not among them."""
    archived: Archived = field(repr=False)
    rest: tuple[SpendLine, ...] = field(repr=False)
    """Lines of such hours that are not archived."""
    _by_key: dict[float, Mapping[SpendKey, float]] = field(default_factory=dict, repr=False)
    _by_scope: dict[tuple[BudgetScope, float], float] = field(default_factory=dict, repr=False)

    def of(self, scope: BudgetScope, begin: float) -> float:
        """Return US dollars in a scope of all these hours that begin at or after a moment."""
        if (scope, begin) not in self._by_scope:
            found = self._since(begin).items()
            self._by_scope[scope, begin] = math.fsum(value for key, value in found if counts(scope, key))
        return self._by_scope[scope, begin]

    def _since(self, begin: float) -> Mapping[SpendKey, float]:
        if begin not in self._by_key:
            found: dict[SpendKey, list[float]] = {}
            for line in chain(self.archived.since(begin), self.rest):
                if begin <= line.hour < self.until:
                    found.setdefault(line.key, []).append(line.dollars)
            # `fsum` gives the same in whatever order the lines come.
            self._by_key[begin] = {key: math.fsum(dollars) for key, dollars in found.items()}
        return self._by_key[begin]


class SpendSums:
    """Sums of what was spent since a moment.

    What the hours that are over add up to is worked out once and taken from the sums before, so that a reading costs as
    much as the newest hours, however long the period is. The last hour before the open one counts as open: the ledger
    may not have written it yet.
    """

    def __init__(self, spend: Spend | None, before: "SpendSums | None" = None) -> None:
        spend = Spend(0.0, ()) if spend is None else spend
        archived, recent = spend.archived, spend.recent
        hours = {line.hour for line in recent}.union(archived.hours[:1], archived.hours[-1:])
        until = max(hours, default=HOUR) - HOUR
        over = tuple(line for line in recent if line.hour < until)
        kept = before.closed if before is not None else ClosedHours(until, archived, over)
        same = kept.until == until and kept.archived is archived and len(kept.rest) == len(over)
        self.closed: ClosedHours = kept if same else ClosedHours(until, archived, over)
        self.first = min(hours, default=None)
        """Unix time at which the oldest hour begins; None: nothing was spent."""
        self._open = list(spend.since(until))

    def of(self, scope: BudgetScope, begin: float) -> float:
        """Return US dollars in a scope of all hours that begin at or after a moment."""
        found = (line.dollars for line in self._open if line.hour >= begin and counts(scope, line.key))
        return math.fsum([self.closed.of(scope, begin), *found])


def _judge(budget: LLMBudget, sums: SpendSums, unknown: Reason | None, now: float) -> Standing:
    spec = budget.spec
    if spec.time_zone not in known_time_zones():
        reason = Reason(
            Code.INVALID_PARAMETER, f"timeZone {spec.time_zone} is not known here: use another name"
        )
        return Standing(budget, None, None, None, reason)
    period = period_at(spec.period, spec.time_zone, now)
    if unknown is not None:
        return Standing(budget, period, None, None, unknown)
    spent = sums.of(spec.scope, period.first_hour)
    amount = float(Decimal(spec.amount))
    other = _spent_by_others(budget, sums, period) if spent < amount else 0.0
    if other and spent + other >= amount:
        reason = Reason(
            Code.TENANTS_NOT_COUNTED,
            f"US$ {spent:.2f} are spent, and US$ {other:.2f} by tenants without counters of their own and attempts "
            "that providers lost, of which some may be its: use fewer tenants on each route, see why providers do not "
            "answer, or raise amount",
        )
        return Standing(budget, period, None, None, reason)
    runs_out = _forecast(budget, sums, amount - spent, now) if spent < amount else None
    if runs_out is not None and runs_out >= period.end:
        runs_out = None
    return Standing(budget, period, spent, spent / amount, runs_out=runs_out)


def _spent_by_others(budget: LLMBudget, sums: SpendSums, period: Period) -> float:
    """Return US dollars that may be of what a budget names, but were counted for no tenant, or for no route either."""
    scope, found = budget.spec.scope, 0.0
    if scope.tenants is not None:
        found += sums.of(scope.model_copy(update={"tenants": (OTHER_TENANTS,)}), period.first_hour)
    if scope.namespaces is not None or scope.routes is not None:
        lost = {"tenants": (OTHER_TENANTS,), "namespaces": ("",), "routes": None}
        found += sums.of(scope.model_copy(update=lost), period.first_hour)
    return found


def _forecast(budget: LLMBudget, sums: SpendSums, left: float, now: float) -> float | None:
    """Return when the rest of the amount is spent at the mean rate of the last day or week, or of what is known."""
    if sums.first is None:
        return None
    begin = max(now - now % HOUR - FORECAST_HOURS[budget.spec.period] * HOUR, sums.first)
    rate = sums.of(budget.spec.scope, begin) / max(now - begin, HOUR)
    return now + left / rate if rate > 0 else None
