"""The variant that comes next, and why it is not the one."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

from modelyard.api.llmdeployment import LLMDeployment
from modelyard.core.report.model import FINE, RunnerUp, VariantReport
from modelyard.core.report.running import price_planned
from modelyard.core.variants import Variant


@dataclass(frozen=True, slots=True)
class Contest:
    """What the variants are compared under."""

    deployment: LLMDeployment
    counted: tuple[tuple[Variant, int], ...]
    """What was chosen, with replicas."""
    needed: float
    """Requests per second that all replicas must answer, the margin included."""
    gap: float
    """Relative distance to the optimum at which the search stops."""
    nodes_known: bool
    """Whether there is an inventory."""
    moving: bool
    """Whether replicas run already."""


def find_runner_up(
    contest: Contest, variants: tuple[Variant, ...], describe: Callable[[Variant, int], VariantReport]
) -> RunnerUp | None:
    """Return the variant that answers the same load for the least money, beside those chosen.

    One that would need more replicas than `scaling.max` is none.
    """
    scaling = contest.deployment.spec.scaling
    chosen = {variant.name for variant, _ in contest.counted}
    counts = {
        variant.name: _count(contest, variant)
        for variant in variants
        if variant.name not in chosen and variant.capacity > 0
    }
    others = [
        variant
        for variant in variants
        if variant.name in counts and (scaling is None or counts[variant.name] <= scaling.max)
    ]
    if not others or not contest.counted:
        return None
    second = min(others, key=lambda item: (item.hourly * counts[item.name], item.spot, item.name))
    replicas = counts[second.name]
    ours = price_planned(contest.counted)
    if second.price is None or ours is None:
        return RunnerUp(variant=describe(second, replicas), reason="a price is not known")
    difference = second.price * replicas - ours
    if difference > 0:
        reason = f"${_trim(difference)}/h more for the same load"
    elif difference == 0:
        reason = f"the same price for the same load{_explain_tie(contest, second)}"
    else:
        reason = f"${_trim(-difference)}/h less for the same load, but {_explain_loss(contest, second)}"
    return RunnerUp(variant=describe(second, replicas), reason=reason)


def _count(contest: Contest, variant: Variant) -> int:
    scaling = contest.deployment.spec.scaling
    if scaling is None:
        return sum(count for _, count in contest.counted)
    return max(math.ceil(contest.needed / variant.capacity - 1e-9), scaling.min, 1)


def _explain_tie(contest: Contest, second: Variant) -> str:
    """Say that the order in the spec decided, if there is one between the two."""
    order = [option.class_name for option in contest.deployment.spec.placement.accelerators]
    first, name = (item.accelerator.metadata.name for item in (contest.counted[0][0], second))
    return "; the order in the spec decides" if first != name and {first, name} <= set(order) else ""


def _explain_loss(contest: Contest, second: Variant) -> str:
    spot = contest.deployment.spec.placement.spot
    if not contest.counted[0][0].meets_objective:
        return "it is slower, and none meets the objective"
    if second.spot:
        kept = sum(count for variant, count in contest.counted if not variant.spot)
        if spot is not None and kept <= spot.on_demand_base:
            return f"placement.spot.onDemandBase keeps {spot.on_demand_base} on demand"
        if not contest.nodes_known:
            return (
                "the spot replicas of one zone may be lost at once, and without an inventory all are of one"
            )
        return (
            "its nodes lack room in enough zones (the spot replicas of one may be lost at once), or moving costs more "
            "than it saves"
        )
    if contest.nodes_known:
        return "no room for it is free, or moving costs more than it saves"
    if contest.moving:
        return "moving costs more than it saves"
    return f"the search stops within {contest.gap:.0%} of the least"


def _trim(value: Decimal) -> str:
    return f"{value.quantize(FINE).normalize():f}"
