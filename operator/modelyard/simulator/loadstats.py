"""Statistics of arrivals: rates, peak and burstiness."""

import numpy as np

from modelyard.simulator.scenario import Arrivals, Floats, Integers

PEAK_WINDOW = 600.0
"""Seconds. The peak of a load is its highest mean rate over one window of ten minutes, counted from the start."""
BURST_WINDOW = 20.0
"""Seconds over which bursts are measured unless told otherwise."""


def count_per_window(arrivals: Arrivals, window: float) -> Integers:
    """Return the requests of each whole window from the start; what is left at the end does not count.

    Raises ValueError unless the window is positive.
    """
    if not 0 < window < np.inf:
        raise ValueError(f"a window must be positive, not {window}")
    # A duration that is a multiple of the window but for rounding holds that many windows.
    windows = int(arrivals.duration / window + 1e-9)
    edges = window * np.arange(windows + 1)
    return np.diff(np.searchsorted(arrivals.time, edges, side="left"))


def rate_per_window(arrivals: Arrivals, window: float = PEAK_WINDOW) -> Floats:
    """Return requests per second in each whole window."""
    return count_per_window(arrivals, window) / window


def peak_rate(arrivals: Arrivals, window: float = PEAK_WINDOW) -> float:
    """Return the highest mean rate over one window; the mean over all of a trace shorter than a window."""
    rates = rate_per_window(arrivals, window)
    return float(rates.max()) if len(rates) else len(arrivals) / arrivals.duration


def index_of_dispersion(arrivals: Arrivals, window: float = BURST_WINDOW) -> float:
    """Return variance over mean of the counts per window: 1 for Poisson, NaN without two windows or any request."""
    counts = count_per_window(arrivals, window)
    if len(counts) < 2 or not counts.any():
        return float("nan")
    return float(counts.var(ddof=1) / counts.mean())


def gap_cv(arrivals: Arrivals) -> float:
    """Return standard deviation over mean of the times between arrivals; NaN where there is none."""
    gaps = np.diff(arrivals.time)
    if len(gaps) < 2 or not gaps.any():
        return float("nan")
    return float(gaps.std(ddof=1) / gaps.mean())


def excess_cv(arrivals: Arrivals, window: float = BURST_WINDOW, trend: float | None = None) -> float:
    """Return the spread of the rate beyond what Poisson arrivals show: sqrt(variance - mean) / mean of the counts.

    With `trend` (seconds, a multiple of `window`), counts are measured against the mean of their own stretch of that
    length, so that the change of load over the day is left out; stretches weigh by their requests.
    0 where counts spread no more than Poisson, NaN without two windows or any request.
    Raises ValueError if `trend` is no multiple of the window, two at least.
    """
    counts = count_per_window(arrivals, window)
    per_stretch = len(counts)
    if trend is not None:
        per_stretch = round(trend / window)
        if per_stretch < 2 or not np.isclose(per_stretch * window, trend):
            raise ValueError(f"a trend of {trend} s is no multiple of a window of {window} s")
    stretches = len(counts) // per_stretch if per_stretch >= 2 else 0
    table = counts[: stretches * per_stretch].reshape(stretches, per_stretch) if stretches else counts[:0]
    if not table.any():
        return float("nan")
    mean, variance = table.mean(axis=1), table.var(axis=1, ddof=1)
    busy = mean > 0
    relative = (variance[busy] - mean[busy]) / mean[busy] ** 2
    return float(np.sqrt(max(0.0, np.average(relative, weights=mean[busy]))))


def autocorrelation(values: Floats, lag: int) -> float:
    """Return the correlation of a series with itself `lag` samples later; NaN where either part is constant.

    Raises ValueError unless the lag is at least 1 and leaves two samples.
    """
    if not 1 <= lag <= len(values) - 2:
        raise ValueError(f"a lag of {lag} does not fit {len(values)} samples")
    early, late = values[:-lag], values[lag:]
    if np.ptp(early) == 0 or np.ptp(late) == 0:
        return float("nan")
    return float(np.corrcoef(early, late)[0, 1])
