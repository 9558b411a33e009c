"""What is decided about one deployment, told in full."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from modelyard.api.llmdeployment import LLMDeployment
from modelyard.api.meta import Refusal
from modelyard.core.cost import cost_per_million
from modelyard.core.inventory import Inventory
from modelyard.core.place import format_figure
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
    SizeReport,
    VariantReport,
    round_figure,
)
from modelyard.core.report.notes import Facts, misses_objective, write_notes
from modelyard.core.report.runnerup import Contest, find_runner_up
from modelyard.core.report.running import count_planned, per_day, price_planned, purchase
from modelyard.core.report.settle import StatedLoad
from modelyard.core.scaling.rule import LoadPolicy
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
    warnings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """About the manifests, by `namespace/name`."""
    inventory: Inventory | None = None


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
    facts = Facts(
        deployment=deployment,
        plan=plan,
        memory=memory,
        counted=counted,
        load=load,
        missing=missing,
        inventory=context.inventory,
        warnings=context.warnings.get(deployment.key, ()),
    )
    cost = _cost(facts)
    # A fixed number of replicas does not follow the volume, and neither does what they run on.
    carriers = variants if deployment.spec.scaling is not None or main is None else (main,)
    costs = Costs(
        variants=carriers,
        shape=load.shape,
        policy=context.policy.size.load,
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
        size=_size(facts, context.policy.size.load),
        variants=tuple(_variant(variant, count) for variant, count in counted),
        reason=plan.placement.message if plan.placement is not None and counted else "",
        runner_up=find_runner_up(_contest(facts, context), variants, _variant),
        rejected=_rejected(choice),
        cost=cost,
        comparisons=compare_prices(deployment, costs, context.own_prices) if counted else (),
        misses_objective=misses_objective(counted),
        missing_replicas=missing,
        notes=tuple(write_notes(facts)),
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


def _size(facts: Facts, policy: LoadPolicy) -> SizeReport | None:
    plan, stated = facts.plan, facts.load.requests_per_minute
    if plan.size is None or plan.refusal is not None:
        return None
    message = plan.size.reason.message
    capacity = sum(variant.capacity * count for variant, count in facts.counted)
    if stated and capacity:
        rate, level = stated / 60, plan.size.numbers.get("level", 0.0)
        if level > rate:
            message += (
                f"; a steady {format_figure(rate)} requests/s reaches {format_figure(level)} over "
                f"{policy.forecast.fast:.0f} s"
            )
        message += f"; the load is {rate / capacity:.0%} of the capacity"
    return SizeReport(reason=plan.size.reason.code, message=message)


def _variant(variant: Variant, replicas: int) -> VariantReport:
    return VariantReport(
        class_name=variant.accelerator.metadata.name,
        count=variant.count,
        nodes=variant.nodes if variant.nodes > 1 else None,
        purchase=purchase(spot=variant.spot),
        tensor=variant.parallelism.tensor,
        pipeline=variant.parallelism.pipeline,
        replicas=replicas,
        per_hour=None if variant.price is None else (variant.price * replicas).quantize(FINE),
        requests_per_minute=round_figure(variant.capacity * 60),
        basis=variant.basis,
    )


def _rejected(choice: VariantList | Refusal | None) -> tuple[RejectedReport, ...]:
    if not isinstance(choice, VariantList):
        return ()
    return tuple(
        RejectedReport(option=item.label, reason=item.refusal.reason, message=item.refusal.message)
        for item in choice.rejected
    )


def _contest(facts: Facts, context: Context) -> Contest:
    size = facts.plan.size
    needed = size.capacity if size is not None and facts.load.requests_per_minute is not None else 0.0
    if not needed:
        needed = sum(variant.capacity * count for variant, count in facts.counted)
    allocation = facts.memory.allocation
    return Contest(
        deployment=facts.deployment,
        counted=facts.counted,
        needed=needed,
        gap=context.policy.placement.gap,
        nodes_known=context.inventory is not None,
        moving=allocation is not None and any(allocation.demand.current.values()),
    )


def _cost(facts: Facts) -> Cost | None:
    total = price_planned(facts.counted)
    if total is None or not facts.counted:
        return None
    rate = facts.rate
    tokens = facts.load.shape.input_tokens + facts.load.shape.output_tokens
    each = cost_per_million(total, rate * tokens) if rate else None
    return Cost(
        per_hour=total.quantize(FINE),
        per_day=per_day(total),
        per_million_tokens=None if each is None else each.quantize(FINE),
    )
