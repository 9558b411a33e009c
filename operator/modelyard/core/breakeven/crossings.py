"""The loads of a route at which its cheapest target changes.

A provider's cost grows with every request. A deployment's stays until the load needs one replica more, so the two may
cross at every step: each crossing is told. Headroom that other requests have paid for is free, so up to its end the
deployment costs nothing.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

from modelyard.core.breakeven.inputs import OwnTarget, RouteInput, Target
from modelyard.core.breakeven.joint import SECONDS_PER_HOUR, Assignment, Group
from modelyard.core.breakeven.need import answered

SMALLEST = 1e-9
"""Requests per second below which two loads are the same."""


@dataclass(frozen=True, slots=True)
class Crossing:
    """A load at which the cheapest target changes."""

    requests_per_minute: float
    before: Target
    """Cheapest up to it."""
    after: Target
    """Cheapest beyond it."""


@dataclass(frozen=True, slots=True)
class _Step:
    """Loads above `start`, up to `end` (requests per second), at which a deployment costs the same."""

    start: float
    end: float
    cost: float
    """US dollars per hour."""


def find_crossings(group: Group, route: RouteInput, chosen: Assignment) -> tuple[Crossing, ...]:
    """Return every crossing up to the load that the route's deployments answer, while the other routes stay.

    None where there is nothing to choose between.
    """
    allowed = group.allowed[route.name]
    stairs = {
        Target("Deployment", item.deployment): tuple(_climb(group, route, item, chosen))
        for item in allowed.own
    }
    provider = Target("Provider", allowed.provider.name) if allowed.provider is not None else None
    found: list[tuple[float, Target]] = []
    for start, winner in _winners(stairs, provider, allowed.per_request * SECONDS_PER_HOUR):
        if not found or found[-1][1] != winner:
            found.append((start, winner))
    return tuple(Crossing(start * 60, before, after) for (_, before), (start, after) in pairwise(found))


def _climb(group: Group, route: RouteInput, target: OwnTarget, chosen: Assignment) -> Iterator[_Step]:
    """Yield the steps of a deployment's cost as the load of one route grows, up to its maximum."""
    name = target.deployment
    deployment = group.deployments[name]
    others = frozenset(
        key for key, item in chosen.items() if item.own and item.name == name and key != route.name
    )
    base, _ = group.need(name, others)
    work, before, policy = group.work(name, others), 0.0, deployment.plan(group.policy)
    alone = len(group.allowed[route.name].own) == 1
    per_request_hour = group.allowed[route.name].per_request * SECONDS_PER_HOUR
    for count in range(max(base, 1), deployment.maximum + 1):
        end = answered(group.loads[route.name], target, work, count, policy)
        if end <= before + SMALLEST:
            continue
        added, before = end - before, end
        yield _Step(before - added, end, (count - base) * deployment.avoidable)
        # Each further replica answers as much as this one or more, the random part of a load being smaller: once one
        # is worth its price, and so are all together, nothing crosses any more.
        settled = per_request_hour * min(added, end / (count + 1 - base)) >= deployment.avoidable
        if alone and settled and count > base:
            return


def _winners(
    stairs: Mapping[Target, tuple[_Step, ...]], provider: Target | None, per_request_hour: float
) -> Iterator[tuple[float, Target]]:
    """Yield where each stretch of loads begins, and what is cheapest there; of equal costs a deployment."""
    edges = sorted({0.0, *(step.end for steps in stairs.values() for step in steps)})
    for start, end in pairwise(edges):
        if end - start <= SMALLEST:
            continue
        level = [
            (step.cost, target)
            for target, steps in stairs.items()
            for step in steps
            if step.start <= start + SMALLEST and step.end >= end - SMALLEST
        ]
        cost, best = min(level, key=lambda item: item[0])
        if provider is None:
            yield start, best
            continue
        even = cost / per_request_hour if per_request_hour > 0 else end if cost > 0 else start
        if even > start + SMALLEST:
            yield start, provider
        if even < end - SMALLEST:
            yield max(start, even), best
