"""How long the last replica is kept without a request: what keeping costs against what waking would.

The gaps between requests that this deployment has seen say how likely the next one is to come within a time. Kept for
`t` seconds, a gap `g` costs min(g, t) replica-seconds and, if it is longer, the penalty of waking; the `t` of the
lowest mean is taken. Without enough gaps the user's `idleAfter` stands, which is also never exceeded: at its default it
is the break-even of a usual start, which costs at most twice what hindsight would have (Karlin, Manasse, Rudolph and
Sleator, Algorithmica 3, 1988: the ski rental problem).
"""

import math
from dataclasses import dataclass

SHORTEST = 8.0
"""Seconds. Shorter gaps are not told apart: readings come every few seconds."""
BUCKETS = 16
"""Each twice as long as the one before: the last begins at 36 hours."""
ENOUGH = 10.0
"""Gaps before their distribution is believed: a tenth of them is then one."""
FORGETTING = 0.98
"""What the gaps before count for after each new one: the newest 50 decide."""
WAITING_WEIGHT = 4.0
"""Replica-seconds that a second of a request's wait for a start counts for, beside the start's own: with a start of
120 s the penalty is 600 s, the default of `idleAfter`."""


@dataclass(frozen=True, slots=True)
class GapMemory:
    """Gaps between requests, by length."""

    counts: tuple[float, ...] = (0.0,) * BUCKETS
    newest: float | None = None
    """Unix time of the newest request."""


def observe_gap(memory: GapMemory, arrival: float | None) -> GapMemory:
    """Return the memory with the newest arrival known, Unix time, taken in."""
    if arrival is None or (memory.newest is not None and arrival <= memory.newest):
        return memory
    if memory.newest is None or arrival - memory.newest < SHORTEST:
        return GapMemory(memory.counts, arrival)
    bucket = min(int(math.log2((arrival - memory.newest) / SHORTEST)), BUCKETS - 1)
    counts = [count * FORGETTING for count in memory.counts]
    counts[bucket] += 1.0
    return GapMemory(tuple(counts), arrival)


def keep_time(memory: GapMemory, start_time: float, idle_after: float) -> float:
    """Return the seconds without a request after which the last replica goes: from one start time to `idle_after`."""
    total = math.fsum(memory.counts)
    if total < ENOUGH or idle_after <= start_time:
        return idle_after
    penalty = start_time * (1.0 + WAITING_WEIGHT)
    edges = [SHORTEST * 2.0**number for number in range(BUCKETS)]
    choices = [start_time, *(edge for edge in edges if start_time < edge < idle_after), idle_after]

    def cost(kept: float) -> float:
        # A gap counts with the geometric middle of its bucket.
        lengths = [edge * math.sqrt(2.0) for edge in edges]
        return math.fsum(
            count * (length if length <= kept else kept + penalty)
            for count, length in zip(memory.counts, lengths, strict=True)
        )

    # Of equal costs the longer time: nobody waits for nothing gained.
    return min(choices, key=lambda kept: (cost(kept), -kept))
