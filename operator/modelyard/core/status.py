"""What the user reads: conditions with reasons, sizes and cost, built from the plan and the pods."""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from modelyard.api.llmdeployment import (
    GatewayStatus,
    LLMDeployment,
    LLMDeploymentStatus,
    PlacementStatus,
    ScalingEvent,
    ScalingStatus,
    VariantStatus,
)
from modelyard.api.llmroute import LLMRoute, LLMRouteStatus
from modelyard.api.meta import COMPONENT_ENGINE, COMPONENT_LABEL, LABEL_DEPLOYMENT, Condition, child_name
from modelyard.core.coststatus import build_cost_status
from modelyard.core.plan import DeploymentPlan, Placement
from modelyard.core.reasons import Code, Reason
from modelyard.core.snapshot import ChildDeployment, Pod, Snapshot
from modelyard.core.sovereign import judge_sources, sovereign_names
from modelyard.core.targets import explain_closed, explain_invalid, judge_route
from modelyard.core.waiting import explain_wait

READY, PROGRESSING, STALLED = "Ready", "Progressing", "Stalled"
RECONCILING = "Reconciling"
"""What kstatus calls progress. It is there only while it is true, as kstatus wants it
(https://github.com/kubernetes-sigs/cli-utils/blob/master/pkg/kstatus/README.md)."""
METRICS_AVAILABLE, NAME_ACCEPTED = "MetricsAvailable", "NameAccepted"
PLACEMENT_PREFERRED = "PlacementPreferred"
EXTERNAL_SCALER_READY = "ExternalScalerReady"
SOURCES_INSIDE = "SourcesInside"

HISTORY_LIMIT = 20
"""Changes of size kept in status."""

_ROUTE_PROBLEMS = (
    Code.INVALID,
    Code.DATA_POLICY_VIOLATED,
    Code.TARGET_NOT_FOUND,
    Code.PROVIDER_NOT_READY,
    Code.QUALITY_TOO_LOW,
    Code.PRICE_UNKNOWN,
)
"""Why a route is not Ready although its name is its own, the most serious first."""

_PASSING_REFUSALS = frozenset({Code.LEADER_WORKER_SET_PENDING})
"""Why nothing can run for now, without anybody having to act."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One condition, before it is stamped with time and generation."""

    type: str
    status: bool
    reason: Reason


def build_status(
    deployment: LLMDeployment,
    plan: DeploymentPlan,
    snapshot: Snapshot,
    name: tuple[bool, Reason],
    cost_per_million: Decimal | None,
    now: float,
    scaler: tuple[bool, Reason] | None = None,
    more: Iterable[Verdict] = (),
) -> LLMDeploymentStatus:
    """Return the status that the deployment should have.

    What does not change keeps its times, so that a status equal to the present one needs no write.
    `cost_per_million` is None where no tokens were counted lately; the last figure then stands. `scaler` is None where
    no outside autoscaler is involved. `more` are conditions that are judged elsewhere.
    """
    previous = deployment.status
    pods = snapshot.pods.get(deployment.key, ())
    children = tuple(snapshot.children.get(deployment.key, {}).values())
    # A queue has no deadline: whoever waits in one does not fail to start.
    queued = any(pod.gated for pod in pods)
    child = next((item for item in children if item.late(now) and not queued), None)
    progress = explain_progress(plan, pods, child)
    verdicts = [
        explain_ready(deployment, plan, pods),
        progress,
        explain_stall(plan, child),
        Verdict(NAME_ACCEPTED, name[0], name[1]),
    ]
    if progress.status:
        verdicts.append(Verdict(RECONCILING, True, progress.reason))
    if deployment.spec.scaling is not None and plan.size is not None:
        verdicts.append(_explain_metrics(plan))
    if plan.placement is not None:
        verdicts.append(explain_placement(plan.placement))
    if scaler is not None:
        verdicts.append(Verdict(EXTERNAL_SCALER_READY, *scaler))
    verdicts.extend(more)
    return LLMDeploymentStatus(
        observed_generation=deployment.metadata.generation,
        conditions=stamp(verdicts, previous.conditions, deployment.metadata.generation, now),
        replicas=sum(not pod.terminating for pod in pods),
        ready_replicas=_open_pods(plan, pods),
        selector=_selector(deployment),
        model=deployment.served_name,
        placement=_placement_status(deployment, plan, pods),
        cost=build_cost_status(previous, plan, pods, cost_per_million),
        gateway=GatewayStatus(generation=plan.generation),
        scaling=_scaling_status(previous, plan, now),
    )


