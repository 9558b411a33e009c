"""What a load that stays as it is needs, once the rule that sizes by load has seen it for long.

Requests that come independently of each other (Poisson) at a rate that never changes leave the rule with this:
counts whose variance is their mean, no error of the forecast beyond that, and no backlog. What stays is the part of
the headroom that was assumed at first and is never quite forgotten, bursts as long as a request, and the swing of the
measured rate itself.
"""

import math
from dataclasses import replace

from modelyard.core.demand import Demand, Sample
from modelyard.core.scaling.forecast import begin
from modelyard.core.scaling.headroom import Headroom
from modelyard.core.scaling.rule import FleetView, LoadMemory, LoadPolicy, assess
from modelyard.core.variants import DEFAULT_START_TIME, Variant

POISSON = 1.0
"""Variance over mean of the counts of independent arrivals."""

SWING = 1.0
"""Standard deviations of the measured rate that its highest value within one start time lies above its mean. A usual
start of 120 s holds four independent means of 30 s, and the expected maximum of four normal values is 1.03 (Harter,
Biometrika 48, 1961: expected values of normal order statistics)."""

TOLERANCE = 1e-5
"""Relative, of a capacity: `capacity_for` itself is that exact."""
STEPS = 32
"""Steps of the search, at most."""


def recall_load(newest: Sample, rate: float, policy: LoadPolicy) -> LoadMemory:
    """Return what the rule remembers of `rate` requests per second that came for as long as it remembers anything.

    `newest`: the newest reading of the counter.
    """
    dispersion = min(POISSON, policy.forecast.dispersion)
    # The size is held at the largest need within one start time, which is where the measured rate was highest.
    seen = rate + SWING * math.sqrt(dispersion * rate / (2 * policy.forecast.fast))
    history = policy.headroom.memory
    return LoadMemory(
        counted=newest,
        forecast=replace(begin(newest.time, seen, policy.forecast), dispersion=dispersion, age=history),
        headroom=Headroom(observed=history, power=rate * rate),
    )


def find_capacity(rate: float, service_time: float | None, policy: LoadPolicy) -> float:
    """Return the requests per second of capacity that a steady load settles at. `service_time`: `find_service_time`."""
    newest = Sample(0.0, 0.0)
    fleet = FleetView(math.inf, math.inf, DEFAULT_START_TIME, service_time)
    memory = recall_load(newest, rate, policy)
    return assess(memory, Demand(rate, None, (newest,)), fleet, 0.0, policy).capacity


def find_rate(capacity: float, service_time: float | None, policy: LoadPolicy) -> float:
    """Return the highest steady load, in requests per second, that this capacity is planned to answer.

    By false position, with the weight of an end that stays halved (the Illinois rule: Dowell and Jarratt, BIT 11,
    1971): capacity is almost linear in the load, so a few steps do.
    """
    low, high = 0.0, capacity * policy.utilization
    below, above = -capacity, find_capacity(high, service_time, policy) - capacity
    rate, stayed = high, 0
    for _ in range(STEPS):
        if above <= 0.0:
            break
        rate = (low * above - high * below) / (above - below)
        error = find_capacity(rate, service_time, policy) - capacity
        if abs(error) <= TOLERANCE * capacity:
            break
        if error < 0.0:
            low, below = rate, error
            above *= 0.5 if stayed < 0 else 1.0
            stayed = -1
        else:
            high, above = rate, error
            below *= 0.5 if stayed > 0 else 1.0
            stayed = 1
    return rate


def find_service_time(variant: Variant) -> float | None:
    """Return the seconds that a request takes at a replica's capacity; None: not known."""
    speed = variant.speed
    return speed.batch / speed.requests_per_second if speed is not None and speed.feasible else None
