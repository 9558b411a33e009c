"""What a few parts of the operator add to an object: refusals and conditions that do not go with everything else.

`combinations.py` has those that do.
"""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Final, get_args

from modelyard.core.answering import AnswerMemory, Attempts, Silence
from modelyard.core.breakeven.memory import RouteChoice
from modelyard.core.budget.judge import judge_budgets
from modelyard.core.budget.status import KnownNames, build_budget_status
from modelyard.core.external import Scaler, ScalerSupport, explain_scaler
from modelyard.core.groups import GROUPS_READY, GroupSupport, explain_groups, refuse_groups
from modelyard.core.inventory import Pool
from modelyard.core.picking import PICKER_ANSWERS, POOL_READY, PoolState, explain_picker, explain_pool
from modelyard.core.plan import DeploymentPlan, Size
from modelyard.core.providers import LIMIT_REACHED, build_provider_status
from modelyard.core.reasons import Code, Reason
from modelyard.core.routeplan.model import RoutePlan
from modelyard.core.routestatus import tell_plan
from modelyard.core.routing import external_key
from modelyard.core.snapshot import Snapshot
from modelyard.core.spend import Spend
from modelyard.core.status import Verdict, build_route_status, build_status, stamp
from tests.gitops.combinations import (
    DEGRADED,
    HEALTHY,
    KEY,
    PODS,
    PROGRESSING,
    ROUTED,
    Case,
    as_body,
    deployment_body,
    plan_for,
)
from tests.unit.core.build import (
    NOW,
    make_accelerator,
    make_deployment,
    make_placement,
    make_pod,
    make_provider,
    make_targets_route,
    make_variant,
)
from tests.unit.core.test_budgets import NOW as BUDGET_NOW
from tests.unit.core.test_budgets import budget, line

FIXED = {"replicas": 2}
REACHED = {
    True: Reason(Code.LIMIT_REACHED, "used up"),
    False: Reason(Code.LIMIT_NOT_REACHED, "within limits"),
}
SUPPORTS = (
    None,
    GroupSupport(),
    GroupSupport(served=False),
    GroupSupport(missing_rights=("create",)),
)
REFUSALS = (
    Code.INVALID_PARAMETER,
    Code.OBJECTIVE_MISSED,
    Code.PLACEMENT_CONFLICT,
    Code.UNSUPPORTED_SOURCE,
)
SCALERS = (
    explain_scaler("ScaledObject", None, None),
    explain_scaler("ScaledObject", ScalerSupport(), None, taken=True),
    explain_scaler("ScaledObject", ScalerSupport(missing_rights=("get",)), None),
    explain_scaler("HorizontalPodAutoscaler", ScalerSupport(adapter="Missing"), None),
    explain_scaler("HorizontalPodAutoscaler", ScalerSupport(adapter="Failing"), None),
    explain_scaler("HorizontalPodAutoscaler", ScalerSupport(), Scaler("1", "1", "llama", "1", active=False)),
    explain_scaler("HorizontalPodAutoscaler", ScalerSupport(), Scaler("1", "1", "llama", "1", active=True)),
)


def refused() -> Iterator[Case]:
    """Yield LLMDeployments that cannot run as they are."""
    for code, pods in itertools.product(REFUSALS, ("none", "two")):
        plan = plan_for(FIXED, 0, code, known=True)
        yield Case(f"refusal {code}, pods {pods}", deployment_body(FIXED, plan, PODS[pods]), DEGRADED, True)
    for support, pods in itertools.product(SUPPORTS, ("none", "two")):
        refusal = refuse_groups(support, "team")
        if refusal is None:
            continue
        plan = DeploymentPlan(KEY, refusal=refusal)
        # Nobody can do anything about a question that is not answered yet.
        waits = support is None
        body = deployment_body(FIXED, plan, PODS[pods])
        means = PROGRESSING if waits else DEGRADED
        yield Case(f"groups {support}, pods {pods}", body, means, gives_up=not waits)


def told_beside() -> Iterator[Case]:
    """Yield LLMDeployments that serve, with what is told of them beside that."""
    size = Size(2, Reason(Code.FIXED, "replicas says so"))
    deployment = make_deployment(**FIXED, endpointPicker={"service": "epp"})
    verdicts = [Verdict(GROUPS_READY, *explain_groups(support, "team")) for support in SUPPORTS]
    verdicts += [Verdict(POOL_READY, *explain_pool(deployment, state)) for state in get_args(PoolState)]
    for silent, sovereign in itertools.product((frozenset[str](), frozenset({KEY})), (False, True)):
        verdicts.append(Verdict(PICKER_ANSWERS, *explain_picker(deployment, silent, sovereign=sovereign)))
    snapshot = Snapshot(deployments={KEY: deployment}, pods={KEY: PODS["two"]})
    for verdict in verdicts:
        plan = DeploymentPlan(KEY, make_placement(), size, 2)
        status = build_status(deployment, plan, snapshot, ROUTED, None, NOW, None, (verdict,))
        body = as_body("LLMDeployment", deployment.model_copy(update={"status": status}))
        yield Case(f"{verdict.type} {verdict.reason.code}", body, HEALTHY)
    for code in (Code.CAPACITY_MISSING, Code.OBJECTIVE_MISSED):
        placement = replace(make_placement(), preferred=Reason(code, "not where it should be"))
        plan = DeploymentPlan(KEY, placement, size, 2)
        yield Case(f"placement {code}", deployment_body(FIXED, plan, PODS["two"]), HEALTHY)
    plan = DeploymentPlan(KEY, make_placement(), size, 2)
    for scaler in SCALERS:
        body = deployment_body(FIXED, plan, PODS["two"], scaler=scaler)
        yield Case(f"scaler {scaler[1].code}", body, HEALTHY)
    by_route = (True, Reason(Code.ROUTED_BY_ROUTE, "LLMRoute team/chat decides"))
    yield Case("named by a route", deployment_body(FIXED, plan, PODS["two"], name=by_route), HEALTHY)


