"""What an LLMRoute's status says of where its requests go and why, as text."""

from collections.abc import Iterator
from decimal import Decimal

from modelyard.api.routechoice import ChoiceStatus, TargetCost
from modelyard.cli.explainreport import columns, condition_rows, say
from modelyard.cli.planwords import clean
from modelyard.core.overview.explanation import RouteReport
from modelyard.core.reasons import Code


def format_route(report: RouteReport) -> str:
    """Return the explanation for a terminal."""
    return "\n".join(line.rstrip() for line in _lines(report))


def _lines(report: RouteReport) -> Iterator[str]:
    plural = "" if report.targets == 1 else "s"
    yield (
        f"{clean(report.namespace)}/{clean(report.name)}: model {clean(report.model)}, policy {report.policy}, "
        f"{report.targets} target{plural}"
    )
    if not report.current:
        yield "the spec is newer than this status: it has not been decided about yet"
    yield ""
    if report.choice is not None:
        yield from _choice(report.choice)
    elif report.policy == "LowestCost":
        yield "no decision yet: is the operator running, and does it watch this namespace?"
    else:
        yield f"goes to    the targets of the spec, as policy {report.policy} says"
    if report.spill_percent is not None:
        yield f"spill      {report.spill_percent} % of the requests go elsewhere, because replicas are missing"
    if report.conditions:
        yield ""
        yield "conditions"
        yield from columns(condition_rows(report.conditions))


def _choice(choice: ChoiceStatus) -> Iterator[str]:
    yield f"goes to    {clean(choice.target) or 'nowhere'} since {choice.since}"
    yield f"reason     {choice.reason}: {clean(choice.message)}"
    if choice.numbers:
        yield "numbers"
        yield from columns([(say(name), clean(value)) for name, value in choice.numbers.items()])
    yield ""
    yield "targets"
    yield from columns([_target(cost, choice) for cost in choice.costs])
    if choice.crossings:
        yield ""
        yield f"cheapest   {clean(choice.crossings[0].before)} up to the first of these loads"
        yield from columns(
            [(f"{item.requests_per_minute} requests/min", clean(item.after)) for item in choice.crossings]
        )


def _target(cost: TargetCost, choice: ChoiceStatus) -> tuple[str, ...]:
    each = "" if cost.per_million_tokens is None else f"${cost.per_million_tokens} per million tokens"
    replicas = "" if cost.replicas is None else f"{cost.replicas} replica{'' if cost.replicas == 1 else 's'}"
    price = "" if cost.per_hour is None else f"${cost.per_hour}/h"
    return clean(cost.target), price, each, replicas, clean(_verdict(cost, choice))


def _verdict(cost: TargetCost, choice: ChoiceStatus) -> str:
    """Return why a target was chosen or not."""
    if cost.target == choice.target:
        return "chosen"
    if cost.reason is not None:
        return f"not allowed: {cost.reason}: {cost.message or ''}"
    chosen = next((item.per_hour for item in choice.costs if item.target == choice.target), None)
    if cost.per_hour is None or chosen is None:
        return "not chosen"
    more = Decimal(cost.per_hour) - Decimal(chosen)
    if more > 0:
        return f"not chosen: ${more}/h more"
    if choice.reason == Code.NO_DATA:
        return "not chosen: nothing changes while the counters are not known"
    if more < 0:
        return f"not chosen yet: ${-more}/h less, but not for long enough"
    return "not chosen: it costs the same"
