"""Every combination of conditions that the operator can produce, made by the functions that make them, with what each
means: told from what went in, not from the conditions."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from modelyard.api.llmdeployment import LLMDeployment
from modelyard.api.meta import API_VERSION, Refusal, wire
from modelyard.core.budget.judge import judge_budgets
from modelyard.core.budget.status import KnownNames, build_budget_status
from modelyard.core.plan import DeploymentPlan, Size
from modelyard.core.providers import build_provider_status
from modelyard.core.reasons import Code, Reason
from modelyard.core.routeplan.model import RoutePlan
from modelyard.core.routestatus import tell_plan
from modelyard.core.snapshot import ChildDeployment, Pod, Snapshot
from modelyard.core.spend import Spend
from modelyard.core.status import build_invalid_status, build_route_status, build_status
from modelyard.core.tenants import KeyReport, build_tenant_status
from tests.unit.core.budgetcases import NOW as BUDGET_NOW
from tests.unit.core.budgetcases import budget, line
from tests.unit.core.build import (
    KEY,
    NOW,
    make_deployment,
    make_placement,
    make_pod,
    make_provider,
    make_snapshot,
    make_targets_route,
    make_tenant,
    make_variant,
)

ROUTED = (True, Reason(Code.ROUTED, "requests come here"))
LOST = (False, Reason(Code.SERVED_NAME_CONFLICT, "the name belongs to b/llama"))

HEALTHY, PROGRESSING, DEGRADED, SUSPENDED = "Healthy", "Progressing", "Degraded", "Suspended"


@dataclass(frozen=True)
class Case:
    """An object, and what its health is."""

    name: str
    body: dict[str, Any]
    means: str
    """Argo CD's word."""
    gives_up: bool = False
    """Degraded only: whether the operator says that it does not go on (Stalled)."""


def as_body(kind: str, model: Any) -> dict[str, Any]:
    """Return an object as the API server holds it."""
    return {"apiVersion": API_VERSION, "kind": kind, **wire(model)}


SPECS: dict[str, dict[str, Any]] = {
    "fixed": {"replicas": 2},
    "off": {"replicas": 0},
    "scaled": {"scaling": {"min": 0, "max": 10}},
    "external": {"scaling": {"min": 1, "max": 10, "actuator": "External"}},
    "suspended": {"suspend": True, "scaling": {"min": 0, "max": 10}},
    "suspended-fixed": {"suspend": True, "replicas": 2},
}

STARTING: dict[str, dict[str, Any]] = {
    "pulling": {"waiting": "ImagePullBackOff", "phase": "Pending"},
    "crashing": {"waiting": "CrashLoopBackOff"},
    "no-gpu": {"waiting": "Unschedulable", "scheduled": False, "phase": "Pending"},
    "queued": {"waiting": "SchedulingGated", "scheduled": False, "phase": "Pending", "message": "gates"},
    "loading": {},
    "created": {"phase": "Pending"},
}
"""States of a pod that does not serve yet."""

PODS: dict[str, tuple[Pod, ...]] = {
    "none": (),
    "one": (make_pod("a"),),
    "two": (make_pod("a"), make_pod("b")),
    "three": (make_pod("a"), make_pod("b"), make_pod("c")),
    "two-and-a-leaving-one": (make_pod("a"), make_pod("b"), make_pod("c", terminating=True)),
    "a-leaving-one": (make_pod("c", terminating=True),),
    **{name: (make_pod("a", ready=False, **state),) for name, state in STARTING.items()},
    **{
        f"one-and-{name}": (make_pod("a"), make_pod("b", ready=False, **state))
        for name, state in STARTING.items()
    },
}


def plan_for(spec: dict[str, Any], wanted: int, refusal: str | None, *, known: bool) -> DeploymentPlan:
    """Return what is decided for a spec; a closed one has no replicas whatever is wanted."""
    if refusal is not None:
        return DeploymentPlan(KEY, refusal=Refusal(refusal, "create one"))
    if spec.get("suspend"):
        size, replicas = Size(0, Reason(Code.SUSPENDED, "suspended")), 0
    elif "replicas" in spec:
        size = Size(spec["replicas"], Reason(Code.FIXED, "replicas says so"))
        replicas = size.replicas
    else:
        code = Code.OFFERED_LOAD if known else Code.NO_DATA
        size, replicas = Size(wanted, Reason(code, "load"), known=known), wanted
    external = spec.get("scaling", {}).get("actuator") == "External" and not spec.get("suspend")
    return DeploymentPlan(KEY, make_placement(), size, None if external else replicas, None)


