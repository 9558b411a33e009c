"""Why a route's requests go where they go: a code, a sentence, and the figures."""

from modelyard.core.breakeven.crossings import Crossing, find_crossings
from modelyard.core.breakeven.inputs import RouteInput, Target
from modelyard.core.breakeven.joint import SECONDS_PER_HOUR, Group
from modelyard.core.breakeven.memory import RouteChoice, TargetCost, TargetShare
from modelyard.core.breakeven.settle import Settled
from modelyard.core.reasons import Code, Reason

TOLD = 3
"""Crossings that a sentence tells; all are in the figures."""


def explain(
    group: Group, route: RouteInput, settled: Settled, shares: tuple[TargetShare, ...]
) -> RouteChoice:
    """Return the choice for one route with its reason."""
    costs = _weigh(group, route, settled)
    target = settled.assignment.get(route.name)
    if target is None:
        why = "; ".join(cost.refusal.message for cost in costs if cost.refusal) or "it has none: add one"
        reason = Reason(Code.NO_TARGET, f"no target of {route.name} may be used: {why}")
        return RouteChoice(route.name, None, (), reason, costs, known=route.load is not None)
    choosing = len(group.allowed[route.name].targets) > 1
    crossings = find_crossings(group, route, settled.assignment) if choosing else ()
    return RouteChoice(
        route=route.name,
        target=target,
        shares=shares,
        reason=_reason(group, route, settled, shares, costs, crossings),
        costs=costs,
        crossings=crossings,
        numbers=_numbers(group, route, settled),
        known=route.load is not None,
    )


def _weigh(group: Group, route: RouteInput, settled: Settled) -> tuple[TargetCost, ...]:
    """Return what each target would cost the route, beyond what its group costs without it."""
    allowed, rate = group.allowed[route.name], group.loads[route.name].ahead
    others = {name: target for name, target in settled.assignment.items() if name != route.name}
    without = group.bill(others)
    costs: list[TargetCost] = []
    for own in allowed.own:
        target = Target("Deployment", own.deployment)
        bill = group.bill({**others, route.name: target})
        costs.append(TargetCost(target, bill.cost - without.cost, bill.replicas[own.deployment]))
    costs += [
        TargetCost(Target("Provider", name), each * rate * SECONDS_PER_HOUR, per_request=each)
        for name, each in allowed.priced
    ]
    costs += [TargetCost(target, None, refusal=reason) for target, reason in allowed.refused]
    return tuple(costs)


def _reason(
    group: Group,
    route: RouteInput,
    settled: Settled,
    shares: tuple[TargetShare, ...],
    costs: tuple[TargetCost, ...],
    crossings: tuple[Crossing, ...],
) -> Reason:
    target = settled.assignment[route.name]
    if route.load is None:
        message = (
            f"stays at {target.name}: the gateway's counters are not known, and nothing follows missing data"
        )
        return Reason(Code.NO_DATA, message)
    figures = _figures(group, route, costs, crossings)
    if target.own and any(not share.target.own for share in shares):
        part = sum(share.part for share in shares if not share.target.own)
        spilled = next(share.target.name for share in shares if not share.target.own)
        message = f"goes to {target.name} as far as its replicas serve; {part:.0%} go to {spilled} meanwhile; {figures}"
        return Reason(Code.STARTING, message)
    if len(group.allowed[route.name].targets) == 1:
        return Reason(Code.ONLY_TARGET, f"goes to {target.name}, the only target it may use; {figures}")
    if target.own and not group.deployments[target.name].serving:
        return Reason(Code.STARTING, f"waits for {target.name}, whose replicas start; {figures}")
    weighed = {cost.target: cost.hourly for cost in costs if cost.hourly is not None}
    cheapest = min(weighed, key=lambda item: weighed[item])
    if weighed[cheapest] < weighed[target] * (1 - 1e-9):
        excess = settled.excess
        message = (
            f"stays at {target.name}, though {cheapest.name} costs less, until it has cost "
            f"{excess.threshold:.4f} $ too much ({excess.total:.4f} $ so far); {figures}"
        )
        return Reason(Code.STABILIZING, message)
    code = Code.FLEET_CHEAPER if target.own else Code.PROVIDER_CHEAPER
    return Reason(code, f"goes to {target.name}; {figures}")


def _figures(
    group: Group, route: RouteInput, costs: tuple[TargetCost, ...], crossings: tuple[Crossing, ...]
) -> str:
    load, mix = group.loads[route.name], route.mix
    size = f"{mix.input_tokens:.0f} + {mix.output_tokens:.0f} tokens, {mix.cached_share:.0%} of the prompt cached"
    parts = [
        f"{load.ahead * 60:.4g} requests/min of {size}",
        ", ".join(_tell(group, cost) for cost in costs if cost.hourly is not None),
    ]
    if crossings:
        told = ", ".join(
            f"{item.after.name} from {item.requests_per_minute:.4g} requests/min" for item in crossings[:TOLD]
        )
        more = f" and {len(crossings) - TOLD} more" if len(crossings) > TOLD else ""
        parts.append(f"cheapest: {crossings[0].before.name}, {told}{more}")
    return "; ".join(parts)


def _tell(group: Group, cost: TargetCost) -> str:
    name = cost.target.name
    if not cost.target.own:
        return f"{cost.hourly:.4g} $/h at {name}"
    deployment = group.deployments[name]
    basis = ""
    if deployment.avoidable == 0 and deployment.billing == "Committed":
        basis = ", committed and wanted by nobody else"
    elif deployment.price is None:
        basis = ", price not known, that of the dearest other accelerator taken"
    plural = "" if cost.replicas == 1 else "s"
    return f"{cost.hourly:.4g} $/h more on {name} ({cost.replicas} replica{plural}{basis})"


def _numbers(group: Group, route: RouteInput, settled: Settled) -> dict[str, float]:
    load, mix = group.loads[route.name], route.mix
    return {
        "requestsPerSecond": load.now,
        "requestsPerSecondAhead": load.ahead,
        "deviation": load.deviation,
        "inputTokens": mix.input_tokens,
        "cachedInputTokens": mix.input_tokens * mix.cached_share,
        "outputTokens": mix.output_tokens,
        "excess": settled.excess.total,
        "threshold": settled.excess.threshold,
    }
