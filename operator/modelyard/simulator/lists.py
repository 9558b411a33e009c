"""Lists of requests, linked through the requests themselves, and the heap of sequences that decode."""

import math

from modelyard.simulator.compiled import compiled
from modelyard.simulator.records import NONE, Fleet


@compiled
def append(fleet: Fleet, slot: int, which: int, index: int) -> None:
    """Put a request at a list's end."""
    tail = fleet.lists[slot, which, 1]
    insert_after(fleet, slot, which, tail, index)


@compiled
def insert_after(fleet: Fleet, slot: int, which: int, before: int, index: int) -> None:
    """Put a request behind another; NONE: at the list's head."""
    requests, ends = fleet.requests, fleet.lists
    after = ends[slot, which, 0] if before == NONE else requests[before]["next"]
    requests[index]["previous"] = before
    requests[index]["next"] = after
    if before == NONE:
        ends[slot, which, 0] = index
    else:
        requests[before]["next"] = index
    if after == NONE:
        ends[slot, which, 1] = index
    else:
        requests[after]["previous"] = index


@compiled
def remove(fleet: Fleet, slot: int, which: int, index: int) -> None:
    """Take a request out of the list that it is in."""
    requests, ends = fleet.requests, fleet.lists
    before, after = requests[index]["previous"], requests[index]["next"]
    if before == NONE:
        ends[slot, which, 0] = after
    else:
        requests[before]["next"] = after
    if after == NONE:
        ends[slot, which, 1] = before
    else:
        requests[after]["previous"] = before
    requests[index]["next"] = NONE
    requests[index]["previous"] = NONE


@compiled
def heap_push(fleet: Fleet, slot: int, finish: int, index: int) -> None:
    """Add a sequence that ends after the step `finish`."""
    finishes, members = fleet.heap_finish[slot], fleet.heap_request[slot]
    place = fleet.replicas[slot]["heap"]
    fleet.replicas[slot]["heap"] = place + 1
    while place > 0:
        parent = (place - 1) >> 1
        if finishes[parent] <= finish:
            break
        finishes[place] = finishes[parent]
        members[place] = members[parent]
        place = parent
    finishes[place] = finish
    members[place] = index


@compiled
def heap_take(fleet: Fleet, slot: int, place: int) -> int:
    """Take out the entry at a place, 0 for the sequence that ends first, and return its request."""
    finishes, members = fleet.heap_finish[slot], fleet.heap_request[slot]
    taken = members[place]
    size = fleet.replicas[slot]["heap"] - 1
    fleet.replicas[slot]["heap"] = size
    if place == size:
        return int(taken)
    finish, index = finishes[size], members[size]
    # The last entry moves into the hole: up, if it ends before the hole's parent, or down.
    while place > 0 and finishes[(place - 1) >> 1] > finish:
        parent = (place - 1) >> 1
        finishes[place] = finishes[parent]
        members[place] = members[parent]
        place = parent
    while True:
        child = 2 * place + 1
        if child >= size:
            break
        if child + 1 < size and finishes[child + 1] < finishes[child]:
            child += 1
        if finishes[child] >= finish:
            break
        finishes[place] = finishes[child]
        members[place] = members[child]
        place = child
    finishes[place] = finish
    members[place] = index
    return int(taken)


@compiled
def heap_remove(fleet: Fleet, slot: int, index: int) -> None:
    """Take a request out of the heap, wherever it is."""
    for place in range(fleet.replicas[slot]["heap"]):
        if fleet.heap_request[slot, place] == index:
            heap_take(fleet, slot, place)
            return


@compiled
def steps_until(first: float, growth: float, seconds: float) -> int:
    """Count the steps, at least one, whose end is the first at or after so many seconds.

    The first step takes `first` seconds and each further one `growth` more.
    """
    if seconds <= first:
        return 1
    half = first - growth / 2
    denominator = math.sqrt(half * half + 2 * growth * seconds) + half
    if denominator <= 0:
        return 2**30
    return math.ceil(2 * seconds / denominator - 1e-9)


@compiled
def seconds_of(first: float, growth: float, steps: int) -> float:
    """Return the seconds that so many steps take."""
    return steps * first + growth * steps * (steps - 1) / 2