def deployment_meaning(
    spec: dict[str, Any], plan: DeploymentPlan, pods: tuple[Pod, ...], *, late: bool
) -> tuple[str, bool]:
    """Return what a deployment's health is, and whether the operator gives up."""
    queued = any(pod.waiting == "SchedulingGated" and not pod.terminating for pod in pods)
    if plan.refusal is not None or (late and not queued):
        return DEGRADED, True
    live = sum(not pod.terminating for pod in pods)
    wanted = live if plan.replicas is None else plan.replicas
    serving = sum(pod.ready and not pod.terminating for pod in pods)
    if serving != wanted or any(pod.terminating for pod in pods):
        return PROGRESSING, False
    if spec.get("suspend") or spec.get("replicas") == 0:
        return SUSPENDED, False
    # An outside autoscaler that has asked for no pod yet.
    nothing = plan.replicas is None and not pods
    return (PROGRESSING if nothing else HEALTHY), False


def deployment_body(
    spec: dict[str, Any],
    plan: DeploymentPlan,
    pods: tuple[Pod, ...],
    *,
    late: bool = False,
    name: tuple[bool, Reason] = ROUTED,
    scaler: tuple[bool, Reason] | None = None,
) -> dict[str, Any]:
    """Return an LLMDeployment with the status that the operator writes."""
    deployment: LLMDeployment = make_deployment(**spec)
    child = ChildDeployment(1, deadline_exceeded=late, message="took too long")
    snapshot = Snapshot(
        deployments={KEY: deployment}, pods={KEY: pods}, children={KEY: {make_variant().name: child}}
    )
    status = build_status(deployment, plan, snapshot, name, None, NOW, scaler)
    return as_body("LLMDeployment", deployment.model_copy(update={"status": status}))


def deployments() -> Iterator[Case]:
    """Yield LLMDeployments."""
    refusals = (None, Code.ACCELERATOR_NOT_FOUND, Code.DOES_NOT_FIT, Code.NAME_CONFLICT)
    names = (ROUTED, LOST)
    scalers = (None, (False, Reason(Code.KEDA_MISSING, "install KEDA")))
    several = itertools.product(SPECS.items(), PODS.items(), refusals, (False, True), names, scalers)
    for (kind, spec), (pods_name, pods), refusal, late, name, scaler in several:
        decided = refusal is None and "scaling" in spec and not spec.get("suspend")
        sizes = itertools.product((0, 1, 2), (False, True)) if decided else [(0, True)]
        for wanted, known in sizes:
            plan = plan_for(spec, wanted, refusal, known=known)
            means, gives_up = deployment_meaning(spec, plan, pods, late=late)
            body = deployment_body(spec, plan, pods, late=late, name=name, scaler=scaler)
            title = (
                f"{kind}, pods {pods_name}, wanted {wanted}, refusal {refusal}, late {late}, known {known}"
            )
            yield Case(title, body, means, gives_up)


