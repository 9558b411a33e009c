"""What a deployment costs, as its status shows it."""

from decimal import Decimal

from modelyard.api.llmdeployment import CostStatus, LLMDeploymentStatus
from modelyard.core.plan import DeploymentPlan
from modelyard.core.snapshot import Pod

COST_DEAD_BAND = Decimal("0.1")
"""Relative change of the cost per token below which status is left as it is: figures that move with every
reading would make every reading a write."""


def hourly_cost(plan: DeploymentPlan, pods: tuple[Pod, ...]) -> Decimal | None:
    """Return US dollars per hour of the accelerators held, used or not; None without a price.

    A pod of a variant that is not in the plan any more costs as much as one of the main variant.
    """
    if plan.placement is None or plan.placement.main.price is None:
        return None
    prices = {item.variant.name: item.variant.price for item in plan.placement.variants}
    held = [pod for pod in pods if pod.share_held and pod.phase in {"Pending", "Running"}]
    main = plan.placement.main.price
    return sum(
        (
            (main if (price := prices.get(pod.variant)) is None else price) * Decimal(pod.share_held)
            for pod in held
        ),
        Decimal(0),
    )


def build_cost_status(
    previous: LLMDeploymentStatus, plan: DeploymentPlan, pods: tuple[Pod, ...], per_million: Decimal | None
) -> CostStatus | None:
    """Return what status shows. `per_million`: US dollars for a million tokens; None: not known, as shown before."""
    if plan.placement is None:
        return previous.cost
    per_hour = hourly_cost(plan, pods)
    if per_hour is None:
        return None
    shown = previous.cost.per_million_tokens if previous.cost else None
    if per_million is not None:
        moved = shown is None or abs(per_million - Decimal(shown)) > Decimal(shown) * COST_DEAD_BAND
        shown = format_price(per_million) if moved else shown
    return CostStatus(per_hour=format_price(per_hour), per_million_tokens=shown)


def format_price(value: Decimal) -> str:
    """Return US dollars with four decimals at most."""
    text = f"{min(value, Decimal(999999)):.4f}".rstrip("0").rstrip(".")
    return text or "0"
