"""Builds the overview from objects as they stand, whoever read them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TypeVar

from modelyard.api.acceleratorclass import AcceleratorClass, Toleration
from modelyard.api.llmbudget import LLMBudget
from modelyard.api.llmdeployment import LLMDeployment
from modelyard.api.llmprovider import LLMProvider
from modelyard.api.llmroute import LLMRoute
from modelyard.api.llmtenant import LLMTenant
from modelyard.api.routetargets import RouteTarget
from modelyard.core.budget.scope import ROUTE_SUFFIX, names_every_target, names_route
from modelyard.core.budget.status import BUDGET_EXHAUSTED
from modelyard.core.inventory import Inventory, Pool
from modelyard.core.overview.judge import (
    Judgement,
    is_exhausted,
    judge_budget,
    judge_deployment,
    judge_ready,
    judge_route,
)
from modelyard.core.overview.model import (
    LEVELS,
    TROUBLE,
    AcceleratorRow,
    BudgetRow,
    DeploymentRow,
    Judged,
    OperatorRow,
    Overview,
    RouteRow,
)
from modelyard.core.status import format_time
from modelyard.core.variants import variant_label

J = TypeVar("J", bound=Judged)

_ANY = Toleration(operator="Exists")
"""Tolerates every taint."""


@dataclass(frozen=True, slots=True)
class Installation:
    """Everything that an overview is built from."""

    deployments: Sequence[LLMDeployment] = ()
    routes: Sequence[LLMRoute] = ()
    budgets: Sequence[LLMBudget] = ()
    tenants: Sequence[LLMTenant] = ()
    providers: Sequence[LLMProvider] = ()
    accelerators: Sequence[AcceleratorClass] = ()
    inventory: Inventory | None = None
    """None: nodes are not read, which is not the same as no nodes."""
    rates: Mapping[str, float] | None = None
    """Offered requests per second as they are now, by `namespace/name`. None: what the last decisions noted counts."""
    operators: tuple[OperatorRow, ...] | None = None
    ledger_time: float | None = None
    """Unix time up to which spending is written down; None: not known, or nothing is written."""
    notes: tuple[str, ...] = field(default=())


def build_overview(found: Installation, now: float) -> Overview:
    """Return the overview. `now`: Unix time of the reading."""
    deployments = _sorted(_deployment_row(item, found.rates) for item in found.deployments)
    costs = [Decimal(row.cost_per_hour) for row in deployments if row.cost_per_hour is not None]
    return Overview(
        time=format_time(now),
        deployments=deployments,
        routes=_sorted(_route_row(item, found.budgets) for item in found.routes),
        budgets=_sorted(_budget_row(item) for item in found.budgets),
        tenants=_sorted(_plain_row(item) for item in found.tenants),
        providers=_sorted(_plain_row(item) for item in found.providers),
        accelerators=tuple(
            _accelerator_row(item, found.inventory)
            for item in sorted(found.accelerators, key=lambda item: item.metadata.name)
        ),
        free_is_upper_bound=found.inventory is not None and not found.inventory.complete,
        cost_per_hour=f"{sum(costs, Decimal(0)):f}" if costs else None,
        cost_complete=len(costs) == len(deployments),
        operators=found.operators,
        ledger_until=format_time(found.ledger_time) if found.ledger_time else None,
        notes=found.notes,
    )


def _sorted(rows: Iterable[J]) -> tuple[J, ...]:
    return tuple(sorted(rows, key=lambda row: (LEVELS.index(row.level), row.name)))


def _deployment_row(deployment: LLMDeployment, rates: Mapping[str, float] | None) -> DeploymentRow:
    status = deployment.status
    judged = judge_deployment(deployment)
    decided, cost = status.scaling, status.cost
    numbers = (decided.numbers if decided is not None else None) or {}
    if rates is None:
        rate = numbers.get("level")
    else:
        rate = f"{rates[deployment.key]:.2f}" if deployment.key in rates else None
    return DeploymentRow(
        name=deployment.key,
        level=judged.level,
        reason=judged.reason,
        message=judged.message,
        since=judged.since,
        model=status.model or deployment.served_name,
        ready=status.ready_replicas,
        wanted=decided.desired_replicas if decided is not None else status.replicas,
        accelerators=_describe_accelerators(deployment),
        cost_per_hour=cost.per_hour if cost is not None else None,
        cost_per_million_tokens=cost.per_million_tokens if cost is not None else None,
        requests_per_second=rate,
        waiting=numbers.get("backlog"),
        decision=decided.reason if decided is not None else "",
        decision_message=decided.message if decided is not None else "",
        decided_at=decided.history[-1].time if decided is not None and decided.history else "",
    )


def _describe_accelerators(deployment: LLMDeployment) -> str:
    """Return the accelerators of all replicas; of a deployment without any, those of one that it would have."""
    placement = deployment.status.placement
    if placement is None:
        return ""
    running = [item for item in placement.variants if item.replicas]
    if not running:
        return f"none, else {placement.count * (placement.nodes or 1)} x {placement.class_name}"
    return ", ".join(
        variant_label(
            item.class_name, item.count * (item.nodes or 1) * item.replicas, spot=item.purchase == "Spot"
        )
        for item in running
    )


def _route_row(route: LLMRoute, budgets: Iterable[LLMBudget]) -> RouteRow:
    judged = judge_route(route)
    refusals = tuple(_refusals(route, budgets))
    refused = tuple(text for _, text in refusals)
    if refused and judged.level not in TROUBLE:
        everybody = any(whole for whole, _ in refusals)
        judged = Judgement("NotReady" if everybody else "Warning", BUDGET_EXHAUSTED, "; ".join(refused))
    return RouteRow(
        name=route.key,
        level=judged.level,
        reason=judged.reason,
        message=judged.message,
        since=judged.since,
        model=route.spec.model,
        policy=route.spec.policy,
        goes_to=_describe_targets(route),
        spill_percent=route.status.spill_percent,
        refused=refused,
    )


def _refusals(route: LLMRoute, budgets: Iterable[LLMBudget]) -> Iterable[tuple[bool, str]]:
    """Yield what budgets that are spent refuse on a route, and whether that is every request."""
    for budget in sorted(budgets, key=lambda item: item.name):
        scope = budget.spec.scope
        if not is_exhausted(budget) or not names_route(scope, f"{route.key}{ROUTE_SUFFIX}"):
            continue
        whose = "everybody" if scope.tenants is None else f"tenants {', '.join(scope.tenants)}"
        if names_every_target(scope):
            yield scope.tenants is None, f"{whose}: budget {budget.name} is spent"
        elif any(_in_scope(target, route, budget) for target in route.spec.targets):
            yield False, f"{whose}, at some targets: budget {budget.name} is spent"


def _in_scope(target: RouteTarget, route: LLMRoute, budget: LLMBudget) -> bool:
    scope = budget.spec.scope
    if target.provider is not None:
        return target.provider in (scope.providers or ())
    return f"{route.metadata.namespace}/{target.deployment}" in (scope.deployments or ())


def _describe_targets(route: LLMRoute) -> str:
    spec, choice = route.spec, route.status.choice
    if spec.policy == "LowestCost":
        return "" if choice is None else choice.target or "nowhere"
    used = [target for target in spec.targets if target.weight]
    names = [_describe_target(target) for target in used]
    if spec.policy == "Priority" or len(used) == 1:
        return ", then ".join(names)
    total = sum(target.weight for target in used)
    return ", ".join(f"{name} {target.weight / total:.0%}" for name, target in zip(names, used, strict=True))


def _describe_target(target: RouteTarget) -> str:
    if target.provider is not None:
        return f"{target.provider}/{target.model}"
    return f"{target.deployment}:{target.adapter}" if target.adapter else f"{target.deployment}"


def _budget_row(budget: LLMBudget) -> BudgetRow:
    judged, status = judge_budget(budget), budget.status
    return BudgetRow(
        name=budget.name,
        level=judged.level,
        reason=judged.reason,
        message=judged.message,
        since=judged.since,
        amount=budget.spec.amount,
        spent=status.spent,
        share=status.share,
        period=budget.spec.period,
        resets=status.period_end or "",
        runs_out=status.runs_out,
    )


def _plain_row(item: LLMTenant | LLMProvider) -> Judged:
    judged = judge_ready(item.metadata.generation, item.status)
    return Judged(
        name=item.name, level=judged.level, reason=judged.reason, message=judged.message, since=judged.since
    )


def _accelerator_row(accelerator: AcceleratorClass, inventory: Inventory | None) -> AcceleratorRow:
    spec, name = accelerator.spec, accelerator.metadata.name
    on_demand = spec.price.on_demand if spec.price is not None else None
    spot = spec.price.spot if spec.price is not None else None
    if inventory is None or spec.resource_name is None:
        return AcceleratorRow(name=name, on_demand=on_demand, spot=spot)
    pool = Pool(spec.resource_name, tuple(sorted(spec.node_selector.items())), tolerations=(_ANY,))
    states = [state for state in inventory.nodes if pool.admits(state.node)]
    total = sum(state.node.accelerators[spec.resource_name] for state in states)
    unused = sum(state.free.get(spec.resource_name, 0) for state in states)
    free = sum(state.free.get(spec.resource_name, 0) for state in states if state.node.schedulable)
    return AcceleratorRow(
        name=name,
        on_demand=on_demand,
        spot=spot,
        nodes=len(states),
        total=total,
        used=total - unused,
        free=free,
    )
