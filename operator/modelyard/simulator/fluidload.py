"""Load as a flow: mean rate and lengths per time step, for runs of many days."""

from dataclasses import dataclass, replace

import numpy as np

from modelyard.simulator.loadstats import count_per_window
from modelyard.simulator.scenario import Arrivals, Floats

FLUID_STEP = 10.0
"""Seconds."""


@dataclass(frozen=True, slots=True)
class FluidLoad:
    """Mean rate and mean lengths in consecutive steps. All arrays have the same length."""

    step: float
    """Seconds of one step."""
    rate: Floats
    """Requests per second."""
    input_tokens: Floats
    """Mean tokens of a prompt; where nothing arrives, the last mean before (at the start: the first one after)."""
    output_tokens: Floats
    name: str = ""

    def __len__(self) -> int:
        return len(self.rate)

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.step * len(self.rate)

    @property
    def requests(self) -> float:
        """Requests that the load stands for."""
        return float(self.rate.sum() * self.step)


def scale_fluid(load: FluidLoad, factor: float) -> FluidLoad:
    """Return the load at `factor` times the rate. Raises ValueError if it is negative or not finite."""
    if not 0 <= factor < np.inf:
        raise ValueError(f"a factor must be 0 or more, not {factor}")
    return replace(load, rate=load.rate * factor)


def to_fluid(arrivals: Arrivals, step: float = FLUID_STEP) -> FluidLoad:
    """Return the mean rate and lengths that these requests show in each whole step.

    Raises ValueError if no whole step fits or none holds a request.
    """
    counts = count_per_window(arrivals, step)
    if not counts.any():
        raise ValueError(f"{arrivals.name or 'the trace'} has no requests in whole steps of {step} s")
    edges = np.concatenate([[0], np.cumsum(counts)])
    return FluidLoad(
        step=step,
        rate=counts / step,
        input_tokens=fill_gaps(_means(arrivals.input_tokens, edges)),
        output_tokens=fill_gaps(_means(arrivals.output_tokens, edges)),
        name=arrivals.name,
    )


def fill_gaps(values: Floats) -> Floats:
    """Return the values with each NaN replaced by the last number before it, or the first one after.

    Raises ValueError if all are NaN.
    """
    known = np.flatnonzero(~np.isnan(values))
    if not len(known):
        raise ValueError("no value is known")
    last = np.searchsorted(known, np.arange(len(values)), side="right") - 1
    return values[known[np.maximum(last, 0)]]


def _means(tokens: np.ndarray, edges: np.ndarray) -> Floats:
    totals = np.concatenate([[0], np.cumsum(tokens)])[edges]
    counts = np.diff(edges)
    means = np.full(len(counts), np.nan)
    np.divide(np.diff(totals), counts, out=means, where=counts > 0)
    return means
