"""What is decided about one deployment, told in full."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from modelyard.api.llmdeployment import LLMDeployment
from modelyard.api.meta import Refusal
from modelyard.core.cost import cost_per_million
from modelyard.core.place import cost_of_load
from modelyard.core.plan import DeploymentPlan
from modelyard.core.reasons import Code
from modelyard.core.report.compare import Costs, OwnPrice, compare_prices
from modelyard.core.report.model import (
    FINE,
    Cost,
    DeploymentReport,
    FitReport,
    LoadReport,
    Memory,
    RejectedReport,
    RunnerUp,
    SizeReport,
    VariantReport,
)
from modelyard.core.report.running import count_planned, per_day, price_planned, purchase
from modelyard.core.report.settle import StatedLoad
from modelyard.core.state import DeploymentMemory, Policy
from modelyard.core.variants import Variant, VariantList

_NOT_FITTING = frozenset({Code.DOES_NOT_FIT})


@dataclass(frozen=True, slots=True)
class Context:
    """What the reports of all deployments share."""

    policy: Policy
    unread: Mapping[str, Refusal] = field(default_factory=dict)
    """Why the profile of a model could not be read, by `model.source`."""
    undescribed: frozenset[str] = frozenset()
    """Classes that were named and are defined nowhere, so that nothing is known of them."""
    own_prices: tuple[OwnPrice, ...] = ()


def report_deployment(
    deployment: LLMDeployment,
    plan: DeploymentPlan,
    memory: DeploymentMemory,
    load: StatedLoad,
    missing: int,
    context: Context,
) -> DeploymentReport:
    """Return the report of a deployment, from the decision about it."""
    counted = count_planned(plan)
    choice = memory.choice.answer if memory.choice is not None else None
    variants = choice.variants if isinstance(choice, VariantList) else ()
    main = counted[0][0] if counted else None
    cost = _cost(counted, load)
    # A fixed number of replicas does not follow the volume, and neither does what they run on.
    carriers = variants if deployment.spec.scaling is not None or main is None else (main,)
    costs = Costs(
        variants=carriers,
        shape=load.shape,
        utilization=context.policy.size.utilization,
        rate=load.requests_per_minute,
        per_day=cost.per_day if cost is not None else None,
    )
    return DeploymentReport(
        namespace=deployment.metadata.namespace,
        name=deployment.metadata.name,
        model=deployment.served_name,
        source=deployment.spec.model.source,
        fit=_fit(deployment, plan, choice, main, context),
        load=LoadReport(
            source=load.source,
            requests_per_minute=load.requests_per_minute,
            input_tokens=load.shape.input_tokens,
            output_tokens=load.shape.output_tokens,
        ),
        replicas=sum(count for _, count in counted) if counted else None,
        size=_size(plan),
        variants=tuple(_variant(variant, count) for variant, count in counted),
        reason=plan.placement.message if plan.placement is not None and counted else "",
        runner_up=_runner_up(deployment, counted, variants, load, context),
        rejected=_rejected(choice),
        cost=cost,
        comparisons=compare_prices(deployment, costs, context.own_prices) if counted else (),
        missing_replicas=missing,
        notes=tuple(_notes(deployment, plan, memory, counted, load, missing)),
    )


def _fit(
    deployment: LLMDeployment,
    plan: DeploymentPlan,
    choice: VariantList | Refusal | None,
    main: Variant | None,
    context: Context,
) -> FitReport:
    refusal = plan.refusal
    if refusal is not None:
        named = {option.class_name for option in deployment.spec.placement.accelerators}
        if refusal.reason == Code.ACCELERATOR_NOT_FOUND and named & context.undescribed:
            message = (
                f"nothing is known of class {', '.join(sorted(named & context.undescribed))}: give the file with its "
                "AcceleratorClass, or --against where it exists"
            )
            return FitReport(verdict="Unknown", reason=refusal.reason, message=message)
        verdict = "DoesNotFit" if refusal.reason in _NOT_FITTING else "Refused"
        return FitReport(verdict=verdict, reason=refusal.reason, message=refusal.message)
    fit = main.fit if main is not None else None
    if fit is not None:
        memory = Memory(
            total=fit.memory,
            usable=fit.budget,
            weights=fit.weights,
            cache_per_token=fit.cache_per_token,
            overhead=fit.overhead,
            cache=fit.cache,
            context_length=fit.context_length,
            cache_tokens=fit.cache_tokens,
        )
        return FitReport(verdict="Fits", message=fit.explain(), memory=memory)
    source = deployment.spec.model.source
    if isinstance(choice, VariantList) and choice.profile is None:
        unread = context.unread.get(source)
        why = unread.message if unread is not None else "set model.profile in the spec"
        return FitReport(verdict="Unknown", message=f"the architecture of {source} is not known: {why}")
    name = main.accelerator.metadata.name if main is not None else ""
    message = f"the memory of class {name} is not known: set spec.memory in its AcceleratorClass"
    return FitReport(verdict="Unknown", message=message)


def _size(plan: DeploymentPlan) -> SizeReport | None:
    if plan.size is None or plan.refusal is not None:
        return None
    return SizeReport(reason=plan.size.reason.code, message=plan.size.reason.message)


def _variant(variant: Variant, replicas: int) -> VariantReport:
    return VariantReport(
        class_name=variant.accelerator.metadata.name,
        count=variant.count,
        purchase=purchase(spot=variant.spot),
        tensor=variant.parallelism.tensor,
        pipeline=variant.parallelism.pipeline,
        replicas=replicas,
        per_hour=None if variant.price is None else (variant.price * replicas).quantize(FINE),
        requests_per_minute=round(variant.capacity * 60, 2),
        basis=variant.basis,
    )


def _runner_up(
    deployment: LLMDeployment,
    counted: tuple[tuple[Variant, int], ...],
    variants: tuple[Variant, ...],
    load: StatedLoad,
    context: Context,
) -> RunnerUp | None:
    """Return the variant that answers the same load for the least money, beside those chosen."""
    chosen = {variant.name for variant, _ in counted}
    others = [variant for variant in variants if variant.name not in chosen]
    if not others or not counted:
        return None
    total = sum(count for _, count in counted)
    if load.requests_per_minute is not None:
        needed = load.requests_per_minute / 60 / context.policy.size.utilization
    else:
        needed = sum(variant.capacity * count for variant, count in counted)
    second = min(others, key=lambda item: (cost_of_load(item, needed), item.spot, item.name))
    fixed = deployment.spec.scaling is None
    replicas = total if fixed else max(math.ceil(needed / second.capacity - 1e-9), 1)
    ours = price_planned(counted)
    if second.price is None or ours is None:
        return RunnerUp(variant=_variant(second, replicas), reason="a price is not known")
    difference = second.price * replicas - ours
    scaling, spot = deployment.spec.scaling, deployment.spec.placement.spot
    if difference > 0:
        reason = f"${_trim(difference)}/h more for the same load"
    elif difference == 0:
        reason = "the same price for the same load; the order in the spec decides"
    else:
        reason = f"${_trim(-difference)}/h less for the same load, but "
        if scaling is not None and replicas > scaling.max:
            reason += f"scaling.max is {scaling.max}"
        elif second.spot and spot is not None and spot.on_demand_base:
            reason += f"placement.spot.onDemandBase keeps {spot.on_demand_base} on demand"
        else:
            reason += "no room for it is free, or moving costs more than it saves"
    return RunnerUp(variant=_variant(second, replicas), reason=reason)


def _trim(value: Decimal) -> str:
    return f"{value.quantize(FINE).normalize():f}"


def _rejected(choice: VariantList | Refusal | None) -> tuple[RejectedReport, ...]:
    if not isinstance(choice, VariantList):
        return ()
    return tuple(
        RejectedReport(option=item.label, reason=item.refusal.reason, message=item.refusal.message)
        for item in choice.rejected
    )


def _cost(counted: tuple[tuple[Variant, int], ...], load: StatedLoad) -> Cost | None:
    total = price_planned(counted)
    if total is None or not counted:
        return None
    rate = _answered(counted, load)
    tokens = load.shape.input_tokens + load.shape.output_tokens
    each = cost_per_million(total, rate * tokens) if rate else None
    return Cost(
        per_hour=total.quantize(FINE),
        per_day=per_day(total),
        per_million_tokens=None if each is None else each.quantize(FINE),
    )


def _answered(counted: tuple[tuple[Variant, int], ...], load: StatedLoad) -> float | None:
    """Return the requests per second that are answered: the load, as far as the replicas go."""
    if load.requests_per_minute is None:
        return None
    return min(load.requests_per_minute / 60, sum(variant.capacity * count for variant, count in counted))


def _notes(
    deployment: LLMDeployment,
    plan: DeploymentPlan,
    memory: DeploymentMemory,
    counted: tuple[tuple[Variant, int], ...],
    load: StatedLoad,
    missing: int,
) -> Iterator[str]:
    if not counted:
        return
    main = counted[0][0]
    scaling = deployment.spec.scaling
    if load.requests_per_minute is None and not deployment.spec.suspend:
        yield "no load is stated: sized without it; set spec.load.requestsPerMinute or give --load"
    rate = _answered(counted, load)
    if rate is not None and load.requests_per_minute and rate * 60 < load.requests_per_minute * (1 - 1e-9):
        yield (
            f"the replicas answer {rate * 60:.0f} of {load.requests_per_minute:g} requests a minute within the "
            "objective: raise replicas or scaling.max"
        )
    if scaling is not None and scaling.actuator == "External":
        yield "scaling.actuator is External: replicas and price are what the load needs, the autoscaler decides"
    if scaling is not None and scaling.mode == "Advise" and plan.size is not None:
        yield f"scaling.mode is Advise: the size is advice only, it would be {plan.size.replicas}"
    if missing:
        limits = memory.allocation.allocation.limits if memory.allocation is not None else ()
        why = "; ".join(limits) or "not enough free accelerators on one node"
        yield f"{missing} replicas have no room and stay Pending: {why}"
    waiting = plan.placement.preferred if plan.placement is not None else None
    if waiting is not None and not (missing and waiting.code == Code.CAPACITY_MISSING):
        yield waiting.message
    if main.price is None:
        name = main.accelerator.metadata.name
        yield f"the price of class {name} is not known: set spec.price in its AcceleratorClass"
