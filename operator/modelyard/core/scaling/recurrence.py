"""Loads that recur: what came one period ago is foretold again, as far as the load follows it.

The offered load of the last hours is kept in cells of half a minute. A period is a lag at which the load resembles
itself: a peak of the autocorrelation, behind a valley. Such peaks are common by chance, so they are only looked at.
What a period is worth is told by regression: by how much the changes that it foretold beyond the slopes explain the
forecast errors that the slopes left. It counts from where that stands out from chance, and fully where it is certain;
errors of the last period count most, so that a load that stops to recur is soon forecast by the slopes alone again.
Without a period that counts, forecasts are exactly those of the slopes.

The sums are in `core/scaling/periods.py`, which is only imported where there is a load: commands that look at a status
need no NumPy.
"""

import math
import struct
from array import array
from dataclasses import dataclass, replace

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
        from modelyard.core.scaling.periods import recall_at

        before = recall_at(self, time, policy)
        return max(plain + self.weight * (before - plain), 0.0)

    def convert(self, factor: float) -> "Recurrence":
        """Return the state in requests of another size, of which one of the present size is worth so many."""
        seconds, load, foretold = self.part
        return replace(
            self,
            loads=_scale(self.loads, factor),
            foretold=_scale(self.foretold, factor),
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
    from modelyard.core.scaling.periods import learn

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
                learn(state, lead, policy),
                loads=_append(state.loads, load / seconds),
                foretold=_append(state.foretold, sums / seconds),
                part=(0.0, 0.0, 0.0),
            )
    return state


def _append(cells: bytes, value: float) -> bytes:
    return (cells + struct.pack("d", value))[-KEPT * _BYTES :]


def _scale(cells: bytes, factor: float) -> bytes:
    return array("d", (value * factor for value in array("d", cells))).tobytes()
