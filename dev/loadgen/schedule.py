"""Turns a trace into requests with the times at which they go out."""

import math
import random
from collections.abc import Iterable
from dataclasses import dataclass

from dev.traces import Arrival

COPY_SPREAD_S = 1.0
"""Copies that a rate above 1 adds arrive up to this many trace seconds after the original: long enough not to
be a burst of their own, short enough to leave the shape of the load as it is."""


@dataclass(frozen=True, slots=True, order=True)
class PlannedRequest:
    """One request to send."""

    at_s: float
    """Seconds after the start of the run."""
    prompt_tokens: int
    output_tokens: int


def plan_requests(
    arrivals: Iterable[Arrival], *, speed: float = 1.0, scale_rate: float = 1.0, seed: int = 1
) -> list[PlannedRequest]:
    """Return the requests of a run in order.

    `speed` 2.5 plays ten minutes in four. `scale_rate` 0.5 leaves out every other arrival on average, 2 adds
    a copy of each; which ones is random and repeatable. Raises ValueError unless both are above 0.
    """
    if speed <= 0 or scale_rate <= 0:
        raise ValueError(f"speed ({speed}) and scale rate ({scale_rate}) must be above 0")
    chance = random.Random(seed)
    planned: list[PlannedRequest] = []
    for arrival in arrivals:
        whole = math.floor(scale_rate)
        copies = whole + (chance.random() < scale_rate - whole)
        for copy in range(copies):
            delay_s = chance.uniform(0, COPY_SPREAD_S) if copy else 0.0
            planned.append(
                PlannedRequest(
                    (arrival.at_s + delay_s) / speed,
                    max(1, arrival.prompt_tokens),
                    max(1, arrival.output_tokens),
                )
            )
    return sorted(planned)


def peak_rate(planned: Iterable[PlannedRequest], window_s: float = 10.0) -> float:
    """Return the highest arrivals per second in any of the consecutive windows of this length."""
    counts: dict[int, int] = {}
    for request in planned:
        window = int(request.at_s / window_s)
        counts[window] = counts.get(window, 0) + 1
    return max(counts.values(), default=0) / window_s