def explain_ready(deployment: LLMDeployment, plan: DeploymentPlan, pods: tuple[Pod, ...]) -> Verdict:
    """Return whether requests are answered: now, or after a wait that the gateway bounds."""
    serving = _open_pods(plan, pods)
    if serving:
        return Verdict(
            READY, True, Reason(Code.SERVING, f"{serving} of {_wanted(plan, pods)} replicas serve")
        )
    if plan.refusal is not None:
        return Verdict(READY, False, Reason(plan.refusal.reason, plan.refusal.message))
    if (closed := explain_closed(deployment)) is not None:
        return Verdict(READY, False, closed)
    if plan.replicas == 0:
        return Verdict(READY, True, Reason(Code.SCALED_TO_ZERO, "sleeps: a request wakes it"))
    return Verdict(READY, False, explain_wait(plan, pods))


def explain_progress(plan: DeploymentPlan, pods: tuple[Pod, ...], child: ChildDeployment | None) -> Verdict:
    """Return whether the pods are on their way to what is wanted. `child`: one whose pods are late, if any."""
    if plan.refusal is not None:
        passes = plan.refusal.reason in _PASSING_REFUSALS
        return Verdict(PROGRESSING, passes, Reason(plan.refusal.reason, plan.refusal.message))
    if child is not None:
        return Verdict(PROGRESSING, False, Reason(Code.START_TIMEOUT, child.message))
    serving = sum(pod.serving for pod in pods)
    wanted = _wanted(plan, pods)
    if serving < wanted:
        return Verdict(PROGRESSING, True, explain_wait(plan, pods))
    if any(pod.terminating for pod in pods) or serving > wanted:
        return Verdict(PROGRESSING, True, Reason(Code.SCALING, "replicas finish their requests and leave"))
    return Verdict(PROGRESSING, False, Reason(Code.NOT_PROGRESSING, "nothing to do"))


def explain_stall(plan: DeploymentPlan, child: ChildDeployment | None) -> Verdict:
    """Return whether a person must act. `child`: one whose pods are late, if any."""
    if plan.refusal is not None and plan.refusal.reason not in _PASSING_REFUSALS:
        return Verdict(STALLED, True, Reason(plan.refusal.reason, plan.refusal.message))
    if child is not None:
        return Verdict(STALLED, True, Reason(Code.START_TIMEOUT, child.message))
    return Verdict(STALLED, False, Reason(Code.NOT_STALLED, "no action is needed"))


