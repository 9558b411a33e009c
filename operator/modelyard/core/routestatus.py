"""What the user reads of where a route's requests go: choice, costs, crossings and spill, with a dead band."""

from collections.abc import Iterable
from dataclasses import replace
from decimal import Decimal

from modelyard.api.llmroute import LLMRoute, LLMRouteStatus
from modelyard.api.meta import Condition
from modelyard.api.routechoice import ChoiceStatus, Crossing, TargetCost
from modelyard.core.breakeven.inputs import TOKENS
from modelyard.core.breakeven.joint import SECONDS_PER_HOUR
from modelyard.core.breakeven.memory import RouteChoice
from modelyard.core.breakeven.memory import TargetCost as Weighed
from modelyard.core.coststatus import format_price
from modelyard.core.reasons import Code, Reason
from modelyard.core.routeplan.model import RoutePlan
from modelyard.core.status import Verdict, format_numbers, format_time, stamp

SPILLING, PRICES_KNOWN = "Spilling", "PricesKnown"

DEAD_BAND = Decimal("0.1")
"""Change below which status is left as it is: of a cost, as a part of the dearest target's; of the break-even, of
itself. A tenth, as of the cost per token."""
SPILL_BAND = 20
"""Percent by which the share that spills must have moved, unless it begins or ends: two of the parts it moves in."""
SMALLEST = Decimal("0.0001")
"""US dollars per hour: the last decimal that is shown."""
RATE_LIMIT = 1_000_000
"""Requests per minute from which on a crossing is not told: the bound of the schema."""
CROSSINGS_LIMIT = 64
"""Crossings kept in status: the bound of the schema."""


def tell_plan(
    status: LLMRouteStatus, route: LLMRoute, plan: RoutePlan | None, now: float, *, settled: bool
) -> LLMRouteStatus:
    """Return the status with what is decided about the route's targets. `now`: Unix time.

    Nothing that moves with every reading is written with every reading: figures, reasons and shares stay as they stand
    within the dead band, and while it is not `settled`, which is long enough after the last write, unless the target
    changes. Without a plan, as after a restart, what stood stays.
    """
    before = route.status
    if plan is None:
        return _keep(status, route)
    choice = before.choice
    if plan.choice is None:
        choice = None
    else:
        fresh = _describe(plan, plan.choice, choice, now)
        # Right after a restart nothing is known, and what was known before says more.
        if (
            choice is None
            or choice.target != fresh.target
            or (settled and plan.known and _moved(choice, fresh))
        ):
            choice = fresh
    verdicts = list(_conditions(plan, before.conditions))
    percent = None
    if plan.may_spill:
        percent = round(plan.spilled * 100)
        shown = before.spill_percent
        moved = shown is None or (shown > 0) != (percent > 0) or abs(percent - shown) >= SPILL_BAND
        changed = choice is not before.choice and before.choice is not None
        unknown = not plan.known and plan.spill is None and shown is not None
        if unknown or not moved or not (settled or changed or shown is None):
            percent = shown
            stood = _find(before.conditions, SPILLING)
            if stood is not None:
                verdicts = [_stand(stood) if item.type == SPILLING else item for item in verdicts]
    generation = route.metadata.generation
    added = stamp(verdicts, before.conditions, generation, now)
    return status.model_copy(
        update={"choice": choice, "spill_percent": percent, "conditions": (*status.conditions, *added)}
    )


def _keep(status: LLMRouteStatus, route: LLMRoute) -> LLMRouteStatus:
    """Return the status with what stood, as far as the spec still has it."""
    before, spec = route.status, route.spec
    chosen = spec.policy == "LowestCost"
    spills = spec.spill is not False and len(spec.targets) > 1
    types = {name for name, holds in ((PRICES_KNOWN, chosen), (SPILLING, spills)) if holds}
    kept = tuple(item for item in before.conditions if item.type in types)
    return status.model_copy(
        update={
            "choice": before.choice if chosen else None,
            "spill_percent": before.spill_percent if spills else None,
            "conditions": (*status.conditions, *kept),
        }
    )


