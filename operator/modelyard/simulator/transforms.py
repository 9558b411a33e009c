"""Changes to recorded or made arrivals: another rate, a slice, another speed, one after the other."""

from dataclasses import replace

import numpy as np

from modelyard.simulator.arrivals import Seed
from modelyard.simulator.loadstats import PEAK_WINDOW, peak_rate
from modelyard.simulator.scenario import Arrivals, Floats

JITTER = 1.0
"""Seconds. Copies of a request lie within this of the original: far below the 20 s over which bursts are measured."""


def scale_to_peak(
    arrivals: Arrivals, peak: float, seed: Seed, *, window: float = PEAK_WINDOW, jitter: float = JITTER
) -> Arrivals:
    """Return arrivals whose highest mean rate over one window is `peak` requests per second, but for chance.

    "N replicas" is a peak of N times one replica's capacity. A slice of a longer trace is scaled by `scale_rate`
    with the factor of the whole trace, whose peak may lie outside the slice.
    Raises ValueError for arrivals without any request, or a peak that is not positive.
    """
    present = peak_rate(arrivals, window)
    if present <= 0:
        raise ValueError(f"{arrivals.name or 'the trace'} has no requests to scale")
    if not 0 < peak < np.inf:
        raise ValueError(f"a peak must be positive, not {peak}")
    return scale_rate(arrivals, peak / present, seed, jitter=jitter)


def scale_rate(arrivals: Arrivals, factor: float, seed: Seed, *, jitter: float = JITTER) -> Arrivals:
    """Return arrivals at `factor` times the rate, as bursty as before.

    Down (factor below 1): every request is kept with that chance. The variance of counts beyond Poisson, relative to
    the square of their mean, stays as it is in expectation at every time scale.

    Up: every request comes `factor` times on the whole, the copies within `jitter` seconds of it and with its lengths,
    as if more users did the same. The relative spread of counts stays over times well above `jitter`; below, the
    copies smooth it. Independent copies of the whole trace would instead shrink it by the square root of the factor:
    a larger fleet would meet calmer traffic only because of how it was made.

    Raises ValueError for a factor or jitter that is negative or not finite.
    """
    if not 0 <= factor < np.inf:
        raise ValueError(f"a factor must be 0 or more, not {factor}")
    if not 0 <= jitter < np.inf:
        raise ValueError(f"a jitter must be 0 or more, not {jitter}")
    rng = np.random.default_rng(seed)
    whole = int(factor)
    copies = whole + (rng.random(len(arrivals)) < factor - whole)
    chosen = np.repeat(np.arange(len(arrivals)), copies)
    time = arrivals.time[chosen]
    if whole >= 1 and jitter > 0:
        moved = np.ones(len(chosen), dtype=np.bool_)
        # The first copy of each stays where it was recorded.
        moved[np.cumsum(copies) - copies] = False
        shifted = time[moved] + rng.uniform(-jitter, jitter, int(moved.sum()))
        time[moved] = _reflected(shifted, arrivals.duration)
        order = np.argsort(time, kind="stable")
        chosen, time = chosen[order], time[order]
    return _picked(arrivals, chosen, time)


def spread_ticks(arrivals: Arrivals, tick: float, seed: Seed) -> Arrivals:
    """Return arrivals whose times, recorded in ticks of this many seconds, are spread evenly over their tick.

    Mooncake's traces have ticks of 3 s: as they stand, every request of 3 s comes in one instant.
    Raises ValueError unless the tick is positive.
    """
    if not 0 < tick < np.inf:
        raise ValueError(f"a tick must be positive, not {tick}")
    time = arrivals.time + np.random.default_rng(seed).uniform(0, tick, len(arrivals))
    order = np.argsort(time, kind="stable")
    duration = max(arrivals.duration, float(arrivals.time[-1]) + tick) if len(arrivals) else arrivals.duration
    return replace(_picked(arrivals, order, time[order]), duration=duration)


def slice_time(arrivals: Arrivals, start: float, end: float) -> Arrivals:
    """Return the requests from `start` until before `end` (seconds), timed from `start`.

    Raises ValueError unless 0 <= start < end <= duration.
    """
    if not 0 <= start < end <= arrivals.duration:
        raise ValueError(f"a slice must lie within 0 to {arrivals.duration} s, not {start} to {end}")
    first, last = np.searchsorted(arrivals.time, [start, end], side="left")
    chosen = np.arange(first, last)
    return replace(_picked(arrivals, chosen, arrivals.time[first:last] - start), duration=end - start)


def speed_up(arrivals: Arrivals, factor: float) -> Arrivals:
    """Return the same requests in 1/`factor` of the time: rates rise by `factor`, and so does the pace of change.

    Raises ValueError unless the factor is positive.
    """
    if not 0 < factor < np.inf:
        raise ValueError(f"a speed must be positive, not {factor}")
    return replace(arrivals, time=arrivals.time / factor, duration=arrivals.duration / factor)


def concatenate(*parts: Arrivals, name: str = "") -> Arrivals:
    """Return the parts one after the other. Raises ValueError without any."""
    if not parts:
        raise ValueError("nothing to concatenate")
    starts = np.cumsum([0.0, *(part.duration for part in parts)])
    return Arrivals(
        time=np.concatenate([part.time + start for part, start in zip(parts, starts[:-1], strict=True)]),
        input_tokens=np.concatenate([part.input_tokens for part in parts]),
        output_tokens=np.concatenate([part.output_tokens for part in parts]),
        cached_tokens=np.concatenate([part.cached_tokens for part in parts]),
        duration=float(starts[-1]),
        name=name or "+".join(part.name for part in parts),
    )


def _reflected(time: Floats, duration: float) -> Floats:
    """Fold times beyond either end back inside, so that the ends get their share."""
    folded = np.abs(time) % (2 * duration)
    inside = np.where(folded >= duration, 2 * duration - folded, folded)
    return np.minimum(inside, np.nextafter(duration, 0))


def _picked(arrivals: Arrivals, chosen: np.ndarray, time: Floats) -> Arrivals:
    return replace(
        arrivals,
        time=time,
        input_tokens=arrivals.input_tokens[chosen],
        output_tokens=arrivals.output_tokens[chosen],
        cached_tokens=arrivals.cached_tokens[chosen],
    )
