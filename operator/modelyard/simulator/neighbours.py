"""Schedules near a schedule that may cost less, in the order in which they are worth a run of the simulator.

A run says how many misses there is room for; the flow says about how many a change would add. What it says only orders
the changes: whether one is taken, a run decides.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from modelyard.simulator.compiled import compiled_flow
from modelyard.simulator.flow import AttainmentCurve
from modelyard.simulator.fluidlevels import Pace
from modelyard.simulator.fluidload import FluidLoad
from modelyard.simulator.fluidsteps import advance_pooled
from modelyard.simulator.scenario import Floats, Integers

SAME_LEVEL = 0.5
"""Requests at a replica by which two courses of the flow may differ that go on as one."""
_LONGEST_RAISE = 8
"""Periods for which a replica is added at most, in exchange for one less elsewhere for longer."""
_EDGES_UP_TO = 2000
"""Periods up to which changes also begin and end where the schedule changes anyway: with 20,000 periods, 14 days, there
would be a million of them."""
_KEPT = 40
"""Changes of either kind that are put together in pairs."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a change of the schedule costs."""

    period: float
    """Seconds for which a number of replicas is held."""
    start: float
    """Seconds that are billed before a replica serves."""
    drain: float
    """Seconds that are billed after it has left."""
    least: int
    most: int
    initial: int
    """Replicas that serve before the first period."""

    def seconds(self, serving: Integers) -> float:
        """Return about the replica-seconds of a schedule."""
        change = np.diff(serving, prepend=self.initial)
        starts, stops = change[change > 0].sum(), -change[change < 0].sum()
        return float(serving.sum() * self.period + starts * self.start + stops * self.drain)


@dataclass(frozen=True, slots=True)
class Change:
    """One replica more or fewer in consecutive periods."""

    begin: int
    end: int
    by: int
    saved: float
    """Replica-seconds."""
    missed: float
    """Requests that miss more, as the flow sees it."""

    def apply(self, serving: Integers) -> Integers:
        """Return the changed schedule."""
        changed = serving.copy()
        changed[self.begin : self.end] += self.by
        return changed


@compiled_flow
def _course(
    serving: Integers, begin: int, end: int, level: float, known: Floats, missed: Floats, steps: int,
    rate: Floats, base: Floats, slope: Floats, output: Floats, limit: Floats, slow: Floats, step: float,
    objective: float, knots: Floats, shares: Floats, note: bool,
) -> float:  # fmt: skip
    """Play a schedule from a period on; return the misses beyond those known, up to where it goes on as it is known.

    `end`: the period from which the schedule is the known one. `note`: write down levels and misses instead.
    """
    more = 0.0
    before = serving[begin - 1] if begin > 0 else serving[0]
    for period in range(begin, len(serving)):
        if note:
            known[period] = level
        elif period > end and abs(level - known[period]) < SAME_LEVEL:
            break
        replicas = serving[period]
        if replicas > before > 0:
            level *= before / replicas
        before = replicas
        lost = 0.0
        for at in range(period * steps, min((period + 1) * steps, len(rate))):
            share = 0.0
            if replicas > 0:
                level, mean = advance_pooled(
                    level, rate[at] / replicas, base[at], slope[at], output[at], limit[at], step
                )
                ratio = (base[at] + slope[at] * mean + slow[at] * math.sqrt(mean)) / objective
                share = np.interp(ratio, knots, shares)
            lost += rate[at] * step * (1 - share)
        if note:
            missed[period] = lost
        else:
            more += lost - missed[period]
    return more


@compiled_flow
def _steady(
    replicas: int, missed: Floats, steps: int, rate: Floats, base: Floats, slope: Floats, output: Floats,
    limit: Floats, slow: Floats, step: float, objective: float, knots: Floats, shares: Floats,
) -> None:  # fmt: skip
    """Write the misses of each period with so many replicas in it and in the one before."""
    for period in range(len(missed)):
        level, lost = 0.0, 0.0
        last = len(rate) if period == len(missed) - 1 else (period + 1) * steps
        for at in range(max(0, (period - 1) * steps), min(last, len(rate))):
            share = 0.0
            if replicas > 0:
                level, mean = advance_pooled(
                    level, rate[at] / replicas, base[at], slope[at], output[at], limit[at], step
                )
                ratio = (base[at] + slope[at] * mean + slow[at] * math.sqrt(mean)) / objective
                share = np.interp(ratio, knots, shares)
            if at >= period * steps:
                lost += rate[at] * step * (1 - share)
        missed[period] = lost


def _arguments(
    load: FluidLoad, speed: Pace, curve: AttainmentCurve, inter_token: float, period: float
) -> tuple[int, Floats, Floats, Floats, Floats, Floats, Floats, float, float, Floats, Floats]:
    one = np.ones(len(load))
    slow = speed.slow_latency(one) - speed.latency(one)
    return (
        round(period / load.step), load.rate, speed.base, speed.slope, speed.output, speed.limit, slow, load.step,
        inter_token, curve.ratio, curve.share,
    )  # fmt: skip


