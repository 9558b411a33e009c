"""What a policy sees of a run: the gateway's, the engines' and the cluster's figures since its last look."""

from dataclasses import replace

import numpy as np

from modelyard.simulator.fleet import settle_all, tokens_held
from modelyard.simulator.records import (
    ASKED_INPUT,
    ASKED_OUTPUT,
    ASKS,
    BUSY,
    COMPLETED_INPUT,
    COMPLETED_OUTPUT,
    COMPLETIONS,
    FIRST_TOKENS,
    HELD_LEVEL,
    INTERVAL_BINS_PER_E,
    INTERVAL_SMALLEST,
    INTERVALS,
    LATE_FIRST_TOKENS,
    LIVE,
    QUEUED_LEVEL,
    RUNNING,
    SERVING_COUNT,
    SLOW_ANSWERS,
    Fleet,
    Speed,
)
from modelyard.simulator.scenario import Floats, Integers, Signals


class Reader:
    """Reads the meters of a run at the times of a policy's looks.

    Latencies between tokens come from a histogram whose bins are 0.5 % wide; they and tokens are counted when a run of
    equal steps ends, which new requests and completions end. All else is exact.
    """

    def __init__(self, current: Speed) -> None:
        self._cache_tokens = current.cache_tokens
        self._counter: Integers | None = None
        self._interval_seconds = 0.0

    def read(self, fleet: Fleet, now: float, ready: int, pending: int) -> Signals:
        """Read everything at a time up to which the fleet has been played, and start to count anew."""
        settle_all(fleet, now)
        meters = fleet.meters
        elapsed = now - float(meters.since[0])
        before = np.zeros_like(meters.counter) if self._counter is None else self._counter
        counted = meters.counter - before
        integral = meters.level * elapsed - meters.moment
        serving = fleet.live[: fleet.bounds[SERVING_COUNT]]
        held = np.array([tokens_held(fleet, int(slot), now) for slot in fleet.live[: fleet.bounds[1]]])
        usage = held[: len(serving)] / self._cache_tokens
        first = meters.first[: meters.first_count[0]]
        tokens = int(counted[INTERVALS])
        interval_seconds = float(meters.interval_seconds[0])
        level = meters.level
        signals = Signals(
            time=now,
            elapsed=elapsed,
            ready=ready,
            pending=pending,
            arrivals=int(counted[ASKS]),
            arrived_input_tokens=int(counted[ASKED_INPUT]),
            arrived_output_tokens=int(counted[ASKED_OUTPUT]),
            completions=int(counted[COMPLETIONS]),
            completed_input_tokens=int(counted[COMPLETED_INPUT]),
            completed_output_tokens=int(counted[COMPLETED_OUTPUT]),
            running=float(level[RUNNING]),
            waiting=float(level[QUEUED_LEVEL] + level[HELD_LEVEL]),
            gateway_waiting=float(level[HELD_LEVEL]),
            cache_usage=float(usage.mean()) if len(usage) else 0.0,
            cache_usage_max=float(usage.max()) if len(usage) else 0.0,
            tokens_held=float(held.sum()),
            mean_running=float(integral[RUNNING] / elapsed) if elapsed else float(level[RUNNING]),
            mean_waiting=float((integral[QUEUED_LEVEL] + integral[HELD_LEVEL]) / elapsed) if elapsed else 0.0,
            busy=float(integral[BUSY] / integral[LIVE]) if integral[LIVE] > 0 else 0.0,
            first_token_p90=float(np.quantile(first, 0.9)) if len(first) else None,
            inter_token_p90=_histogram_quantile(meters.intervals, 0.9) if tokens else None,
            inter_token_mean=(interval_seconds - self._interval_seconds) / tokens if tokens else None,
            first_token_mean=float(first.mean()) if len(first) else None,
            missed=_missed(counted),
        )
        self._counter = meters.counter.copy()
        self._interval_seconds = interval_seconds
        meters.moment[:] = 0.0
        meters.since[0] = now
        meters.first_count[0] = 0
        meters.intervals[:] = 0
        return signals


def unknown(last: Signals | None, now: float, ready: int) -> Signals:
    """Return what a policy gets while no reading comes: the last one, or nothing at all."""
    if last is not None:
        return replace(last, time=now, known=False)
    return Signals(
        time=now,
        elapsed=0.0,
        ready=ready,
        pending=0,
        arrivals=0,
        arrived_input_tokens=0,
        arrived_output_tokens=0,
        completions=0,
        completed_input_tokens=0,
        completed_output_tokens=0,
        running=0.0,
        waiting=0.0,
        gateway_waiting=0.0,
        cache_usage=0.0,
        cache_usage_max=0.0,
        tokens_held=0.0,
        mean_running=0.0,
        mean_waiting=0.0,
        busy=0.0,
        first_token_p90=None,
        inter_token_p90=None,
        inter_token_mean=None,
        first_token_mean=None,
        known=False,
    )


def _missed(counted: Integers) -> float:
    """Return the completions that missed: first tokens are late and answers slow for the same reason."""
    completions = int(counted[COMPLETIONS])
    late = float(counted[LATE_FIRST_TOKENS]) / max(int(counted[FIRST_TOKENS]), 1)
    slow = float(counted[SLOW_ANSWERS]) / max(completions, 1)
    return max(late, slow) * completions


def _histogram_quantile(bins: Integers, share: float) -> float:
    """Return the seconds below which a share of what the histogram counts lies."""
    cumulated = np.cumsum(bins)
    place = int(np.searchsorted(cumulated, share * cumulated[-1]))
    before = cumulated[place - 1] if place else 0
    inside = (share * cumulated[-1] - before) / max(bins[place], 1)
    return float(INTERVAL_SMALLEST * np.exp((place + inside) / INTERVAL_BINS_PER_E))


def quantiles(values: Floats, shares: tuple[float, ...]) -> Floats:
    """Return quantiles, NaN where there are no values."""
    return np.quantile(values, shares) if len(values) else np.full(len(shares), np.nan)
