"""The replicas of a deployment and the gateway before them, compiled.

The gateway sends a request to the serving replica with the fewest unanswered ones, and to any of several such at
random: Envoy's least request policy with a full scan, as this project configures it
(https://www.envoyproxy.io/docs/envoy/latest/api-v3/extensions/load_balancing_policies/least_request/v3/least_request.proto).
While no replica serves, it holds requests, in order.
"""

import math

import numpy as np

from modelyard.simulator.compiled import compiled
from modelyard.simulator.engine import advance, drop, note_gone, receive, settle, shift
from modelyard.simulator.lists import append, remove
from modelyard.simulator.records import (
    ABANDONED,
    ASKED_INPUT,
    ASKED_OUTPUT,
    ASKS,
    BATCH,
    DRAINING,
    FREE,
    FRONT,
    HELD,
    HELD_LEVEL,
    LIVE,
    LIVE_COUNT,
    NEXT_ARRIVAL,
    NEXT_DEADLINE,
    NONE,
    QUEUE,
    REFUSED,
    SERVING,
    SERVING_COUNT,
    Fleet,
    Meters,
    Speed,
)
from modelyard.simulator.scenario import Floats, Integers
from modelyard.simulator.timing import front_end_seconds

GATEWAY = -1
"""The gateway's row among the lists."""
WAITING, LOST = 0, 1
"""Its lists: of requests that it holds, and of those whose replica has just been taken away."""


@compiled
def run_until(fleet: Fleet, speed: Speed, patience: float, asks: int, until: float) -> None:
    """Play everything up to a time: arrivals, engines, and clients that give up.

    `patience`: seconds that clients wait for a first token; `asks`: how often they ask.
    """
    bounds, requests, meters = fleet.bounds, fleet.requests, fleet.meters
    while True:
        arrival, deadline = math.inf, math.inf
        if bounds[NEXT_ARRIVAL] < len(requests):
            arrival = requests[bounds[NEXT_ARRIVAL]]["arrival"]
        if bounds[NEXT_DEADLINE] < meters.ask_count[0]:
            deadline = meters.ask_time[bounds[NEXT_DEADLINE]] + patience
        now = min(arrival, deadline, until)
        for place in range(bounds[LIVE_COUNT]):
            slot = fleet.live[place]
            if fleet.due[slot] <= now:
                advance(fleet, speed, slot, now)
        if deadline <= now:
            index = meters.ask_request[bounds[NEXT_DEADLINE]]
            asked = meters.ask_time[bounds[NEXT_DEADLINE]]
            bounds[NEXT_DEADLINE] += 1
            if asked == requests[index]["asked"] and math.isnan(requests[index]["first"]):
                _give_up(fleet, speed, index, asks, now)
        elif arrival <= now:
            bounds[NEXT_ARRIVAL] += 1
            ask(fleet, speed, bounds[NEXT_ARRIVAL] - 1, now)
        else:
            return


@compiled
def ask(fleet: Fleet, speed: Speed, index: int, now: float) -> None:
    """Let a client ask, for the first time or again."""
    request, meters = fleet.requests[index], fleet.meters
    request["asked"] = now
    request["asks"] += 1
    request["first"] = np.nan
    meters.counter[ASKS] += 1
    meters.counter[ASKED_INPUT] += request["input"]
    meters.counter[ASKED_OUTPUT] += request["output"]
    if request["input"] + request["output"] > speed.longest:
        request["state"] = REFUSED
        return
    if len(meters.ask_request) > 0:
        meters.ask_request[meters.ask_count[0]] = index
        meters.ask_time[meters.ask_count[0]] = now
        meters.ask_count[0] += 1
    route(fleet, speed, index, now)


@compiled
def route(fleet: Fleet, speed: Speed, index: int, now: float) -> None:
    """Send a request to a replica, or hold it."""
    slot = _least_requests(fleet)
    if slot == NONE:
        fleet.requests[index]["state"] = HELD
        fleet.requests[index]["replica"] = NONE
        append(fleet, GATEWAY, WAITING, index)
        shift(fleet.meters, HELD_LEVEL, 1.0, now)
    else:
        receive(fleet, speed, slot, index, now)


@compiled
def release(fleet: Fleet, speed: Speed, now: float) -> None:
    """Send what the gateway holds to replicas, now that there are some."""
    while fleet.bounds[SERVING_COUNT] > 0 and fleet.lists[GATEWAY, WAITING, 0] != NONE:
        index = fleet.lists[GATEWAY, WAITING, 0]
        remove(fleet, GATEWAY, WAITING, index)
        shift(fleet.meters, HELD_LEVEL, -1.0, now)
        route(fleet, speed, index, now)


@compiled
def serve(fleet: Fleet, slot: int, now: float) -> None:
    """Let a replica serve from now on."""
    bounds, live = fleet.bounds, fleet.live
    place = bounds[SERVING_COUNT]
    live[bounds[LIVE_COUNT]] = live[place]
    live[place] = slot
    bounds[SERVING_COUNT] += 1
    bounds[LIVE_COUNT] += 1
    fleet.replicas[slot]["state"] = SERVING
    fleet.replicas[slot]["gone_at"] = math.inf
    fleet.replicas[slot]["expected"] = fleet.replicas[slot]["observed"] = 0.0
    shift(fleet.meters, LIVE, 1.0, now)


