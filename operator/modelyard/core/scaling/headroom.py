"""How far above the forecast to plan: the forecast's own error over the start time, bursts included.

Every bin is held against the forecast that was made for it one start time before, so the error contains what the
forecast could not know. Its upward part beyond bursts gives a standard deviation; bursts as long as a request's
service, which no forecast of a mean can know, are added. The plan is sized so that a given share of requests is
expected to be missed, and that share is controlled by what engines count as missed, or, where they do not tell, by what
was missed while more was offered than served: integral control, as in conformal prediction under distribution shift
(Gibbs and Candes, arXiv 2106.00170; Angelopoulos, Candes and Tibshirani, arXiv 2307.16895).

Load that surges is neither an error nor a sign of too little headroom: what comes half as much again within one start
time is met by replicas that are started then, not by spare ones. But where it has surged lately, the calm since says
nothing about the next surge, and does not lower the headroom below the usual.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from modelyard.core.scaling.forecast import Forecast, ForecastPolicy
from modelyard.core.scaling.reversion import ReversionPolicy, ReversionRecord
from modelyard.core.scaling.slopes import SlopePolicy, SlopeRecord, Slopes

PENDING = 32
"""Forecasts that wait for their time to come, at most: one for each 4 s of a start of 120 s. Longer starts keep them
further apart."""


@dataclass(frozen=True, slots=True)
class HeadroomPolicy:
    """How errors become headroom."""

    deviation: float = 0.10
    """Relative standard deviation of the forecast's error beyond bursts before it has been measured. ServeGen's m-large
    changes by 0.31 from one ten minutes to the next at the 95th percentile (1.64 standard deviations of 0.19); half of
    that within one start."""
    prior: float = 1800.0
    """Seconds of observation that the assumed deviation counts for."""
    memory: float = 6 * 3600.0
    """Seconds, time constant of what was measured: a quarter of a day, so that a night does not forget the day."""
    missed: float = 0.005
    """Share of requests that may come while more is offered than served: half of what an objective of 99 % lets miss;
    the other half is for what counts do not show (long and short answers, uneven routing)."""
    lowest: float = 5e-4
    highest: float = 0.03
    """Bounds of the share that a plan may miss: a tenth of it and six times it, 0.7 deviations more and less."""
    gain: float = 0.004
    """Change of the logarithm of that share for each minute, times how much more or less was missed, in units of the
    share that may be. An outage as long as a usual start divides it by 5; seven hours without any miss undo that."""
    speed: float = 0.05
    """Like `gain`, for misses that engines count: ten times as fast, since they are what the objective is about. From
    the usual share to the highest takes 36 minutes without a miss."""
    worst: float = 12.0
    """Times the share that may be missed up to which misses count: an outage as long as a usual start, 2 minutes,
    divides it by 3. What an outage shows beyond that is a surge, and no headroom for those is cheap."""
    slopes: SlopePolicy = field(default_factory=SlopePolicy)
    reversion: ReversionPolicy = field(default_factory=ReversionPolicy)
    outlier: float = 0.5
    """Relative error above which more load than forecast is a surge, where chance does not explain it (`change` of the
    forecast's policy). Errors up to it count; in the first moments, when nothing can be a surge yet, larger ones count
    as this (Huber, Annals of Mathematical Statistics 35, 1964)."""


SHORT_QUEUE = 0.1
"""Seconds of one replica's capacity: fewer requests that wait are no queue, but between two steps of an engine, which
take some 10 ms each."""


class Queue(NamedTuple):
    """What waits in the engines, in requests of the size that capacity stands for."""

    waiting: float
    """Requests."""
    each: float
    """Requests per second of one replica."""


@dataclass(frozen=True, slots=True)
class Pending:
    """A forecast made for a later time."""

    due: float
    """Unix time."""
    level: float
    """Offered work, in requests per second of the size that capacity stands for, without the slopes."""
    trend: float
    """With the slopes and the way back to the mean, as they were weighed, and with what recurs."""
    changes: Slopes = (0.0, 0.0)
    """What each slope foretold beyond the level."""
    straight: float = 0.0
    """With the slopes alone."""
    back: float = 0.0
    """What the way back to the mean foretold beyond that."""
    recurs: float = 0.0
    """How much of `trend` is due to what recurs."""

    @property
    def plain(self) -> float:
        """Without what recurs."""
        return self.trend - self.recurs

    def convert(self, factor: float) -> "Pending":
        """Return it in requests of another size, of which one of the present size is worth so many."""
        long, short = self.changes
        return Pending(
            self.due,
            self.level * factor,
            self.trend * factor,
            (long * factor, short * factor),
            self.straight * factor,
            self.back * factor,
            self.recurs * factor,
        )


@dataclass(frozen=True, slots=True)
class Headroom:
    """What is known of the forecast's errors, and how many deviations are kept."""

    pending: tuple[Pending, ...] = ()
    """Oldest first."""
    observed: float = 0.0
    """Seconds of errors seen, at most the memory."""
    error: float = 0.0
    """Mean of squared upward errors beyond bursts."""
    slopes: SlopeRecord = field(default_factory=SlopeRecord)
    reversion: ReversionRecord = field(default_factory=ReversionRecord)
    power: float = 0.0
    """Mean of squared forecasts: errors are relative to it, so that those under little load do not count for more."""
    allowed: float | None = None
    """Share of requests that a plan may miss; None: that of the policy."""
    calm: float = 0.0
    """Seconds of observation since the last surge."""
    leftover: float = 0.0
    """Requests that waited at most until the replicas for the last surge served, as long as any of them may still wait,
    in requests of the size that capacity stands for."""

    @property
    def surged(self) -> bool:
        """Whether there was a surge within what is remembered."""
        return self.calm < self.observed * (1 - 1e-9)

    def surges(self, lead: float) -> bool:
        """Say whether there was a surge so short a time ago that what is missed may be missed for it.

        The replicas for it may not serve yet, or requests that came with it still wait.
        """
        return self.surged and (self.calm < lead or self.leftover > 0.0)

    def promised(self, end: float, width: float, lead: float) -> Pending | None:
        """Return the forecast for a bin of this width that ends now; None: there is none."""
        due = next((item for item in reversed(self.pending) if item.due <= end), None)
        return due if due is not None and end - due.due <= max(2 * width, lead / PENDING * 2) else None

    def weights(self, policy: HeadroomPolicy) -> Slopes:
        """Return the weights of the slopes: what they have earned."""
        return self.slopes.weights(self.observed, policy.slopes)

    def weight_back(self, policy: HeadroomPolicy) -> float:
        """Return the weight of the way back to the mean: what it has earned."""
        return self.reversion.weight(self.observed, policy.reversion)

    def relative(self, policy: HeadroomPolicy) -> float:
        """Return the relative standard deviation of the forecast's error beyond bursts."""
        if self.power <= 0.0:
            return policy.deviation
        share = self.observed / (self.observed + policy.prior)
        return math.sqrt(share * max(self.error, 0.0) / self.power + (1 - share) * policy.deviation**2)

    def deviation(self, rate: float, dispersion: float, width: float, policy: HeadroomPolicy) -> float:
        """Return the standard deviation of the rate of a bin of `width` seconds around a forecast `rate`.

        Below the usual load the error falls with the root of the rate: a quiet hour is less certain than it is small.
        """
        usual = max(rate, math.sqrt(self.power))
        return math.sqrt(dispersion * max(rate, 0.0) / width + self.relative(policy) ** 2 * rate * usual)


def learn(
    state: Headroom,
    before: Forecast,
    after: Forecast,
    work: float,
    lead: float,
    forecast_policy: ForecastPolicy,
    policy: HeadroomPolicy,
    queue: Queue | None = None,
    foresee: Callable[[float, float], float] | None = None,
) -> Headroom:
    """Return the state with one more bin, which lies between two forecasts; new forecasts are made for `lead` later.

    `work`: of a request now. Errors are those of the work that is offered: that requests grow is not foreseen either.
    `queue`: what waits in the engines; None: not known.
    `foresee`: returns a forecast with what recurs, from one without and the time that it is for; None: nothing recurs.
    """
    start, end = before.time, after.time
    width = end - start
    pending = [item for item in state.pending if item.due > end]
    observed, power = state.observed, state.power
    error, slopes, reversion, calm = state.error, state.slopes, state.reversion, state.calm
    promised = state.promised(end, width, lead)
    if promised is not None:
        observed = min(observed + width, policy.memory)
        share = width / observed
        offered, usual = after.last * work, math.sqrt(power)
        noise = after.dispersion * work * max(promised.level, 1.0 / width) / width
        # Of a small load, chance alone makes half as much again.
        least = max(policy.outlier * max(promised.level, usual), forecast_policy.change * math.sqrt(noise))
        # A rise that was foretold because it recurs is no surge.
        surge = promised.level + max(promised.recurs, 0.0) + least
        # What was right is learned from surges too: a load that swings is all surge on its way up.
        slopes = slopes.take_in(promised.changes, offered - promised.level, share)
        reversion = reversion.take_in(promised.back, offered - promised.straight, share)
        # What was promised in the first moments says nothing: there was no history yet.
        if offered > surge and observed > 2 * lead:
            calm = 0.0
        else:
            calm += width
            error += share * (_upward(offered, promised.trend, usual, noise, policy) - error)
        power += share * (max(promised.level, 1.0 / width) ** 2 - power)
    leftover = _leave(state.leftover, calm, lead, queue) if queue is not None else 0.0
    state = replace(
        state,
        observed=observed,
        error=error,
        slopes=slopes,
        reversion=reversion,
        power=power,
        calm=calm,
        leftover=leftover,
    )
    if not pending or after.time + lead - pending[-1].due >= lead / PENDING:
        pending.append(_promise(state, after, work, lead, forecast_policy, policy, foresee))
    return replace(state, pending=tuple(pending[-PENDING - 1 :]))


def _promise(
    state: Headroom,
    forecast: Forecast,
    work: float,
    lead: float,
    forecast_policy: ForecastPolicy,
    policy: HeadroomPolicy,
    foresee: Callable[[float, float], float] | None,
) -> Pending:
    weights = state.weights(policy)
    long, short = forecast.changes(lead, forecast_policy)
    back = forecast.back(lead, forecast_policy)
    straight = forecast.ahead(lead, forecast_policy, weights)
    plain = forecast.ahead(lead, forecast_policy, weights, state.weight_back(policy)) * work
    made = plain if foresee is None else foresee(plain, forecast.time + lead)
    return Pending(
        due=forecast.time + lead,
        level=forecast.fast * work,
        trend=made,
        changes=(long * work, short * work),
        straight=straight * work,
        back=back * work,
        recurs=made - plain,
    )


def _leave(leftover: float, calm: float, lead: float, queue: Queue) -> float:
    """Return what a surge made wait, if any of it may still wait.

    Engines do not hand over what waits in them: what came before there were others is worked off where it is, and
    counts as missed for as long. At most that takes the time in which one replica works off all of it; and a queue that
    grows is not left over, but new.
    """
    if calm < lead:
        return max(leftover, queue.waiting) if calm else queue.waiting
    if queue.waiting > leftover or queue.waiting <= SHORT_QUEUE * queue.each or not queue.each:
        return 0.0
    return leftover if calm - lead <= leftover / queue.each else 0.0


def _upward(offered: float, forecast: float, usual: float, noise: float, policy: HeadroomPolicy) -> float:
    """Return twice the squared error if more was offered than forecast, less the variance of a burst.

    `usual`: load against which an error is an outlier, where the forecast is below it.

    The mean of both halves of a symmetrical error is its variance; only the upper half asks for headroom.
    """
    limit = max(policy.outlier * max(forecast, usual), math.sqrt(noise))
    error = min(max(offered - forecast, 0.0), limit)
    return 2 * error * error - noise


def control(state: Headroom, missed: float, seconds: float, policy: HeadroomPolicy) -> Headroom:
    """Return the state after so many seconds in which this share of requests came to a fleet that was too small."""
    return _change_allowed(state, policy.gain * seconds / 60.0 * (1.0 - missed / policy.missed), policy)


def follow(state: Headroom, missed: float, seconds: float, policy: HeadroomPolicy) -> Headroom:
    """Return the state after so many seconds in which this share of requests missed, as engines counted them."""
    ratio = min(missed / policy.missed, policy.worst)
    return _change_allowed(state, policy.speed * seconds / 60.0 * (1.0 - ratio), policy)


def _change_allowed(state: Headroom, change: float, policy: HeadroomPolicy) -> Headroom:
    """Return the state with the logarithm of the share that may be missed changed, within its bounds."""
    allowed = (policy.missed if state.allowed is None else state.allowed) * math.exp(change)
    highest = policy.missed if state.surged else policy.highest
    return replace(state, allowed=min(max(allowed, policy.lowest), highest))
