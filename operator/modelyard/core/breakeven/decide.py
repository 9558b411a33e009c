"""Where the requests of routes go that ask for the lowest cost, and which deployments may sleep.

A provider's cost at the route's mix is held against what the replicas would save that could go: shared with other
routes, in whole replicas, with the headroom of what runs in any case for nothing (`joint.py`). A cheaper choice is
taken when the present one has cost too much for long enough (`hysteresis.py`). Pure: inputs and memory in, choice and
memory out, the time is an argument.
"""

from collections.abc import Mapping
from dataclasses import replace

from modelyard.core.breakeven.allowed import Allowed, sort_targets
from modelyard.core.breakeven.explain import explain
from modelyard.core.breakeven.hysteresis import add_unrest
from modelyard.core.breakeven.inputs import (
    BreakEvenInput,
    BreakEvenPolicy,
    DeploymentInput,
    RouteInput,
    Target,
)
from modelyard.core.breakeven.joint import Group, form_groups
from modelyard.core.breakeven.memory import (
    BreakEvenChoice,
    BreakEvenMemory,
    DeploymentChoice,
    RouteChoice,
    RouteMemory,
)
from modelyard.core.breakeven.need import other_work, replicas_needed
from modelyard.core.breakeven.settle import Settled, load_of, settle
from modelyard.core.breakeven.spill import split


def decide_targets(
    data: BreakEvenInput, memory: BreakEvenMemory, now: float, policy: BreakEvenPolicy | None = None
) -> tuple[BreakEvenChoice, BreakEvenMemory]:
    """Return where every route's requests go, what is asked of every deployment, and the new memory.

    `now`: Unix time. Routes that are gone are forgotten. Raises ValueError for inputs that cannot be decided on.
    """
    data.check()
    policy = policy or BreakEvenPolicy()
    deployments = {item.name: item for item in data.deployments}
    allowed = {route.name: _sort(route, deployments, memory, now, policy) for route in data.routes}
    routes: dict[str, RouteChoice] = {}
    remembered: dict[str, RouteMemory] = {}
    asked = {item.name: _ask_unused(item, policy) for item in data.deployments}
    places = {name: place for place, name in enumerate(deployments)}
    for members in form_groups(data.routes, allowed):
        used = {item.deployment for route in members for item in allowed[route.name].own}
        shared = {name: deployments[name] for name in sorted(used, key=places.__getitem__)}
        group = _make_group(members, allowed, shared, memory, policy)
        settled = settle(group, memory, now)
        for route in members:
            before = memory.routes.get(route.name)
            shares = split(group, route, settled.assignment, before)
            routes[route.name] = explain(group, route, settled, shares)
            target = settled.assignment.get(route.name)
            if target is not None:
                kept = _remember(
                    route, target, before, now, changed=route.name in settled.changed, policy=policy
                )
                remembered[route.name] = replace(kept, shares=shares, excess=settled.excess.total)
        asked |= _ask(group, settled)
    choice = BreakEvenChoice({route.name: routes[route.name] for route in data.routes}, asked)
    return choice, BreakEvenMemory(remembered)


def _sort(
    route: RouteInput,
    deployments: Mapping[str, DeploymentInput],
    memory: BreakEvenMemory,
    now: float,
    policy: BreakEvenPolicy,
) -> Allowed:
    """Return what a route may use; right after a change its provider stays, whatever another asks."""
    before = memory.routes.get(route.name)
    if before is None:
        return sort_targets(route, deployments)
    start = max((deployments[item.deployment].start_time for item in route.own), default=0.0)
    held = route.load is None or now - before.since < start
    return sort_targets(route, deployments, before.target, policy.band, held=held)


def _remember(
    route: RouteInput,
    target: Target,
    before: RouteMemory | None,
    now: float,
    *,
    changed: bool,
    policy: BreakEvenPolicy,
) -> RouteMemory:
    """Return when a route changed last, and its last known load."""
    if before is None:
        return RouteMemory(target, since=now, time=now, load=route.load)
    kept = before if route.load is None else replace(before, time=now, load=route.load)
    if not changed:
        return kept
    unrest = add_unrest(before.unrest, now - before.since, policy)
    return replace(kept, target=target, since=now, unrest=unrest)


def _make_group(
    members: tuple[RouteInput, ...],
    allowed: Mapping[str, Allowed],
    deployments: Mapping[str, DeploymentInput],
    memory: BreakEvenMemory,
    policy: BreakEvenPolicy,
) -> Group:
    return Group(
        routes=members,
        allowed={route.name: allowed[route.name] for route in members},
        loads={route.name: load_of(route, memory.routes.get(route.name)) for route in members},
        deployments=deployments,
        policy=policy,
    )


def _ask_unused(deployment: DeploymentInput, policy: BreakEvenPolicy) -> DeploymentChoice:
    """Return what is asked of a deployment that no route here may use."""
    needed = replicas_needed(other_work(deployment), deployment.plan(policy))
    count = min(max(needed, deployment.minimum), deployment.maximum)
    return DeploymentChoice(deployment.name, count, count == 0)


def _ask(group: Group, settled: Settled) -> dict[str, DeploymentChoice]:
    """Return what is asked of the deployments of a group."""
    bill = group.bill(settled.assignment)
    asked: dict[str, DeploymentChoice] = {}
    for name, item in group.deployments.items():
        senders = [
            route
            for route in group.routes
            if settled.assignment.get(route.name) == Target("Deployment", name)
        ]
        count = max(item.minimum, group.need(name, frozenset())[0])
        for route in senders:
            if route.load is None:
                count = max(count, item.present)
            elif len(group.allowed[route.name].targets) > 1:
                count = max(count, bill.replicas[name])
        asked[name] = DeploymentChoice(name, min(count, item.maximum), count == 0 and not senders)
    return asked
