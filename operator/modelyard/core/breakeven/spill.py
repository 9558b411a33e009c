"""Where a route's requests go while replicas of its deployment are missing."""

import math

from modelyard.core.breakeven.inputs import RouteInput, Target
from modelyard.core.breakeven.joint import Assignment, Group
from modelyard.core.breakeven.memory import RouteMemory, TargetShare
from modelyard.core.breakeven.need import other_work, replicas_planned, work_of

PARTS = 10
"""Parts in which requests are divided: smaller changes of a fleet's room are no reason to configure the gateway."""


def split(
    group: Group, route: RouteInput, assignment: Assignment, before: RouteMemory | None
) -> tuple[TargetShare, ...]:
    """Return the shares of a route's requests; none if it has no target.

    To the deployment goes what its serving replicas have room for, all routes alike, and the rest to the provider. If
    there is none, or the route may not spill, all goes to the deployment, where it waits.
    """
    target = assignment.get(route.name)
    if target is None:
        return ()
    provider = group.allowed[route.name].provider
    if not target.own or provider is None or not route.spill:
        return (TargetShare(target, 1.0),)
    if route.load is None and before is not None and before.target == target:
        allowed = group.allowed[route.name].targets
        if before.shares and all(share.target in allowed for share in before.shares):
            return before.shares
    part = _room(group, target.name, assignment)
    shares = (TargetShare(target, part), TargetShare(Target("Provider", provider.name), 1.0 - part))
    return tuple(share for share in shares if share.part > 0)


def _room(group: Group, name: str, assignment: Assignment) -> float:
    """Return the share of the requests that come now for which a deployment has replicas that serve, rounded down."""
    deployment = group.deployments[name]
    work = other_work(deployment)
    for route, target in assignment.items():
        own = group.allowed[route].find(target)
        if own is not None and own.deployment == name:
            work += work_of(group.loads[route], group.loads[route].now, own)
    if deployment.serving < 1:
        return 0.0
    # A load that one replica is planned for needs a whole one, whatever the fraction.
    planned = replicas_planned(work, deployment.plan(group.policy))
    if planned <= deployment.serving * (1 + 1e-9):
        return 1.0
    return math.floor(deployment.serving / planned * PARTS + 1e-9) / PARTS
