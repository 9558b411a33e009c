"""What share of requests a fleet misses, as far as counts of arrivals can tell."""

import math
from dataclasses import dataclass
from functools import lru_cache

STEPS = 16
"""Bisections: the capacity is found within 1e-4 of a deviation."""


@dataclass(frozen=True, slots=True)
class MissPolicy:
    """How utilisation becomes misses."""

    at_capacity: float = 0.1
    """Share of requests that miss the objective when exactly the capacity is offered: a replica's capacity is planned
    so that the mean request just attains, and lengths and routing spread around the mean."""
    spread: float = 0.04
    """Change of utilisation that multiplies that share by e. Request-level runs of an 8B model with log-normal lengths
    of CV 0.8 to 1.6 give 0.02 to 0.08."""


def missed_share(utilization: float, policy: MissPolicy) -> float:
    """Return the share of requests missed at this offered load over capacity."""
    if utilization <= 0.0:
        return 0.0
    exponent = (utilization - 1.0) / policy.spread + math.log(policy.at_capacity)
    return 1.0 if exponent >= 0.0 else math.exp(exponent)


def highest_utilization(share: float, policy: MissPolicy) -> float:
    """Return the steady utilisation at which this share of requests, at most `at_capacity`, is missed."""
    return 1.0 + policy.spread * math.log(share / policy.at_capacity)


def expected_missed(utilization: float, deviation: float, policy: MissPolicy) -> float:
    """Return the mean share missed where utilisation is normally distributed.

    The mean of min(1, exp((u - full) / spread)) over a normal distribution, with `full` the utilisation at which
    everything is missed.
    """
    if deviation <= 0.0:
        return missed_share(utilization, policy)
    full = 1.0 - policy.spread * math.log(policy.at_capacity)
    distance, ratio = (full - utilization) / deviation, deviation / policy.spread
    beyond = _normal(-distance)
    inside = _normal(distance - ratio)
    if inside == 0.0:
        return beyond
    exponent = (utilization - full) / policy.spread + ratio * ratio / 2 + math.log(inside)
    return min(beyond + math.exp(min(exponent, 0.0)), 1.0)


KEPT = 4096
"""Capacities that are remembered, about a mebibyte: a forecast changes with each bin of some seconds, a decision asks
for the same five in between. Enough for 800 deployments; with more, they are worked out again."""


@lru_cache(maxsize=KEPT)
def capacity_for(rate: float, deviation: float, share: float, policy: MissPolicy) -> float:
    """Return the requests per second of capacity at which this share is missed of a rate with this deviation."""
    if rate <= 0.0:
        return 0.0
    low = rate / highest_utilization(share, policy)
    high = low + 6 * deviation
    if deviation <= 0.0:
        return low
    for _ in range(STEPS):
        middle = (low + high) / 2
        if expected_missed(rate / middle, deviation / middle, policy) > share:
            low = middle
        else:
            high = middle
    return high


def _normal(score: float) -> float:
    """Return the standard normal distribution function."""
    return 0.5 * math.erfc(-score / math.sqrt(2.0))


def advance_backlog(backlog: float, arrivals: float, served: float, seconds: float) -> float:
    """Return requests that wait after so many seconds: a fluid queue served at `served` requests per second."""
    return max(backlog + arrivals - served * seconds, 0.0)
