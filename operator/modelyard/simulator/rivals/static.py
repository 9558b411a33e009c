"""Fixed sizes: for the peak, for the mean; and the lower bound that no rule with a start time can reach.

Both sizes need the whole trace, so they are hindsight: what a careful operator would set after the fact.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from modelyard.simulator.rivals.common import ROUNDING, round_up
from modelyard.simulator.scenario import Arrivals, Scenario, Signals

PEAK_WINDOW = 600.0
"""Seconds over which the peak rate is averaged."""

BOUND_PERIOD = 60.0
"""Seconds for which the lower bound holds a count."""

Basis = Literal["peak", "mean"]


@dataclass(frozen=True, slots=True)
class StaticSettings:
    """How a fixed size is found."""

    basis: Basis = "peak"
    utilization: float = 1.0
    """Share of a replica's capacity that is used at that rate."""


class Static:
    """A fixed number of replicas."""

    def __init__(self, name: str, scenario: Scenario, replicas: int) -> None:
        """`replicas` are kept within the scenario's bounds."""
        self._name = name
        self.replicas = min(max(replicas, scenario.minimum), max(scenario.maximum, scenario.minimum))

    @property
    def name(self) -> str:
        """Name in reports."""
        return self._name

    @property
    def interval(self) -> float:
        """Seconds between two decisions; they are all the same."""
        return BOUND_PERIOD

    def decide(self, signals: Signals) -> int:  # noqa: ARG002 - the protocol's signature
        """Return the replicas wanted."""
        return self.replicas


def static(name: str, scenario: Scenario, settings: StaticSettings) -> Static:
    """Return the fixed size for the peak or for the mean rate of a trace."""
    rate = peak_rate(scenario.arrivals) if settings.basis == "peak" else mean_rate(scenario.arrivals)
    return Static(name, scenario, round_up(rate / (scenario.capacity * settings.utilization)))


def mean_rate(arrivals: Arrivals) -> float:
    """Return the requests per second over the whole trace."""
    return len(arrivals) / arrivals.duration if arrivals.duration > 0 else 0.0


def peak_rate(arrivals: Arrivals, window: float = PEAK_WINDOW) -> float:
    """Return the most requests per second in any `window` seconds; of a shorter trace, its mean."""
    if arrivals.duration <= window or not len(arrivals):
        return mean_rate(arrivals)
    # Some busiest window starts at an arrival.
    ends = np.searchsorted(arrivals.time, arrivals.time + window, side="left")
    return float(np.max(ends - np.arange(len(arrivals)))) / window


def zero_lead_replica_seconds(scenario: Scenario, period: float = BOUND_PERIOD) -> float:
    """Return the replica-seconds of a planner that knows this minute's arrivals and starts replicas in no time.

    Computed on the arrivals alone: each minute, the fewest whole replicas (no fewer than the scenario's minimum)
    whose capacity is the minute's mean rate. Nothing is queued from one minute to the next, nothing billed for
    starting or draining. The scenario's maximum does not apply: it is a bound, not a plan.
    """
    arrivals = scenario.arrivals
    if arrivals.duration <= 0:
        return 0.0
    edges = np.append(np.arange(0.0, arrivals.duration, period), arrivals.duration)
    counts, _ = np.histogram(arrivals.time, bins=edges)
    lengths = np.diff(edges)
    needed = np.ceil(counts / lengths / scenario.capacity - ROUNDING)
    return float(np.sum(np.maximum(needed, scenario.minimum) * lengths))