def build_route_status(
    route: LLMRoute,
    snapshot: Snapshot,
    name: tuple[bool, Reason],
    now: float,
    late: Reason | None = None,
    closed_names: Collection[tuple[str, str]] | None = None,
) -> LLMRouteStatus:
    """Return the status that the route should have. `late`: why some Envoy does not serve it as it should be.

    `closed_names`: the `sovereign_names` of the snapshot; None: they are to be found.
    """
    if closed_names is None:
        closed_names = sovereign_names(snapshot.routes.values())
    sovereign = (route.metadata.namespace, route.spec.model) in closed_names
    judged = judge_route(route, snapshot, sovereign=sovereign)
    closed = [item.closed for item in judged.every if item.closed is not None]
    # The first of these that some target has; all targets that have it are named.
    code = next((code for code in _ROUTE_PROBLEMS if any(reason.code == code for reason in closed)), None)
    parts = (judged.targets, *judged.rules)
    left = all(any(item.target is not None for item in part) for part in parts)
    if code in (Code.QUALITY_TOO_LOW, Code.PRICE_UNKNOWN) and left:
        # To leave out some is what minQuality is for, and prices have a condition of their own.
        code = None
    if not name[0]:
        ready = Verdict(READY, False, name[1])
    elif late is not None:
        ready = Verdict(READY, False, late)
    elif code is not None:
        # A rule may have the same target.
        messages = dict.fromkeys(reason.message for reason in closed if reason.code == code)
        sentences = "; ".join(messages)
        ready = Verdict(READY, False, Reason(code, sentences))
    else:
        ready = Verdict(READY, True, name[1])
    generation = route.metadata.generation
    verdicts = [ready]
    if sovereign:
        verdicts.append(Verdict(SOURCES_INSIDE, *judge_sources(route, snapshot)))
    conditions = stamp(verdicts, route.status.conditions, generation, now)
    return LLMRouteStatus(observed_generation=generation, conditions=conditions)


def build_invalid_status(
    key: str,
    error: str,
    served: LLMRouteStatus | None,
    conditions: tuple[Condition, ...],
    generation: int,
    now: float,
) -> LLMRouteStatus:
    """Return the status of a route that cannot be read. `conditions` stand already.

    `served`: the status of what holds meanwhile, the last form that could be read or its name alone; None if nothing
    does.
    """
    reason = Reason(Code.INVALID, explain_invalid(key, error))
    stalled = Verdict(STALLED, True, reason)
    if served is None:
        verdicts = [Verdict(READY, False, reason), stalled]
        stamped = stamp(verdicts, conditions, generation, now)
        return LLMRouteStatus(observed_generation=generation, conditions=stamped)
    added = stamp([stalled], conditions, generation, now)
    # Looked at it was, although what holds is older: with the older number it would seem to be on its way for ever.
    return served.model_copy(
        update={"observed_generation": generation, "conditions": (*served.conditions, *added)}
    )


def stamp(
    verdicts: Iterable[Verdict], previous: Iterable[Condition], generation: int, now: float
) -> tuple[Condition, ...]:
    """Return the verdicts as conditions; one whose status stays the same keeps its transition time."""
    before = {condition.type: condition for condition in previous}
    stamped = []
    for verdict in verdicts:
        status = "True" if verdict.status else "False"
        old = before.get(verdict.type)
        since = old.last_transition_time if old is not None and old.status == status else format_time(now)
        stamped.append(
            Condition(
                type=verdict.type,
                status="True" if verdict.status else "False",
                reason=verdict.reason.code,
                message=verdict.reason.message[:1024],
                observed_generation=generation,
                last_transition_time=since,
            )
        )
    return tuple(stamped)


