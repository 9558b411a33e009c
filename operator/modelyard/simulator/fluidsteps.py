"""Replicas that work on a flow, step by step, compiled."""

import math

import numpy as np

from modelyard.simulator.compiled import compiled_flow
from modelyard.simulator.scenario import Floats

TICK = 1.0
"""Seconds in which the batch counts as constant: about the service time of a short answer."""
SAME = 0.5
"""Requests by which the levels of two replicas may differ that count as equal."""


@compiled_flow
def _fill(level: Floats, count: Floats, groups: int, amount: float, share: Floats) -> None:
    """Find what each replica of each group gets of an amount when each request goes to where the fewest are.

    Groups are filled up to a common level, those above it get nothing. `share` is written: requests per replica.
    """
    if groups == 0:
        return
    held, replicas, top = 0.0, 0.0, -1.0
    while True:
        # The lowest level above those that are in, one group or several.
        lowest = np.inf
        for number in range(groups):
            if top < level[number] < lowest:
                lowest = level[number]
        if replicas > 0.0 and (held + amount) / replicas <= lowest:
            break
        for number in range(groups):
            if level[number] == lowest:
                held += level[number] * count[number]
                replicas += count[number]
        top = lowest
    common = (held + amount) / replicas
    for number in range(groups):
        share[number] = max(0.0, common - level[number]) if level[number] <= top else 0.0


@compiled_flow
def _shrunk(
    level: float, rate: float, base: float, slope: float, output: float, limit: float, seconds: float
) -> float:
    """Return a replica's unfinished requests after some seconds: they tend to rate x service time at their batch."""
    service = output * (base + slope * min(level, limit))
    # A replica that is full answers `limit` at once; what waits lengthens the stay of each by its share.
    stay = service * max(1.0, level / limit)
    return rate * stay + (level - rate * stay) * math.exp(-seconds / stay)


@compiled_flow
def _advance(
    level: Floats, count: Floats, serving: int, leaving: int, rate: float, base: float, slope: float,
    output: float, limit: float, seconds: float,
) -> tuple[float, float, float]:  # fmt: skip
    """Play groups of replicas for some seconds; the levels are changed.

    Groups from `serving` on, `leaving` of them, get nothing new. Return, on average over time, the level of the
    replicas that requests come to; and the unfinished and running sequences of all.
    """
    ticks = max(1, math.ceil(seconds / TICK - 1e-9))
    tick = seconds / ticks
    share = np.zeros(len(level))
    seen, unfinished, running = 0.0, 0.0, 0.0
    for _ in range(ticks):
        # Without arrivals the next one would see what the fewest see.
        amount = max(rate * tick, 1e-9)
        if serving > 0:
            _fill(level, count, serving, amount, share)
        for number in range(serving + leaving):
            before = level[number]
            came = share[number] if number < serving else 0.0
            level[number] = _shrunk(before, came / tick, base, slope, output, limit, tick)
            mean = (before + level[number]) / 2
            seen += came * count[number] / amount * mean
            unfinished += mean * count[number]
            running += min(mean, limit) * count[number]
    return seen / ticks, unfinished / ticks, running / ticks


@compiled_flow
def advance_pooled(
    level: float, rate: float, base: float, slope: float, output: float, limit: float, seconds: float
) -> tuple[float, float]:
    """Play replicas that are all alike, at a rate for each; return their level after some seconds and on average."""
    ticks = max(1, math.ceil(seconds / TICK - 1e-9))
    area = 0.0
    for _ in range(ticks):
        before = level
        level = _shrunk(before, rate, base, slope, output, limit, seconds / ticks)
        area += (before + level) / 2
    return level, area / ticks


@compiled_flow
def _sum(values: Floats) -> float:
    """Return the sum, added up in NumPy's order: eight sums side by side. The length is a multiple of eight."""
    sums = values[:8].copy()
    for place in range(8, len(values), 8):
        sums += values[place : place + 8]
    return float(((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7])))


@compiled_flow
def unfinished_at(level: Floats, count: Floats, held: float) -> float:
    """Return the unfinished requests of all groups of replicas, and those `held` at the gateway."""
    return held + _sum(level * count)


@compiled_flow
def _merge(level: Floats, count: Floats, serving: int) -> int:
    """Make serving neighbours one group whose levels are within half a request; return how many groups serve."""
    for number in range(serving - 1, 0, -1):
        if abs(level[number] - level[number - 1]) < SAME:
            both = count[number] + count[number - 1]
            level[number - 1] = (level[number] * count[number] + level[number - 1] * count[number - 1]) / both
            count[number - 1] = both
            for values in (level, count):
                for place in range(number, len(values) - 1):
                    values[place] = values[place + 1]
                values[-1] = 0.0
            serving -= 1
    return serving


