"""Periods of a load: which there are, and what each is worth (`core/scaling/recurrence.py`). Times are in cells."""

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from modelyard.core.scaling.recurrence import CELL, Recurrence, RecurrencePolicy

Floats = NDArray[np.float64]


def learn(state: Recurrence, lead: float, policy: RecurrencePolicy) -> Recurrence:
    """Return the state with what the full cells say."""
    loads, foretold = np.frombuffer(state.loads), np.frombuffer(state.foretold)
    shortest = max(policy.starts * lead, policy.shortest)
    period, weight, gain, searched = state.period, 0.0, 0.0, state.searched
    if period > policy.kept * shortest:
        weight, gain = weigh(loads, foretold, period, lead, policy)
    if state.until - searched >= policy.every:
        searched = state.until
        for other in find_periods(loads, shortest, policy):
            found, better = weigh(loads, foretold, other, lead, policy)
            if better > policy.better * gain:
                period, weight, gain = other, found, better
    return replace(state, period=period if weight > 0.0 else 0.0, weight=weight, searched=searched)


def recall_at(state: Recurrence, time: float, policy: RecurrencePolicy) -> float:
    """Return the load one period before a time ahead, in Unix seconds, at the level that is known now."""
    loads = np.frombuffer(state.loads)
    end = state.until // CELL * CELL
    place = np.array([len(loads) - 0.5 + (time - end) / CELL])
    before = recall(loads, place, state.period / CELL, (time - state.until) / CELL, policy)
    return float(before[0])


def recall(loads: Floats, places: Floats, lag: float, lead: float, policy: RecurrencePolicy) -> Floats:
    """Return the load one period before some moments, at the level that was known `lead` before them.

    All in cells; the middle of the oldest is 0. The level is that of up to one period over that of the one before. Only
    the root of their ratio counts: half of a difference, since one large burst among small ones makes one too.
    """
    cells = np.arange(len(loads))
    before = np.interp(places - lag, cells, loads)
    sums, edges = np.concatenate([[0.0], np.cumsum(loads)]), np.arange(len(loads) + 1)
    known = places - lead + 0.5
    first = np.maximum(known - lag, lag)
    late = np.interp(known, edges, sums) - np.interp(first, edges, sums)
    early = np.interp(known - lag, edges, sums) - np.interp(first - lag, edges, sums)
    comparable = (known - first >= lag * policy.overlap) & (early > 0.0)
    ratio = np.where(comparable, late / np.where(comparable, early, 1.0), 1.0)
    level: Floats = before * np.sqrt(np.clip(ratio, 1.0 / policy.growth, policy.growth))
    return level


def weigh(
    loads: Floats, foretold: Floats, period: float, lead: float, policy: RecurrencePolicy
) -> tuple[float, float]:
    """Return the weight of a period, and the share of the slopes' squared errors that it explains, both 0 to 1.

    Least squares through zero of the errors over the changes that the period foretold, less the doubt: the squared
    ratio of the weight's standard error to the weight, times that of chance (positive-part shrinkage).
    """
    lag = period / CELL
    total = len(loads)
    count = min(total - math.ceil(lag), int(policy.reach * lag))
    if count < policy.overlap * lag:
        return 0.0, 0.0
    now, plain = loads[total - count :], foretold[total - count :]
    told = plain >= 0.0
    age = np.arange(count - 1, -1, -1)
    share = np.where(told, np.exp(-age / (policy.memory * lag)), 0.0)
    plain = np.where(told, plain, 0.0)
    places = np.arange(total - count, total, dtype=np.float64)
    came = now - plain
    change = recall(loads, places, lag, lead / CELL, policy) - plain
    both = float(share @ (came * change))
    squares, errors = float(share @ (change * change)), float(share @ (came * came))
    looks = float(share.sum()) / lag * policy.looks
    if both <= 0.0 or looks <= 1.0:
        return 0.0, 0.0
    explained = min(both / squares * both / errors, 1.0)
    doubt = policy.significance**2 * (1.0 - explained) / (explained * (looks - 1.0))
    trust = max(1.0 - doubt, 0.0)
    return min(both / squares, 1.0) * trust, explained * trust


def find_periods(loads: Floats, shortest: float, policy: RecurrencePolicy) -> list[float]:
    """Return periods, in seconds, at which the load resembles itself, the shortest first; none is under `shortest`."""
    found: list[float] = []
    for number, window in enumerate(policy.windows):
        if number and len(loads) <= policy.windows[number - 1]:
            break
        for period in _find_peaks(loads[-window:], shortest, policy):
            if all(abs(period - other) >= CELL / 2 for other in found):
                found.append(period)
    return sorted(found)


def _find_peaks(loads: Floats, shortest: float, policy: RecurrencePolicy) -> list[float]:
    """Return the two lags, in seconds, at which the load resembles itself most."""
    least, most = math.ceil(shortest / CELL), int(len(loads) / (1.0 + policy.overlap))
    if most <= least + 1:
        return []
    same = autocorrelation(loads, most)
    valley = np.minimum.accumulate(same)
    tops = np.arange(least, most)
    high = same[tops]
    # What falls slowly resembles itself at every short lag. What recurs does not in between.
    tops = tops[
        (high >= same[tops - 1])
        & (high > same[tops + 1])
        & (high >= policy.resemblance)
        & (valley[tops] <= high / 2)
    ]
    best = sorted(tops.tolist(), key=lambda top: -same[top])[:2]
    return [_summit(same, top) * CELL for top in best]


def _summit(values: Floats, top: int) -> float:
    """Return the place of the top of the parabola through a highest value and its neighbours."""
    before, here, after = values[top - 1 : top + 2].tolist()
    return float(top + 0.5 * (before - after) / (before - 2.0 * here + after))


def autocorrelation(values: Floats, most: int) -> Floats:
    """Return the correlation of values with those so many places before, for 0 to `most`; 0 where nothing varies.

    A straight line is taken away first: a load that only grows resembles itself at every lag.
    """
    count = len(values)
    place = np.arange(count) - (count - 1) / 2
    level = values - values.mean()
    level = level - place * float(place @ level) / float(place @ place)
    size = 1 << (2 * count - 1).bit_length()
    spectrum = np.fft.rfft(level, size)
    products = np.fft.irfft(spectrum * spectrum.conj(), size)[: most + 1]
    sums = np.concatenate([[0.0], np.cumsum(level)])
    squares = np.concatenate([[0.0], np.cumsum(level * level)])
    lags = np.arange(most + 1)
    pairs = count - lags
    late, early = sums[count] - sums[lags], sums[pairs]
    spread = squares[count] - squares[lags] - late**2 / pairs
    spread = np.maximum(spread, 0.0) * np.maximum(squares[pairs] - early**2 / pairs, 0.0)
    # Rounding leaves something of a load that does not vary.
    varies = spread > (1e-9 * float(values @ values)) ** 2
    shared = products - late * early / pairs
    result: Floats = np.where(varies, shared / np.sqrt(np.where(varies, spread, 1.0)), 0.0)
    return result