def steady_misses(
    load: FluidLoad,
    speed: Pace,
    curve: AttainmentCurve,
    inter_token: float,
    replicas: int,
    period: float,
    periods: int,
) -> Floats:
    """Return the requests of each period that miss, as the flow sees it, with so many replicas in it and before it.

    What is unfinished at its beginning is what the period before would have left with the same replicas.
    """
    missed = np.zeros(periods)
    _steady(replicas, missed, *_arguments(load, speed, curve, inter_token, period))
    return missed


class Neighbours:
    """Finds changes of schedules under one load."""

    def __init__(
        self,
        load: FluidLoad,
        speed: Pace,
        curve: AttainmentCurve,
        inter_token: float,
        terms: Terms,
        periods: int,
    ) -> None:
        """`inter_token`: seconds of the objective."""
        self._terms = terms
        self._level, self._missed = np.zeros(periods), np.zeros(periods)
        self._flow = _arguments(load, speed, curve, inter_token, terms.period)

    def cheaper(self, serving: Integers, room: float) -> Iterator[Integers]:
        """Return schedules that may cost less and have so many misses more, the most promising first."""
        self._note(serving)
        room = max(room, 1.0)
        lower, higher = self._changes(serving, -1), self._changes(serving, 1)
        # Changes, not schedules: of a long load there are more than memory has room for.
        tries: list[tuple[Change, ...]] = [(less,) for less in lower]
        # Also side by side: then a block begins or ends sooner or later.
        tries += [
            (less, more)
            for less in _best(lower, room)
            for more in _best([one for one in higher if one.missed < 0], room)
            if less.end <= more.begin or more.end <= less.begin
        ]
        seconds = self._terms.seconds(serving)
        worth = []
        for changes in tries:
            saved = changes[0].saved
            if len(changes) > 1:
                saved = seconds - self._terms.seconds(_apply(changes, serving))
            missed = sum(change.missed for change in changes)
            # What seems to cost the same may cost less: start times are drawn, drains depend on what runs.
            if saved >= 0:
                worth.append((math.log(max(saved, 1.0)) - max(missed, 0.0) / room, changes))
        worth.sort(key=lambda one: -one[0])
        for _, changes in worth:
            yield _apply(changes, serving)

    def better(self, serving: Integers) -> Iterator[Integers]:
        """Return schedules with one replica more for a while, those first that the flow says miss least."""
        self._note(serving)
        for change in sorted(self._changes(serving, 1, longest=len(serving)), key=lambda one: one.missed):
            yield change.apply(serving)

    def _note(self, serving: Integers) -> None:
        _course(serving, 0, 0, 0.0, self._level, self._missed, *self._flow, True)

    def _changes(self, serving: Integers, by: int, longest: int | None = None) -> list[Change]:
        terms, periods = self._terms, len(serving)
        longest = longest or (periods if by < 0 else _LONGEST_RAISE)
        edges = np.flatnonzero(np.diff(serving)) + 1 if periods <= _EDGES_UP_TO else np.empty(0, np.int64)
        seconds = terms.seconds(serving)
        found = []
        for length in _lengths(min(longest, periods)):
            starts = {*range(0, periods - length + 1, max(1, length // 4)), *edges, *(edges - length)}
            for begin in sorted(int(start) for start in starts if 0 <= start <= periods - length):
                part = serving[begin : begin + length]
                if (by < 0 and part.min() <= terms.least) or (by > 0 and part.max() >= terms.most):
                    continue
                change = Change(begin, begin + length, by, 0.0, 0.0)
                changed = change.apply(serving)
                more = _course(
                    changed, begin, begin + length, float(self._level[begin]), self._level, self._missed,
                    *self._flow, False,
                )  # fmt: skip
                saved = seconds - terms.seconds(changed)
                found.append(Change(begin, begin + length, by, saved, more))
        return found


def _apply(changes: tuple[Change, ...], serving: Integers) -> Integers:
    for change in changes:
        serving = change.apply(serving)
    return serving


def _best(changes: list[Change], room: float) -> list[Change]:
    """Return the changes that save the most for what they add in misses, or add the least cost for what they take."""
    return sorted(changes, key=lambda one: -(one.saved / 60.0 - one.missed / room))[:_KEPT]


def _lengths(longest: int) -> list[int]:
    """Return lengths up to the longest: each up to 4, then each a third longer."""
    lengths = [min(longest, 1)]
    while lengths[-1] < longest:
        lengths.append(min(longest, max(lengths[-1] + 1, round(lengths[-1] * 4 / 3))))
    return lengths
