"""Which name belongs to whom, and the routing table that follows.

`namespace/name` of an LLMDeployment always means that deployment, and `namespace/name:adapter` its adapter.
`namespace/name` of an LLMRoute means that route where no deployment of its namespace has or wants it. Any other name
belongs to the namespace that claimed it first; inside that namespace an LLMRoute goes before an LLMDeployment, so that
a team can put a route over a name that it already serves.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from modelyard.api.llmdeployment import LLMDeployment
from modelyard.api.llmroute import LLMRoute
from modelyard.api.meta import split_key
from modelyard.api.quantities import parse_duration
from modelyard.api.routetargets import RouteRule as SpecRule
from modelyard.core.picking import asks_picker, find_picker
from modelyard.core.reasons import Code, Reason
from modelyard.core.routeplan.follow import follow_plan
from modelyard.core.routeplan.model import RoutePlan
from modelyard.core.routing import (
    Endpoint,
    ExternalUpstream,
    Route,
    RouteRule,
    RoutingTable,
    Upstream,
    WeightedTarget,
    adapter_key,
    route_name,
)
from modelyard.core.snapshot import Pod, Snapshot
from modelyard.core.sovereign import sovereign_deployments, sovereign_names
from modelyard.core.targets import JudgedRoute, JudgedTarget, adapter_names, explain_closed, judge_route
from modelyard.core.tenants import build_tenants

DEPLOYMENT, ROUTE = "LLMDeployment", "LLMRoute"


@dataclass(frozen=True, slots=True, order=True)
class Claim:
    """Somebody who wants to be reached under a name. The smaller claim of a namespace goes first."""

    rank: int
    """0 for an LLMRoute, 1 for an LLMDeployment."""
    created: str
    """RFC 3339 time, which sorts as text."""
    key: str
    """`namespace/name` of the claimant."""

    @property
    def kind(self) -> str:
        """The claimant's kind."""
        return ROUTE if self.rank == 0 else DEPLOYMENT

    @property
    def namespace(self) -> str:
        """The claimant's namespace."""
        return split_key(self.key)[0]


def resolve_names(snapshot: Snapshot) -> dict[str, Claim]:
    """Return the owner of every claimed name."""
    claims: dict[str, list[Claim]] = {}
    for route in snapshot.routes.values():
        claims.setdefault(route.spec.model, []).append(Claim(0, route.metadata.creation_timestamp, route.key))
    for deployment in snapshot.deployments.values():
        claim = Claim(1, deployment.metadata.creation_timestamp, deployment.key)
        for name in _deployment_names(deployment):
            claims.setdefault(name, []).append(claim)
    owners = {name: _resolve(rivals) for name, rivals in claims.items()}
    for route in snapshot.routes.values():
        # Who asks for the name inside the namespace goes before who is merely called so; other namespaces do not.
        mine = [item for item in claims.get(route.key, ()) if item.namespace == route.metadata.namespace]
        own = Claim(0, route.metadata.creation_timestamp, route.key)
        owners[route.key] = min(mine, default=own)
    for deployment in snapshot.deployments.values():
        claim = Claim(1, deployment.metadata.creation_timestamp, deployment.key)
        for name in _full_names(deployment):
            owners[name] = claim
    return owners


def _deployment_names(deployment: LLMDeployment) -> Iterable[str]:
    yield deployment.served_name
    yield from adapter_names(deployment)


def _full_names(deployment: LLMDeployment) -> Iterable[str]:
    """Yield the names that nobody can take from a deployment: object names have neither a slash nor a colon."""
    yield deployment.key
    for adapter in adapter_names(deployment):
        yield adapter_key(deployment.key, adapter)


def _resolve(claims: list[Claim]) -> Claim:
    first = min(claims, key=lambda claim: (claim.created, claim.namespace))
    return min(claim for claim in claims if claim.namespace == first.namespace)


def explain_deployment(deployment: LLMDeployment, owners: Mapping[str, Claim]) -> tuple[bool, Reason] | None:
    """Return whether a deployment and its adapters are reached under the names that they ask for, and the reason.

    None: not all of the names are resolved yet.
    """
    key = deployment.key
    names = {deployment.served_name: key}
    names |= {adapter: adapter_key(key, adapter) for adapter in adapter_names(deployment)}
    if not names.keys() <= owners.keys():
        return None
    found = [explain_name(name, DEPLOYMENT, key, owners[name], full) for name, full in names.items()]
    lost = [reason for accepted, reason in found if not accepted]
    if not lost:
        return found[0]
    return False, Reason(lost[0].code, "; ".join(reason.message for reason in lost))


