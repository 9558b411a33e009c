"""The cheapest schedule of replicas for given misses, by dynamic programming, and the policy that follows it."""

import math
from dataclasses import dataclass

import numba
import numpy as np

from modelyard.simulator.scenario import Floats, Integers, Scenario, Signals

PERIOD = 60.0
"""Seconds for which it holds a number of replicas."""


class Schedule:
    """A policy that follows a plan: how many replicas serve in each period."""

    name = "clairvoyant"

    def __init__(self, serving: Integers, lead: float, period: float = PERIOD) -> None:
        """`lead`: seconds that a start is reckoned to take."""
        self.serving = serving
        self._lead = lead
        self._period = period
        # A start must be due at a decision: every divisor of both the period and the lead does.
        self.interval = float(math.gcd(round(period), max(1, round(lead))) if lead else period)

    def decide(self, signals: Signals) -> int:
        """Return the most that serve from now until what starts now serves.

        Fewer in between would be drained only to be started again, and starting takes longer than they are away.
        """
        last = len(self.serving) - 1
        first = min(int(signals.time / self._period + 1e-6), last)
        end = min(int((signals.time + self._lead) / self._period + 1e-6), last)
        return int(self.serving[first : end + 1].max())


@dataclass(frozen=True, slots=True)
class Misses:
    """How many requests of each period miss with each number of replicas: rows are periods."""

    counts: Integers
    """Numbers of replicas, rising."""
    table: Floats
    """Infinite: not to be chosen."""


def schedule_for(scenario: Scenario, misses: Misses, price: float, lead: float) -> tuple[Integers, float]:
    """Return the schedule that is cheapest with so many replica-seconds for each miss, and its misses.

    Dynamic programming over periods and numbers of replicas. A replica more costs a start, one fewer what it takes to
    drain. Before the first start can be over, there are at most the initial replicas.
    """
    counts = misses.counts
    more = counts[None, :] - counts[:, None]
    drain = min(scenario.drain, drain_seconds(scenario))
    change = np.where(more > 0, more * lead, -more * drain)
    late = np.where(more > 0, np.inf, change)
    first = Schedule(counts, lead).interval
    value = np.where(counts == min(max(scenario.initial, counts[0]), counts[-1]), 0.0, np.inf)
    before = np.zeros(misses.table.shape, dtype=np.int64)
    held: Floats = counts.astype(np.float64) * PERIOD
    stuck = _fill_table(misses.table, held, change, late, value, before, price, lead + first, PERIOD)
    if stuck >= 0:
        raise ValueError(f"{scenario.name}: no number of replicas may be chosen in period {stuck}")
    place = np.empty(len(before), dtype=np.int64)
    place[-1] = int(np.argmin(value))
    for period in range(len(before) - 1, 0, -1):
        place[period - 1] = before[period, place[period]]
    return counts[place], float(misses.table[np.arange(len(place)), place].sum())


@numba.njit(cache=True)
def _fill_table(
    missed: Floats, held: Floats, change: Floats, late: Floats, value: Floats, before: Integers, price: float,
    first: float, seconds: float,
) -> int:  # fmt: skip
    """Go through all periods of so many seconds; return the first in which nothing may be chosen, or -1.

    `value` becomes the cost up to the last period, `before` the choice in the period before that leads to each choice.
    `held`: replica-seconds of each number in a period; `change`, `late`: those of each change of it, the latter while
    nothing that starts can serve yet, before `first`.
    """
    numbers = len(value)
    least = np.empty(numbers)
    for number in range(numbers):
        least[number] = late[number].min()
    for period in range(len(missed)):
        costs = change
        # A measured table may not hold what there is at first; then the start is free to choose.
        if period * seconds < first and np.isfinite(value + least).any():
            costs = late
        latest = np.empty(numbers)
        able = False
        for number in range(numbers):
            best = 0
            total = value[0] + costs[0, number]
            for other in range(1, numbers):
                cost = value[other] + costs[other, number]
                if cost < total:
                    best, total = other, cost
            before[period, number] = best
            lost = missed[period, number]
            latest[number] = (total + held[number]) + (math.inf if math.isinf(lost) else price * lost)
            able = able or math.isfinite(latest[number])
        value[:] = latest
        if not able:
            return period
    return -1


def drain_seconds(scenario: Scenario) -> float:
    """Return about how long a leaving replica takes to answer what it has: the mean answer, three times."""
    return 3 * float(np.mean(scenario.arrivals.output_tokens)) * scenario.objective.inter_token / 2
