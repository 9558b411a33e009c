"""Loads that recur: what came one period ago is foretold again, as far as the load follows it.

The offered load of the last hours is kept in cells of half a minute. A period is a lag at which the load resembles
itself: a peak of the autocorrelation, behind a valley. Such peaks are common by chance, so they are only looked at.
What a period is worth is told by regression: by how much the changes that it foretold beyond the slopes explain the
forecast errors that the slopes left. It counts from where that stands out from chance, and fully where it is certain;
errors of the last period count most, so that a load that stops to recur is soon forecast by the slopes alone again.
Without a period that counts, forecasts are exactly those of the slopes.
"""

import math
import struct
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

CELL = 30.0
"""Seconds. A quarter of a usual start: what begins a cell earlier than foretold waits no longer than that."""
KEPT = 480
"""Cells, four hours: a load that comes each two hours has been there twice. 8 KiB for a deployment."""
UNKNOWN = -math.inf
"""A forecast that nobody made. Not NaN, which equals not even itself."""
_BYTES = 8
"""Of a number."""


@dataclass(frozen=True, slots=True)
class RecurrencePolicy:
    """How a period is found, and when it counts."""

    every: float = 120.0
    """Seconds between two searches. Each takes about half a millisecond."""
    starts: float = 4.0
    """Start times of the shortest period. Of a shorter one there is no trough in which replicas could be let go: those
    that leave have to be asked for again within one start."""
    shortest: float = 300.0
    """Seconds, of the shortest period where starts are quicker: ten cells."""
    kept: float = 0.75
    """Share of the shortest period down to which one that was found is kept: measured starts vary."""
    better: float = 1.05
    """Times what a period explains that another one must explain to replace it: a load that recurs does so after two
    periods as well, and the shorter one is forgotten sooner when it stops."""
    resemblance: float = 0.5
    """Autocorrelation from which a lag is looked at: half of the variance. Whether it counts is not decided by it."""
    significance: float = 3.0
    """Standard errors below which what a period explains counts as chance: 99.7 % of a normal distribution. More than
    for a slope, since a period is the best of many lags."""
    looks: float = 4.0
    """Independent looks in one period: the autocorrelation of a sinusoid is zero after a quarter of its period."""
    overlap: float = 0.5
    """Periods that must have come again before one counts."""
    memory: float = 1.0
    """Periods, time constant after which what a period explained is forgotten."""
    reach: float = 3.0
    """Periods that are looked at, at most: of older ones less than a twentieth would be left."""
    windows: tuple[int, ...] = (120, 240, 480)
    """Cells that a period is searched in: one, two and four hours, so that a new period need not outweigh all of the
    old one."""
    growth: float = 2.0
    """By which the load's level may differ from that of one period before, at most: more is another load."""
    hole: float = 600.0
    """Seconds without readings after which nothing of before counts. Shorter holes are filled with what comes next."""


@dataclass(frozen=True, slots=True)
class Recurrence:
    """What is known of one deployment's recurring load. Its size does not grow with time."""

    until: float = 0.0
    """Unix time up to which the load is known; 0: there is none."""
    loads: bytes = b""
    """Offered work in each full cell, in requests per second of the size that capacity stands for; oldest first,
    64-bit numbers."""
    foretold: bytes = b""
    """What the slopes alone had forecast for it one start before."""
    part: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Of the cell that is not full: seconds, and sums of both over them."""
    period: float = 0.0
    """Seconds; 0: none counts."""
    weight: float = 0.0
    """Share of the change foretold by the period that is believed, 0 to 1."""
    searched: float = 0.0
    """Unix time of the last search."""

    def mix(self, plain: float, time: float, policy: RecurrencePolicy) -> float:
        """Return the forecast for a time ahead, from that of the slopes. It never falls where that rises."""
        if self.weight <= 0.0:
            return plain
        loads = np.frombuffer(self.loads)
        end = self.until // CELL * CELL
        place = np.array([len(loads) - 0.5 + (time - end) / CELL])
        before = recall(loads, place, self.period / CELL, (time - self.until) / CELL, policy)
        return max(plain + self.weight * (float(before[0]) - plain), 0.0)

    def convert(self, factor: float) -> "Recurrence":
        """Return the state in requests of another size, of which one of the present size is worth so many."""
        seconds, load, foretold = self.part
        return replace(
            self,
            loads=(np.frombuffer(self.loads) * factor).tobytes(),
            foretold=(np.frombuffer(self.foretold) * factor).tobytes(),
            part=(seconds, load * factor, foretold * factor),
        )

    def take_in(
        self,
        start: float,
        end: float,
        offered: float,
        foretold: float | None,
        lead: float,
        policy: RecurrencePolicy,
    ) -> "Recurrence":
        """Return the state with one more bin. `foretold`: by the slopes, one start before; None: nothing was."""
        state = self
        if not state.until or not -CELL < start - state.until <= policy.hole:
            state = Recurrence(until=start, searched=start)
        if start > state.until:
            state = _fill(state, start, offered, UNKNOWN, lead, policy)
        return _fill(state, end, offered, UNKNOWN if foretold is None else foretold, lead, policy)


def _fill(
    state: Recurrence, end: float, offered: float, foretold: float, lead: float, policy: RecurrencePolicy
) -> Recurrence:
    """Return the state with the same load up to a moment."""
    while state.until < end:
        edge = (state.until // CELL + 1) * CELL
        upto = min(edge, end)
        width = upto - state.until
        seconds, load, sums = state.part
        seconds, load, sums = seconds + width, load + width * offered, sums + width * foretold
        state = replace(state, until=upto, part=(seconds, load, sums))
        if upto == edge:
            # The newest cell is not part of what is learned now: a higher load must not ask for fewer replicas.
            state = replace(
                _learn(state, lead, policy),
                loads=_append(state.loads, load / seconds),
                foretold=_append(state.foretold, sums / seconds),
                part=(0.0, 0.0, 0.0),
            )
    return state


def _learn(state: Recurrence, lead: float, policy: RecurrencePolicy) -> Recurrence:
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


def _append(cells: bytes, value: float) -> bytes:
    return (cells + struct.pack("d", value))[-KEPT * _BYTES :]


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
