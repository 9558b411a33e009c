"""Whole replicas for a load with its deviation: the steps of what an own deployment costs.

Work is counted in replicas at capacity, so that routes with different requests add up. Deviations of routes are
independent, so that their variances do.
"""

import math
from dataclasses import dataclass

from modelyard.core.breakeven.inputs import BreakEvenPolicy, DeploymentInput, OwnTarget, RouteLoad
from modelyard.core.scaling.attainment import capacity_for, expected_missed

EQUAL = 1e-9
"""Relative difference of capacities that binary fractions may make."""
BISECTIONS = 40
"""Halvings of an interval: 1e-12 of it is left."""


@dataclass(frozen=True, slots=True)
class Work:
    """What requests ask of a deployment, in replicas at capacity."""

    mean: float = 0.0
    variance: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        return Work(self.mean + other.mean, self.variance + other.variance)


def work_of(load: RouteLoad, rate: float, target: OwnTarget) -> Work:
    """Return the work that so many requests per second of a route are."""
    return Work(rate / target.capacity, load.variance(rate) / target.capacity**2)


def other_work(deployment: DeploymentInput) -> Work:
    """Return the work that is not decided here."""
    return Work(deployment.used, deployment.used_deviation**2)


def suffices(work: Work, replicas: int, policy: BreakEvenPolicy) -> bool:
    """Say whether so many replicas miss no more than they are planned to."""
    if work.mean <= 0:
        return True
    if replicas <= 0:
        return False
    missed = expected_missed(work.mean / replicas, math.sqrt(work.variance) / replicas, policy.misses)
    return missed <= policy.missed * (1 + EQUAL)


def replicas_needed(work: Work, policy: BreakEvenPolicy) -> int:
    """Return the fewest replicas that suffice; 0 without work."""
    if suffices(work, 0, policy):
        return 0
    low, high = 0, max(1, math.ceil(work.mean))
    while not suffices(work, high, policy):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if suffices(work, middle, policy):
            high = middle
        else:
            low = middle
    return high


def replicas_planned(work: Work, policy: BreakEvenPolicy) -> float:
    """Return the same as a fraction: how much of replicas is planned for."""
    return capacity_for(work.mean, math.sqrt(work.variance), policy.missed, policy.misses)


def answered(
    load: RouteLoad, target: OwnTarget, others: Work, replicas: int, policy: BreakEvenPolicy
) -> float:
    """Return the requests per second of a route that so many replicas suffice for beside other work; 0: none."""
    low, high = 0.0, replicas * target.capacity
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if suffices(others + work_of(load, middle, target), replicas, policy):
            low = middle
        else:
            high = middle
    return low