def without_accelerators() -> Iterator[Case]:
    """Yield an LLMDeployment on CPUs that no node has room for."""
    cpu = make_variant(make_accelerator("cpu", resourceName=None), pool=Pool(None))
    size = Size(2, Reason(Code.FIXED, "replicas says so"))
    pod = make_pod("a", ready=False, waiting="Unschedulable", scheduled=False, phase="Pending")
    body = deployment_body(FIXED, DeploymentPlan(KEY, make_placement(cpu), size, 2), (pod,))
    yield Case("no room for CPUs", body, PROGRESSING)


def providers() -> Iterator[Case]:
    """Yield LLMProviders with what is known of answers and limits."""
    codes = (None, Code.PROVIDER_FAILING, Code.PROVIDER_LIMITED, Code.KEY_REFUSED)
    for code, reached, plain in itertools.product(codes, (False, True), (False, True)):
        limits = {"requestsPerMinute": 60}
        secret = {"name": "keys", "key": "key"}
        provider = make_provider(limits=limits, secretRef=secret).object
        silence = None if code is None else Silence(Reason(code, "no answer"), NOW, 1.0, NOW, Attempts())
        key = external_key(provider.name, provider.spec.models[0].name)
        answers = {key: AnswerMemory(moved=NOW, silence=silence)}
        before = provider.status.model_copy(
            update={"conditions": stamp([Verdict(LIMIT_REACHED, reached, REACHED[reached])], (), 1, NOW)}
        )
        provider = provider.model_copy(update={"status": before})
        status = build_provider_status(provider, None, NOW, answers, plain=plain)
        body = as_body("LLMProvider", provider.model_copy(update={"status": status}))
        # Requests go elsewhere while it does not answer: the object itself is as it should be.
        yield Case(f"{code}, {reached}, {plain}", body, DEGRADED if plain else HEALTHY)


def routes() -> Iterator[Case]:
    """Yield a sovereign route that sends nothing outside, and one that knows all its prices."""
    inside = make_deployment(model={"source": "pvc://models/llama"})
    own = {"deployment": "llama"}
    api = {"provider": "acme", "model": "large"}
    priced = {"name": "large", "price": {"inputPerMillion": "1", "outputPerMillion": "2"}}
    for title, spec, targets in (
        ("inside", {"dataPolicy": "Sovereign"}, (own,)),
        ("prices", {"policy": "LowestCost"}, (own, api)),
    ):
        route = make_targets_route("team/chat", "chat", *targets, **spec)
        snapshot = Snapshot(
            deployments={inside.key: inside},
            routes={route.key: route},
            providers={"acme": make_provider("acme", priced)},
        )
        status = build_route_status(route, snapshot, ROUTED, NOW)
        choice = RouteChoice(route.key, None, (), Reason(Code.ONLY_TARGET, "there is one"))
        plan = RoutePlan((), may_spill=True, choice=choice if title == "prices" else None)
        status = tell_plan(status, route, plan, NOW, settled=True)
        yield Case(title, as_body("LLMRoute", route.model_copy(update={"status": status})), HEALTHY)


def budgets() -> Iterator[Case]:
    """Yield a budget for one tenant, of whose routes others spent money that cannot be told apart."""
    one = budget(scope={"tenants": ["blue"]})
    spend = Spend(BUDGET_NOW, (line(150.0, tenant="_other", target="provider:acme/large"),))
    (standing,) = judge_budgets((one,), spend, BUDGET_NOW)
    full = one.model_copy(update={"status": build_budget_status(standing, KnownNames(), BUDGET_NOW)})
    yield Case("tenants that are not counted", as_body("LLMBudget", full), DEGRADED)


def asides() -> Iterator[Case]:
    """Yield all of them."""
    parts: tuple[Iterator[Case], ...] = (
        refused(),
        told_beside(),
        without_accelerators(),
        providers(),
        routes(),
        budgets(),
    )
    yield from itertools.chain.from_iterable(parts)


NO_CONDITION: Final = {
    **dict.fromkeys(
        (
            *(Code.INITIAL, Code.AT_MINIMUM, Code.AT_MAXIMUM, Code.OFFERED_LOAD, Code.SCHEDULED, Code.FIXED),
            *(Code.STABILIZING, Code.WOKEN, Code.IDLE, Code.BUDGET_LIMITED),
        ),
        "why a size is what it is, in status.scaling",
    ),
    **dict.fromkeys(
        (
            *(Code.FLEET_CHEAPER, Code.PROVIDER_CHEAPER, Code.ONLY_TARGET, Code.NO_TARGET),
            *(Code.SOVEREIGN, Code.NOT_RUNNABLE),
        ),
        "why a target is chosen, in the status of a route",
    ),
    **dict.fromkeys(
        (
            *(Code.CERTIFICATE_EXPIRED, Code.CERTIFICATE_NOT_YET_VALID),
            *(Code.GATEWAY_API_MISSING, Code.GATEWAY_ROUTE_FORBIDDEN, Code.GATEWAY_SERVICE_MISSING),
            *(Code.GATEWAY_ROUTE_PENDING, Code.GATEWAY_ROUTE_REFUSED, Code.GATEWAY_ROUTE_ATTACHED),
        ),
        "about the gateway, which is no object of ours: in metrics",
    ),
    Code.EXTERNAL: "reserved",
}
"""Codes that stand in no condition, with what they are for."""