def routes() -> Iterator[Case]:
    """Yield LLMRoutes."""
    deployment = make_deployment()
    own, missing = {"deployment": "llama"}, {"deployment": "gone"}
    api = {"provider": "acme", "model": "large"}
    specs: dict[str, tuple[list[dict[str, Any]], dict[str, Any], bool]] = {
        "own": ([own], {}, True),
        "missing": ([own, missing], {}, False),
        "provider": ([own, api], {}, True),
        "provider-without-secret": ([own, api], {}, False),
        "sovereign": ([own], {"dataPolicy": "Sovereign"}, True),
        "sovereign-with-provider": ([own, api], {"dataPolicy": "Sovereign"}, False),
        "low-quality": ([own], {"minQuality": "0.9"}, False),
        "one-of-low-quality": ([{**own, "quality": "0.95"}, api], {"minQuality": "0.9"}, True),
        "cheapest-without-price": ([own, api], {"policy": "LowestCost"}, True),
    }
    lates = (None, Code.ROUTES_REJECTED, Code.ROUTES_NOT_CONFIRMED)
    spills = (None, Reason(Code.SATURATED, "no room"))
    for (title, (targets, spec, good)), name, late, spill in itertools.product(
        specs.items(), (ROUTED, LOST), lates, spills
    ):
        route = make_targets_route("team/chat", "chat", *targets, **spec)
        refused = Refusal(Code.SECRET_NOT_FOUND, "create it") if title == "provider-without-secret" else None
        provider = make_provider(refusal=refused)
        snapshot = make_snapshot(deployment, routes=(route,))
        snapshot = Snapshot(
            deployments=snapshot.deployments, routes=snapshot.routes, providers={"acme": provider}
        )
        reason = Reason(late, "an Envoy") if late is not None else None
        status = build_route_status(route, snapshot, name, NOW, reason)
        plan = RoutePlan((), may_spill=True, spill=spill, spilled=0.5 if spill else 0.0)
        status = tell_plan(status, route, plan, NOW, settled=True)
        means = HEALTHY if good and name == ROUTED and late is None else DEGRADED
        if name == ROUTED and late == Code.ROUTES_NOT_CONFIRMED:
            means = PROGRESSING
        full = route.model_copy(update={"status": status})
        yield Case(f"{title}, {name[1].code}, {late}, {spill}", as_body("LLMRoute", full), means)
        # The same route, changed to something that cannot be read; what held before holds on, or nothing does.
        for served in (status, None):
            generation = route.metadata.generation + 1
            broken = build_invalid_status(route.key, "no targets", served, status.conditions, generation, NOW)
            later = route.metadata.model_copy(update={"generation": generation})
            body = as_body("LLMRoute", route.model_copy(update={"status": broken, "metadata": later}))
            yield Case(f"{title}, unreadable, served {served is not None}", body, DEGRADED, gives_up=True)


def providers() -> Iterator[Case]:
    """Yield LLMProviders."""
    for code in (None, Code.SECRET_NOT_FOUND, Code.SECRET_INVALID, Code.SECRET_FORBIDDEN):
        provider = make_provider().object
        refusal = None if code is None else Refusal(code, "mend the Secret")
        full = provider.model_copy(update={"status": build_provider_status(provider, refusal, NOW)})
        yield Case(str(code), as_body("LLMProvider", full), HEALTHY if code is None else DEGRADED)


def tenants() -> Iterator[Case]:
    """Yield LLMTenants."""
    codes = (Code.SECRET_NOT_FOUND, Code.SECRET_INVALID, Code.SECRET_FORBIDDEN, Code.KEY_CONFLICT)
    refusals = ((), *((Refusal(code, "mend it"),) for code in codes))
    for refused, missing in itertools.product(refusals, ((), ("team/gone",))):
        tenant = make_tenant()
        report = KeyReport(1 - len(refused), refused)
        full = tenant.model_copy(update={"status": build_tenant_status(tenant, report, NOW, missing)})
        yield Case(f"{refused}, {missing}", as_body("LLMTenant", full), DEGRADED if refused else HEALTHY)


def budgets() -> Iterator[Case]:
    """Yield LLMBudgets."""
    spends = {
        "unread": None,
        "nothing": Spend(BUDGET_NOW, ()),
        "soft": Spend(BUDGET_NOW, (line(80.0, target="provider:acme/large"),)),
        "all": Spend(BUDGET_NOW, (line(150.0, target="provider:acme/large"),)),
        "stale": Spend(BUDGET_NOW - 3600.0, (line(150.0, target="provider:acme/large"),)),
    }
    scopes: dict[str, dict[str, Any]] = {
        "all": {},
        "route": {"scope": {"routes": ["team/chat"]}},
        "zone": {"timeZone": "Nowhere/Nothing"},
    }
    softs: tuple[dict[str, Any], ...] = ({}, {"soft": {"at": "0.75", "action": "PreferCheaper"}})
    known = (KnownNames(routes=("team/chat",)), KnownNames(unpriced=("team/llama",)))
    for (title, spend), (scope, fields), soft, names in itertools.product(
        spends.items(), scopes.items(), softs, known
    ):
        one = budget(**fields, **soft)
        (standing,) = judge_budgets((one,), spend, BUDGET_NOW)
        full = one.model_copy(update={"status": build_budget_status(standing, names, BUDGET_NOW)})
        bad = scope == "zone" or (scope == "route" and not names.routes) or title == "stale"
        means = DEGRADED if bad else PROGRESSING if title == "unread" else HEALTHY
        yield Case(f"{title}, {scope}, {soft}, {names}", as_body("LLMBudget", full), means)


def every() -> Iterator[Case]:
    """Yield a case of each kind and combination."""
    for part in (deployments(), routes(), providers(), tenants(), budgets()):
        yield from part
