"""The status of an LLMBudget."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from modelyard.api.llmbudget import LLMBudget, LLMBudgetStatus
from modelyard.core.budget.judge import Standing
from modelyard.core.budget.scope import names_deployment
from modelyard.core.reasons import Code, Reason
from modelyard.core.status import READY, Verdict, format_time, stamp

BUDGET_EXHAUSTED, SOFT_LIMIT_REACHED, SPEND_UNKNOWN = "BudgetExhausted", "SoftLimitReached", "SpendUnknown"

PRICES_KNOWN = "PricesKnown"

SHARE_DEAD_BAND = 0.01
"""Move of the share below which the figures are left as they are: those that move with every reading would make every
reading a write."""


@dataclass(frozen=True, slots=True)
class KnownNames:
    """What the scope of a budget may name."""

    routes: Collection[str] = ()
    """`namespace/name`."""
    deployments: Collection[str] = ()
    providers: Collection[str] = ()
    unpriced: Collection[str] = ()
    """`namespace/name` of the deployments that hold accelerators whose price is not known."""


def build_budget_status(standing: Standing, known: KnownNames, now: float) -> LLMBudgetStatus:
    """Return the status that the budget should have.

    Where it is not known what was spent, there is no word on the limits, and the figures are left out.
    """
    budget = standing.budget
    verdicts = [_explain_ready(standing, known), _explain_spend(standing)]
    unpriced = sorted(key for key in known.unpriced if names_deployment(budget.spec.scope, key))
    if unpriced:
        message = (
            f"accelerators of {', '.join(unpriced)} have no price and count for nothing: "
            "give their AcceleratorClass a price"
        )
        verdicts.append(Verdict(PRICES_KNOWN, False, Reason(Code.PRICE_UNKNOWN, message)))
    if standing.share is not None:
        verdicts.append(_explain_hard(standing))
        if budget.spec.soft is not None:
            verdicts.append(_explain_soft(standing))
    generation = budget.metadata.generation
    conditions = stamp(verdicts, budget.status.conditions, generation, now)
    status = LLMBudgetStatus(observed_generation=generation, conditions=conditions)
    return status.model_copy(update=_figures(standing))


def _explain_ready(standing: Standing, known: KnownNames) -> Verdict:
    if standing.period is None and standing.unknown is not None:
        return Verdict(READY, False, standing.unknown)
    missing = list(_missing(standing.budget, known))
    if missing:
        message = f"{', '.join(missing)} of scope cannot be found: correct the name, or create it"
        return Verdict(READY, False, Reason(Code.SCOPE_NOT_FOUND, message))
    if standing.unknown is not None:
        return Verdict(READY, False, standing.unknown)
    return Verdict(READY, True, Reason(Code.SPEND_READ, "what is spent is counted, and the limits act"))


def _missing(budget: LLMBudget, known: KnownNames) -> list[str]:
    """Return what the scope names that is not there. Tenants and namespaces are not checked."""
    scope = budget.spec.scope
    return [
        f"{field} {name}"
        for field, names, found in (
            ("route", scope.routes, known.routes),
            ("deployment", scope.deployments, known.deployments),
            ("provider", scope.providers, known.providers),
        )
        for name in names or ()
        if name not in found
    ]


def _explain_spend(standing: Standing) -> Verdict:
    if standing.unknown is None:
        return Verdict(SPEND_UNKNOWN, False, Reason(Code.SPEND_READ, "what is spent is read from the ledger"))
    effect = (
        "; providers get no requests in its scope meanwhile"
        if standing.budget.spec.hard.action == "Refuse"
        else ""
    )
    return Verdict(SPEND_UNKNOWN, True, Reason(standing.unknown.code, standing.unknown.message + effect))


def _explain_hard(standing: Standing) -> Verdict:
    spec = standing.budget.spec
    if not standing.exhausted or standing.period is None:
        return Verdict(BUDGET_EXHAUSTED, False, Reason(Code.AMOUNT_LEFT, "the amount is not spent"))
    does = (
        "requests in scope are answered 429"
        if spec.hard.action == "Refuse"
        else "hard.action Warn refuses nothing"
    )
    message = (
        f"US$ {spec.amount} are spent; {does}; it resets at {_local(standing.period.end, spec.time_zone)}, "
        "or raise amount"
    )
    return Verdict(BUDGET_EXHAUSTED, True, Reason(Code.AMOUNT_SPENT, message))


def _explain_soft(standing: Standing) -> Verdict:
    soft = standing.budget.spec.soft
    if soft is None or not standing.soft_reached:
        return Verdict(SOFT_LIMIT_REACHED, False, Reason(Code.BELOW_SOFT_LIMIT, "less than soft.at is spent"))
    message = f"{float(soft.at):.0%} of US$ {standing.budget.spec.amount} are spent: {soft.action} acts"
    return Verdict(SOFT_LIMIT_REACHED, True, Reason(Code.SOFT_LIMIT, message))


def _figures(standing: Standing) -> dict[str, str | None]:
    """Return the figures: those that stand while they are within the dead band of what is."""
    before, period = standing.budget.status, standing.period
    begin, end = (None, None) if period is None else (format_time(period.begin), format_time(period.end))
    figures: dict[str, str | None] = {"period_begin": begin, "period_end": end}
    if standing.spent is None or standing.share is None:
        return figures
    same = (before.period_begin, before.period_end) == (begin, end)
    generation = standing.budget.metadata.generation
    if (
        same
        and before.share is not None
        and before.observed_generation == generation
        and abs(float(before.share) - standing.share) < SHARE_DEAD_BAND
        and (float(before.share) >= 1) == standing.exhausted
    ):
        return {**figures, "spent": before.spent, "share": before.share, "runs_out": before.runs_out}
    runs_out = None
    if standing.runs_out is not None:
        runs_out = _local(standing.runs_out, standing.budget.spec.time_zone)[:10]
    return {
        **figures,
        "spent": _decimal(min(standing.spent, 999_999_999.0), 2),
        "share": _decimal(min(standing.share, 999_999_999.0), 4),
        "runs_out": runs_out,
    }


def _decimal(value: float, places: int) -> str:
    """Return a number as the schema takes it, rounded down: 1 stands only where all is spent."""
    scale = 10**places
    text = f"{int(value * scale + 1e-9) / scale:.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _local(time: float, zone: str) -> str:
    """Return a time as the clocks of a zone show it, RFC 3339."""
    return datetime.fromtimestamp(int(time), ZoneInfo(zone)).isoformat()