def explain_route(route: LLMRoute, owners: Mapping[str, Claim]) -> tuple[bool, Reason] | None:
    """Return whether a route is reached under the name that it asks for, and the reason. None: not resolved yet."""
    owner, other = owners.get(route.spec.model), owners.get(route.key)
    if owner is None:
        return None
    mine = other is not None and (other.kind, other.key) == (ROUTE, route.key)
    return explain_name(route.spec.model, ROUTE, route.key, owner, route.key if mine else None)


def explain_name(name: str, kind: str, key: str, owner: Claim, full: str | None) -> tuple[bool, Reason]:
    """Return whether the claimant is reached under the name, and the reason.

    `full`: the name under which it is reached in any case; None: there is none.
    """
    if owner.key == key and owner.kind == kind:
        return True, Reason(Code.ROUTED, f"requests for {name} come here")
    if owner.kind == ROUTE and owner.namespace == split_key(key)[0] and kind == DEPLOYMENT:
        return True, Reason(
            Code.ROUTED_BY_ROUTE, f"LLMRoute {owner.key} decides where requests for {name} go"
        )
    remedy = "choose another model name" if full is None else f"clients can use {full}"
    message = f"the name {name} belongs to {owner.kind} {owner.key}, which had it first; {remedy}"
    return False, Reason(Code.SERVED_NAME_CONFLICT, message)


@dataclass(frozen=True, slots=True)
class Exposure:
    """How a deployment stands in the gateway."""

    generation: int = 0
    """Generation of its cluster name."""
    asleep: bool = False
    """True: it is being put to sleep, so pods that still run get no new requests."""
    weights: Mapping[str, int] = field(default_factory=dict)
    """Weight of a pod of each variant, by `Variant.name`, where the variants differ."""


def build_routing_table(
    snapshot: Snapshot,
    owners: Mapping[str, Claim],
    exposures: Mapping[str, Exposure],
    previous: RoutingTable,
    plans: Mapping[str, RoutePlan] | None = None,
    *,
    anonymous: bool,
) -> RoutingTable:
    """Return the table for the gateway. `plans`: where requests of LLMRoutes go, by `namespace/name`.

    A deployment that lost its last endpoint keeps the ones it had until its generation is raised: taking the cluster
    away under its old name would leave requests waiting under a name that Envoy never asks for again.
    """
    names: dict[tuple[str, str], list[str]] = {}
    for name, owner in owners.items():
        names.setdefault((owner.kind, owner.key), []).append(name)
    routes: list[Route] = []
    upstreams: dict[str, Upstream] = {}
    closed = sovereign_deployments(snapshot.routes.values())
    for key, deployment in sorted(snapshot.deployments.items()):
        exposure = exposures.get(key, Exposure())
        generation = exposure.generation
        endpoints = () if exposure.asleep else serving_endpoints(snapshot.pods.get(key, ()), exposure.weights)
        before = previous.upstreams.get(key)
        if not endpoints and before is not None and before.generation == generation:
            endpoints = before.endpoints
        affinity = deployment.spec.load_balancing == "PrefixAffinity"
        upstreams[key] = Upstream(
            key,
            generation,
            deployment.served_name,
            endpoints,
            affinity=affinity,
            # A Service may lead out of the cluster (ExternalName), and a picker sees whole requests.
            picker=None if key in closed else find_picker(deployment, snapshot.cluster_domain),
            asks_picker=asks_picker(deployment, snapshot.silent_pickers),
        )
        owned = sorted(names.get((DEPLOYMENT, key), ()))
        adapters = adapter_names(deployment)
        full = {adapter_key(key, adapter) for adapter in adapters}
        base = tuple(name for name in owned if name not in full and name not in adapters)
        routes.append(_deployment_route(deployment, key, key, base))
        for adapter in adapters:
            target = adapter_key(key, adapter)
            upstreams[target] = replace(upstreams[key], deployment=target, model=adapter)
            models = (adapter, target) if adapter in owned and adapter not in full else (target,)
            routes.append(_deployment_route(deployment, target, target, models))
    externals: dict[str, ExternalUpstream] = {}
    closed_names = sovereign_names(snapshot.routes.values())
    for key, route in sorted(snapshot.routes.items()):
        if (ROUTE, key) in names:
            sovereign = (route.metadata.namespace, route.spec.model) in closed_names
            judged = judge_route(route, snapshot, sovereign=sovereign)
            made = _target_route(route, judged, tuple(sorted(names[(ROUTE, key)])), sovereign=sovereign)
            routes.append(follow_plan(made, route, (plans or {}).get(key), upstreams))
            externals |= {
                item.external.cluster: item.external for item in judged.every if item.external is not None
            }
    return RoutingTable(
        tuple(routes), upstreams, externals, build_tenants(snapshot.tenants, routes), anonymous=anonymous
    )