@compiled
def leave(fleet: Fleet, slot: int, now: float) -> None:
    """Let a replica take no new requests from now on; it answers those that it has."""
    bounds, live = fleet.bounds, fleet.live
    bounds[SERVING_COUNT] -= 1
    last = bounds[SERVING_COUNT]
    for place in range(last):
        if live[place] == slot:
            live[place] = live[last]
            live[last] = slot
    fleet.replicas[slot]["state"] = DRAINING
    note_gone(fleet, slot, now)


def take_away(fleet: Fleet, speed: Speed, slot: int, asks: int, now: float) -> None:
    """Remove a replica for good, with whatever is left on it.

    A request without a first token is sent to another replica by the gateway. An answer that has begun cannot be: it
    breaks off, and its client asks again if it does so at all; otherwise the request counts as refused.

    Those that a front end has for a shorter time go first: requests stand in the order in which they leave it, and an
    overloaded replica leaves a hundred thousand behind, for each of which a place would be looked for.
    """
    count = _lose_all(fleet, speed, slot, now)
    lost, seconds = np.empty(count, np.int64), np.zeros(count)
    _take_lost(fleet, speed, lost, seconds)
    _send_again(fleet, speed, lost[np.argsort(seconds, kind="stable")], asks, now)


@compiled
def _lose_all(fleet: Fleet, speed: Speed, slot: int, now: float) -> int:
    """Take a replica away; return how many requests are lost."""
    replica = fleet.replicas[slot]
    if replica["state"] == SERVING:
        leave(fleet, slot, now)
    count = 0
    for which in (BATCH, QUEUE, FRONT):
        while fleet.lists[slot, which, 0] != NONE:
            index = fleet.lists[slot, which, 0]
            drop(fleet, speed, slot, index, now)
            append(fleet, GATEWAY, LOST, index)
            count += 1
    note_gone(fleet, slot, now)
    forget(fleet, slot)
    return count


@compiled
def _take_lost(fleet: Fleet, speed: Speed, lost: Integers, seconds: Floats) -> None:
    """Move the requests that are lost from their list to an array of as many, and say how long a front end has each."""
    for place in range(len(lost)):
        lost[place] = fleet.lists[GATEWAY, LOST, 0]
        remove(fleet, GATEWAY, LOST, lost[place])
        if fleet.bounds[SERVING_COUNT] > 0:
            seconds[place] = front_end_seconds(fleet, speed, fleet.live[0], lost[place])


@compiled
def _send_again(fleet: Fleet, speed: Speed, lost: Integers, asks: int, now: float) -> None:
    for place in range(len(lost)):
        index = lost[place]
        if math.isnan(fleet.requests[index]["first"]):
            route(fleet, speed, index, now)
        elif fleet.requests[index]["asks"] < asks:
            ask(fleet, speed, index, now)
        else:
            fleet.requests[index]["state"] = REFUSED


@compiled
def forget(fleet: Fleet, slot: int) -> None:
    """Free the place of a replica that is gone."""
    bounds, live = fleet.bounds, fleet.live
    bounds[LIVE_COUNT] -= 1
    last = bounds[LIVE_COUNT]
    for place in range(last):
        if live[place] == slot:
            live[place] = live[last]
            live[last] = slot
    fleet.replicas[slot]["state"] = FREE
    fleet.due[slot] = math.inf


@compiled
def settle_all(fleet: Fleet, now: float) -> None:
    """Bring the levels to a time up to which everything has been played."""
    for place in range(fleet.bounds[LIVE_COUNT]):
        settle(fleet, fleet.live[place], now)


@compiled
def tokens_held(fleet: Fleet, slot: int, now: float) -> int:
    """Return the tokens in a replica's cache now, those of the steps done of its run included."""
    replica = fleet.replicas[slot]
    held = replica["held"]
    if replica["run_steps"] > 1 and now > replica["run_start"]:
        first, growth = replica["run_first"], replica["run_growth"]
        half, seconds = first - growth / 2, now - replica["run_start"]
        steps = seconds / first
        if growth > 0:
            steps = 2 * seconds / (math.sqrt(half * half + 2 * growth * seconds) + half)
        held += min(int(steps), replica["run_steps"]) * replica["decoding"]
    return int(held)


@compiled
def _least_requests(fleet: Fleet) -> int:
    best, least, ties = NONE, 2**31, 0
    for place in range(fleet.bounds[SERVING_COUNT]):
        slot = fleet.live[place]
        count = fleet.active[slot]
        if count < least:
            best, least, ties = slot, count, 1
        elif count == least:
            ties += 1
            # Each of n equals is taken with probability 1 / n.
            if _chance(fleet.meters) % ties == 0:
                best = slot
    return best


@compiled
def _chance(meters: Meters) -> int:
    """Return the next of a sequence of random numbers (xorshift64*, https://doi.org/10.1145/2845077)."""
    state = meters.chance[0]
    state ^= state >> np.uint64(12)
    state ^= state << np.uint64(25)
    state ^= state >> np.uint64(27)
    meters.chance[0] = state
    return int((state * np.uint64(2685821657736338717)) >> np.uint64(33))


@compiled
def _give_up(fleet: Fleet, speed: Speed, index: int, asks: int, now: float) -> None:
    """Let a client whose patience is over leave, or ask again."""
    request = fleet.requests[index]
    slot = request["replica"]
    if request["state"] == HELD:
        remove(fleet, GATEWAY, WAITING, index)
        shift(fleet.meters, HELD_LEVEL, -1.0, now)
    elif request["state"] < REFUSED:
        drop(fleet, speed, slot, index, now)
        note_gone(fleet, slot, now)
    else:
        return
    if request["asks"] < asks:
        ask(fleet, speed, index, now)
    else:
        request["state"] = ABANDONED