@compiled_flow
def advance_fleet(
    level: Floats, count: Floats, serving: int, leaving: int, held: float, rate: float, base: float,
    slope: float, output: float, limit: float, seconds: float,
) -> tuple[int, float, float, float, float]:  # fmt: skip
    """Play groups of replicas and the gateway, which holds what comes while none serves; the levels are changed.

    Return how many groups serve now and what is held now; and, on average over time, the level of the replicas that
    requests come to (infinite without any), and the unfinished and running sequences of all.
    """
    if serving == 0:
        held += rate * seconds
    seen, unfinished, running = _advance(
        level, count, serving, leaving, rate if serving > 0 else 0.0, base, slope, output, limit, seconds
    )
    if serving == 0:
        return serving, held, math.inf, unfinished + (held - rate * seconds / 2), running
    return _merge(level, count, serving), held, seen, unfinished, running


# What is counted between two looks of a policy; whole requests and tokens are handed out, the rest stays.
ARRIVALS, INPUT, OUTPUT, COMPLETIONS, DONE_INPUT, DONE_OUTPUT, SECONDS, RUNNING, WAITING, BUSY = range(10)
COUNTED = 10

# Columns of the table of a load: how one replica works in each step, and what comes in it.
BASE, SLOPE, LENGTH, LIMIT, RATE, INPUTS, OUTPUTS = range(7)


@compiled_flow
def play_until(
    level: Floats, count: Floats, serving: int, leaving: int, held: float, replicas: int, table: Floats,
    step: float, number: int, now: float, until: float, since: Floats, seen: Floats, newest: float,
) -> tuple[int, float, int, float, float]:  # fmt: skip
    """Play a load from a time in a step up to a time, or to the load's end.

    `since`: what is counted; `seen`: mean level of the replicas that requests come to in each step, and `newest` that
    of the newest moments. Both arrays and the levels are changed. Return the step, the time, the groups that serve,
    what the gateway holds, and the newest level. At the load's end the step is the one after the last.
    """
    while number < len(table):
        edge = (number + 1) * step
        if now >= edge:
            number += 1
            continue
        if until <= now:
            break
        ahead = min(edge, until)
        seconds = ahead - now
        rate, inputs, outputs = table[number, RATE], table[number, INPUTS], table[number, OUTPUTS]
        before = unfinished_at(level, count, held)
        serving, held, newest, unfinished, running = advance_fleet(
            level, count, serving, leaving, held, rate, table[number, BASE], table[number, SLOPE],
            table[number, LENGTH], table[number, LIMIT], seconds,
        )  # fmt: skip
        seen[number] += newest * seconds / step
        came = rate * seconds
        done = came + before - unfinished_at(level, count, held)
        since[ARRIVALS] += came
        since[INPUT] += came * inputs
        since[OUTPUT] += came * outputs
        since[COMPLETIONS] += done
        since[DONE_INPUT] += done * inputs
        since[DONE_OUTPUT] += done * outputs
        since[SECONDS] += seconds
        since[RUNNING] += running * seconds
        since[WAITING] += (unfinished - running) * seconds
        if replicas > 0:
            # An engine runs a step while it has any sequence; the number that it has is about Poisson.
            since[BUSY] += (1 - math.exp(-running / replicas)) * seconds
        now = ahead
        if now >= until:
            break
    return number, now, serving, held, newest


@compiled_flow
def take_whole(since: Floats) -> tuple[int, int, int, int, int, int]:
    """Return the whole requests and tokens that were counted, whose fractions stay; times begin anew."""
    whole = since[: DONE_OUTPUT + 1] + 1e-9
    for place in range(len(whole)):
        whole[place] = math.trunc(whole[place])
        since[place] -= whole[place]
    since[SECONDS:] = 0.0
    return int(whole[0]), int(whole[1]), int(whole[2]), int(whole[3]), int(whole[4]), int(whole[5])


@compiled_flow
def look_at(
    level: Floats, count: Floats, serving: int, held: float, limit: float
) -> tuple[float, float, float]:
    """Return all unfinished requests, those that run, and the unfinished ones of the fullest serving replica."""
    fullest = 0.0
    for number in range(serving):
        fullest = max(fullest, level[number])
    return unfinished_at(level, count, held), _sum(np.minimum(level, limit) * count), fullest


@compiled_flow
def share_at(ratio: float, knots: Floats, shares: Floats) -> float:
    """Return a curve's value at a point: `numpy.interp`."""
    if ratio >= knots[-1]:
        return float(shares[-1])
    if ratio < knots[0]:
        return float(shares[0])
    place = np.searchsorted(knots, ratio, side="right") - 1
    if knots[place] == ratio:
        return float(shares[place])
    slope = (shares[place + 1] - shares[place]) / (knots[place + 1] - knots[place])
    return float(slope * (ratio - knots[place]) + shares[place])