def serving_endpoints(pods: Iterable[Pod], weights: Mapping[str, int] | None = None) -> tuple[Endpoint, ...]:
    """Return where requests may be sent, sorted."""
    known = weights or {}
    return tuple(
        sorted(Endpoint(pod.address, pod.port, known.get(pod.variant, 1)) for pod in pods if pod.serving)
    )


MAX_WEIGHT = 128
"""Largest weight of an endpoint that Envoy takes (`load_balancing_weight` of `LbEndpoint`)."""


def weigh_variants(capacities: Mapping[str, float]) -> dict[str, int]:
    """Return the weight of a pod of each variant, from what one replica answers; empty if all answer the same.

    Whole multiples of the smallest: small moves of a learned capacity move no weight.
    """
    known = {name: capacity for name, capacity in capacities.items() if capacity > 0}
    if len(known) < 2:
        return {}
    smallest = min(known.values())
    weights = {name: min(max(round(capacity / smallest), 1), MAX_WEIGHT) for name, capacity in known.items()}
    return weights if len(set(weights.values())) > 1 else {}


def _deployment_route(deployment: LLMDeployment, name: str, target: str, models: tuple[str, ...]) -> Route:
    closed = explain_closed(deployment)
    return Route(
        name=name,
        models=models,
        targets=(WeightedTarget(target),),
        refusal=None if closed is None else closed.message,
        created=unix_time(deployment.metadata.creation_timestamp),
        owner=deployment.metadata.namespace,
    )


def _target_route(route: LLMRoute, judged: JudgedRoute, models: tuple[str, ...], *, sovereign: bool) -> Route:
    timeouts = route.spec.timeouts
    targets, refusal = _open_targets(judged.targets)
    return Route(
        name=route_name(route.key),
        models=models,
        targets=targets,
        rules=tuple(
            _table_rule(rule, found) for rule, found in zip(route.spec.rules or (), judged.rules, strict=True)
        ),
        priority=route.spec.policy == "Priority",
        sovereign=sovereign,
        hold_seconds=parse_duration(timeouts.hold),
        first_token_seconds=None if timeouts.first_token is None else parse_duration(timeouts.first_token),
        request_seconds=parse_duration(timeouts.request),
        refusal=refusal,
        created=unix_time(route.metadata.creation_timestamp),
        owner=route.metadata.namespace,
    )


def _table_rule(rule: SpecRule, judged: Iterable[JudgedTarget]) -> RouteRule:
    targets, refusal = _open_targets(judged)
    return RouteRule(
        targets=targets,
        tenants=frozenset(rule.match.tenants or ()),
        headers=tuple((header.name.lower(), header.value) for header in rule.match.headers or ()),
        # What should go here and cannot goes nowhere: the rule may be there to keep it from elsewhere.
        refusal=refusal,
    )


def _open_targets(judged: Iterable[JudgedTarget]) -> tuple[tuple[WeightedTarget, ...], str | None]:
    """Return the targets that get requests; where none does, why."""
    found = tuple(judged)
    targets = tuple(item.target for item in found if item.target is not None)
    closed = "; ".join(item.closed.message for item in found if item.closed is not None)
    return targets, None if targets else closed


def unix_time(timestamp: str) -> int:
    """Return an RFC 3339 time in Unix seconds; 0 for an empty one."""
    return int(datetime.fromisoformat(timestamp).timestamp()) if timestamp else 0