def _conditions(plan: RoutePlan, before: Iterable[Condition]) -> Iterable[Verdict]:
    if plan.may_spill:
        reason = plan.spill or Reason(
            Code.ROOM, "serving replicas have room for all that should come to them"
        )
        stood = _find(before, SPILLING)
        if stood is not None and stood.reason == reason.code:
            # The sentence holds the load of the moment.
            reason = replace(reason, message=stood.message)
        yield Verdict(SPILLING, plan.spill is not None, reason)
    if plan.choice is not None:
        unknown = [
            cost.refusal.message
            for cost in plan.choice.costs
            if cost.refusal is not None and cost.refusal.code == Code.PRICE_UNKNOWN
        ]
        reason = (
            Reason(Code.PRICE_UNKNOWN, "; ".join(unknown))
            if unknown
            else Reason(Code.PRICES_KNOWN, "every provider among the targets states its price")
        )
        yield Verdict(PRICES_KNOWN, not unknown, reason)


def _find(conditions: Iterable[Condition], kind: str) -> Condition | None:
    return next((item for item in conditions if item.type == kind), None)


def _stand(condition: Condition) -> Verdict:
    return Verdict(condition.type, condition.status == "True", Reason(condition.reason, condition.message))


def _describe(plan: RoutePlan, choice: RouteChoice, before: ChoiceStatus | None, now: float) -> ChoiceStatus:
    target = choice.target.name if choice.target is not None else ""
    stays = before is not None and before.target == target
    crossings = tuple(
        Crossing(
            requests_per_minute=_format_rate(item.requests_per_minute),
            before=item.before.name,
            after=item.after.name,
        )
        for item in choice.crossings[:CROSSINGS_LIMIT]
        if item.requests_per_minute < RATE_LIMIT
    )
    return ChoiceStatus(
        target=target,
        since=before.since if before is not None and stays else format_time(plan.since or now),
        reason=choice.reason.code,
        message=choice.reason.message[:1024],
        break_even_per_minute=crossings[0].requests_per_minute if crossings else None,
        numbers=format_numbers(choice.numbers),
        costs=tuple(_describe_cost(cost, choice) for cost in choice.costs),
        crossings=crossings,
    )


def _describe_cost(cost: Weighed, choice: RouteChoice) -> TargetCost:
    refusal = cost.refusal
    hourly = None if cost.hourly is None else _dollars(cost.hourly)
    each = per_million(cost, choice)
    return TargetCost(
        target=cost.target.name,
        per_hour=hourly,
        per_million_tokens=None if each is None else _dollars(each),
        replicas=cost.replicas if cost.target.own and cost.hourly is not None else None,
        reason=refusal.code if refusal is not None else None,
        message=refusal.message[:1024] if refusal is not None else None,
    )


def per_million(cost: Weighed, choice: RouteChoice) -> float | None:
    """Return US dollars per million tokens of the mean request; None of a deployment without load."""
    numbers = choice.numbers
    tokens = numbers.get("inputTokens", 0.0) + numbers.get("outputTokens", 0.0)
    if cost.hourly is None or tokens <= 0:
        return None
    if cost.per_request is not None:
        return cost.per_request / tokens * TOKENS
    requests = numbers.get("requestsPerSecondAhead", 0.0) * SECONDS_PER_HOUR
    return cost.hourly / (requests * tokens) * TOKENS if requests > 0 else None


def _dollars(value: float) -> str:
    # A difference of two sums may be a rounding error below nothing, and a rate near nothing makes a price without end.
    return format_price(Decimal(min(max(value, 0.0), 999_999.0)))


def _format_rate(value: float) -> str:
    text = f"{value:.4f}" if value < 10 else f"{value:.1f}"
    return text.rstrip("0").rstrip(".") or "0"


def _moved(before: ChoiceStatus, after: ChoiceStatus) -> bool:
    """Say whether the figures have left the dead band, or something else than figures has changed."""
    if before.reason != after.reason or len(before.costs) != len(after.costs):
        return True
    # What moves little beside the dearest target changes nothing, such as the last of a load that has gone.
    dearest = max(
        (Decimal(cost.per_hour) for cost in after.costs if cost.per_hour is not None), default=SMALLEST
    )
    for old, new in zip(before.costs, after.costs, strict=True):
        if (old.target, old.reason) != (new.target, new.reason):
            return True
        if _differ(old.per_hour, new.per_hour, max(dearest * DEAD_BAND, SMALLEST)):
            return True
    even = before.break_even_per_minute
    return _differ(even, after.break_even_per_minute, Decimal(even or 0) * DEAD_BAND)


def _differ(old: str | None, new: str | None, band: Decimal) -> bool:
    if old is None or new is None:
        return old != new
    return abs(Decimal(new) - Decimal(old)) > band