def format_time(now: float) -> str:
    """Return Unix seconds as Kubernetes writes times."""
    return datetime.fromtimestamp(int(now), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _selector(deployment: LLMDeployment) -> str:
    """Return the label selector of the pods that are replicas: of groups, their leaders."""
    own = f"{LABEL_DEPLOYMENT}={deployment.metadata.name}"
    return f"{own},{COMPONENT_LABEL}={COMPONENT_ENGINE}" if deployment.spec.spans_nodes else own


def _open_pods(plan: DeploymentPlan, pods: tuple[Pod, ...]) -> int:
    """Return how many pods get requests: none once it is put to sleep, although its pods serve until they go.

    An operator that starts again reads from this whether the generation was already raised.
    """
    return 0 if plan.replicas == 0 else sum(pod.serving for pod in pods)


def _wanted(plan: DeploymentPlan, pods: tuple[Pod, ...]) -> int:
    if plan.replicas is not None:
        return plan.replicas
    return sum(not pod.terminating for pod in pods)


def _explain_metrics(plan: DeploymentPlan) -> Verdict:
    if plan.size is not None and not plan.size.known:
        return Verdict(METRICS_AVAILABLE, False, plan.size.reason)
    return Verdict(METRICS_AVAILABLE, True, Reason(Code.DEMAND_READ, "the gateway's counters are read"))


def explain_placement(placement: Placement) -> Verdict:
    """Return whether it runs where it should for its price and objective."""
    if placement.preferred is not None:
        return Verdict(PLACEMENT_PREFERRED, False, placement.preferred)
    return Verdict(
        PLACEMENT_PREFERRED, True, Reason(Code.PREFERRED, "it runs where its price and objective want it")
    )


def _placement_status(
    deployment: LLMDeployment, plan: DeploymentPlan, pods: tuple[Pod, ...]
) -> PlacementStatus | None:
    previous, placement = deployment.status.placement, plan.placement
    if placement is None:
        return previous
    main = placement.main
    name = main.accelerator.metadata.name
    message = placement.message[:1024]
    same_spec = deployment.status.observed_generation == deployment.metadata.generation
    nodes = main.nodes if main.nodes > 1 else None
    if same_spec and previous is not None and _main_of(previous) == (name, main.per_node, nodes, main.spot):
        # The sentence holds the figures of the moment of the choice: it is only rewritten with a new one.
        message = previous.message or message
    variants = tuple(
        VariantStatus(
            class_name=item.variant.accelerator.metadata.name,
            count=item.variant.per_node,
            nodes=item.variant.nodes if item.variant.nodes > 1 else None,
            purchase="Spot" if item.variant.spot else "OnDemand",
            replicas=sum(pod.live and pod.variant == item.variant.name for pod in pods),
            ready_replicas=sum(pod.serving and pod.variant == item.variant.name for pod in pods),
            deployment=child_name(deployment.metadata.name, item.variant.name),
        )
        for item in placement.variants
    )
    return PlacementStatus(
        class_name=name, count=main.per_node, nodes=nodes, message=message, variants=variants
    )


def _main_of(previous: PlacementStatus) -> tuple[str, int, int | None, bool]:
    """Return class, count, nodes and whether it is spot; the main variant is listed first."""
    spot = bool(previous.variants) and previous.variants[0].purchase == "Spot"
    return previous.class_name, previous.count, previous.nodes, spot


def _scaling_status(previous: LLMDeploymentStatus, plan: DeploymentPlan, now: float) -> ScalingStatus | None:
    if plan.size is None:
        return previous.scaling
    before = previous.scaling
    reason = plan.size.reason
    message = reason.message[:1024]
    numbers = format_numbers(plan.size.numbers)
    if before is not None and before.desired_replicas == plan.size.replicas:
        # The sentence and the numbers hold the load of the moment: they are only rewritten when the reason changes.
        if before.reason == reason.code:
            return before
        return before.model_copy(update={"reason": reason.code, "message": message, "numbers": numbers})
    history: tuple[ScalingEvent, ...] = ()
    if before is not None:
        event = ScalingEvent(
            time=format_time(now),
            from_replicas=before.desired_replicas,
            to_replicas=plan.size.replicas,
            reason=reason.code,
            message=message,
        )
        history = (*before.history, event)[-HISTORY_LIMIT:]
    return ScalingStatus(
        desired_replicas=plan.size.replicas,
        reason=reason.code,
        message=message,
        numbers=numbers,
        history=history,
    )


NUMBERS_LIMIT = 16
"""Numbers kept in status with a size: the bound of the schema."""


def format_numbers(numbers: Mapping[str, float]) -> dict[str, str] | None:
    """Return numbers as decimal strings of four places at most; None without any."""
    finite = {name: value for name, value in sorted(numbers.items()) if math.isfinite(value)}
    texts = {name[:64]: f"{value:.4f}".rstrip("0").rstrip(".") for name, value in finite.items()}
    return dict(list(texts.items())[:NUMBERS_LIMIT]) or None
