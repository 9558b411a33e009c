"""What the offered load will be: a level and two slopes, from arrivals in short bins.

Exponentially weighted means of the rate, faster and slower ones. On a ramp each lags by its own time constant, so the
difference of two gives the slope, and the slope corrects the lag. One slope is taken over minutes, which tells it well
from noise and late, and one over a quarter of that. A slope is used as far as it stands out from the noise that its
means have and as far as the load has followed it (`core/scaling/slopes.py`); a change of level that stands out moves
all means at once. The distance from a mean over eight minutes counts as far as the load comes back to it
(`core/scaling/reversion.py`): that tells a swing from a ramp. A third slope, over ten minutes, is the trend: it is told
to those who ask where the load goes in the next hour, and is no part of what is foretold for one start. What recurs
within two hours is foretold beside this (`core/scaling/recurrence.py`). There is no season: day-ahead autocorrelation
of the public traces is 0.07 to 0.49, too weak to beat the last value.
"""

import math
from dataclasses import dataclass, replace

from modelyard.core.scaling.slopes import Slopes


@dataclass(frozen=True, slots=True)
class ForecastPolicy:
    """How arrivals become a forecast."""

    fast: float = 30.0
    """Seconds, time constant. Two of them, 60 s, are the stable window of Knative's autoscaler."""
    slow: float = 120.0
    """Seconds, time constant: a usual start time, since a slope is used over one."""
    quick: float = 15.0
    brief: float = 45.0
    """Seconds, time constants of the short slope. With 30 and 120 s a slope is told 130 s late of a load that swings in
    15 minutes, more than a start; with these 60 s."""
    long: float = 480.0
    """Seconds, time constant of the trend's second mean, the first being the slow one: four times that, as that is of
    the fast one. With Poisson arrivals at 20 requests/s a trend of 0.3 % a minute stands out from noise; a load that
    doubles in two hours has 0.6 %."""
    damping: float = 120.0
    """Seconds after which a slope has lost 63 % of its effect: a trend is never trusted far beyond the time over
    which it was seen (Gardner and McKenzie, Management Science 31, 1985: damped trends beat linear ones)."""
    significance: float = 2.0
    """Standard errors below which a slope counts as noise: 95 % of a normal distribution."""
    change: float = 4.0
    """Standard errors from which two bins in a row are a new level. With a bin every 8 s, 3 would be exceeded
    by chance every few hours."""
    dispersion: float = 4.0
    """Variance over mean of counts (1: Poisson) before it has been measured, at most: superposed clients with gaps of
    CV 2 have 4."""
    excess: float = 1.0
    """Seconds: what is assumed at first beyond 1 for each request per second. Azure's conversation trace of 2023 has an
    excess CV of 0.22 in 20 s, which is 0.22^2 x 20 s."""
    noise_memory: float = 900.0
    """Seconds, time constant of the measured dispersion: about 100 bins."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """State of the forecast of one deployment."""

    time: float
    """Unix time of the newest bin's end."""
    fast: float
    """Requests per second, weighted mean."""
    slow: float
    dispersion: float
    """Variance over mean of counts."""
    last: float = 0.0
    """Rate of the newest bin."""
    age: float = 0.0
    """Seconds of history."""
    quick: float | None = None
    """Requests per second, weighted mean; None: as `fast`."""
    brief: float | None = None
    long: float | None = None
    """Requests per second, weighted mean; None: as `slow`."""

    def trend(self, policy: ForecastPolicy) -> float:
        """Return requests per second and second over ten minutes, as far as it stands out from noise."""
        long = self.slow if self.long is None else self.long
        return self._slope(self.slow, long, policy.slow, policy.long, policy)

    def level(self, policy: ForecastPolicy) -> float:
        """Return requests per second now."""
        return max(self.fast + policy.fast * self.slope(policy), 0.0)

    def slope(self, policy: ForecastPolicy) -> float:
        """Return requests per second and second over minutes, as far as it stands out from noise."""
        return self._slope(self.fast, self.slow, policy.fast, policy.slow, policy)

    def changes(self, seconds: float, policy: ForecastPolicy) -> Slopes:
        """Return how far from `fast` each slope sees the load so many seconds from now, in requests per second."""
        reach = policy.damping * -math.expm1(-seconds / policy.damping)
        quick = self.fast if self.quick is None else self.quick
        brief = self.fast if self.brief is None else self.brief
        short = self._slope(quick, brief, policy.quick, policy.brief, policy)
        turn = quick - self.fast + short * (policy.quick + reach) if short else 0.0
        return self.slope(policy) * (policy.fast + reach), turn

    def back(self, seconds: float, policy: ForecastPolicy) -> float:
        """Return how far from `fast` the load is so many seconds from now if it comes back to its mean over minutes.

        The distance counts as far as it stands out from noise, like a slope.
        """
        mean = self.slow if self.long is None else self.long
        away = self._slope(self.fast, mean, policy.fast, policy.long, policy) * (policy.long - policy.fast)
        return away * math.expm1(-seconds / policy.damping)

    def ahead(
        self, seconds: float, policy: ForecastPolicy, weights: Slopes = (1.0, 0.0), reversion: float = 0.0
    ) -> float:
        """Return requests per second so many seconds from now.

        `weights`: of the slopes; `reversion`: of the way back to the mean.
        """
        long, short = self.changes(seconds, policy)
        change = weights[0] * long + weights[1] * short
        if reversion:
            change += reversion * self.back(seconds, policy)
        return max(self.fast + change, 0.0)

    def _slope(self, fast: float, slow: float, short: float, long: float, policy: ForecastPolicy) -> float:
        """Return the slope between two means of these time constants, without noise (positive-part shrinkage)."""
        # White noise of density s gives a mean of time constant T the variance s / 2T, and two such means the
        # covariance s / (T1 + T2).
        density = self.dispersion * max(self.slow, self.fast, 0.0)
        variance = density * (0.5 / short + 0.5 / long - 2.0 / (short + long))
        error = policy.significance * math.sqrt(variance) / (long - short)
        raw = (fast - slow) / (long - short)
        return 0.0 if abs(raw) <= error else raw * (1.0 - (error / raw) ** 2)


def begin(time: float, rate: float, policy: ForecastPolicy) -> Forecast:
    """Return the state after a first bin."""
    dispersion = min(1.0 + policy.excess * rate, policy.dispersion)
    return Forecast(time=time, fast=rate, slow=rate, dispersion=dispersion, last=rate)


def advance(state: Forecast, time: float, arrivals: float, policy: ForecastPolicy) -> Forecast:
    """Return the state after one more bin, which ends at `time` and held so many requests."""
    width = time - state.time
    rate = arrivals / width
    if state.age == 0.0 and state.fast == 0.0:
        return replace(begin(time, rate, policy), age=width)
    level = state.level(policy)
    error = rate - level
    # At least one request a bin, so that a first request after silence is no infinite surprise.
    expected = max(level, 1.0 / width)
    share = -math.expm1(-width / policy.noise_memory)
    surprise = min(error * error * width / expected, state.dispersion * policy.change**2)
    dispersion = max(state.dispersion + share * (surprise - state.dispersion), min(1.0, policy.dispersion))
    fast, slow = state.fast, state.slow
    quick = fast if state.quick is None else state.quick
    brief = fast if state.brief is None else state.brief
    long = slow if state.long is None else state.long
    before = state.last - level
    noise = math.sqrt(state.dispersion * expected / (2 * width))
    if error * before > 0 and min(abs(error), abs(before)) > policy.change / 2 * noise:
        shift = (error + before) / 2
        if abs(shift) > policy.change * noise:
            fast, slow, long = fast + shift, slow + shift, long + shift
            quick, brief = quick + shift, brief + shift
    # While history is short each mean is that of all bins so far.
    age = state.age + width

    def follow(mean: float, constant: float) -> float:
        return max(mean + (rate - mean) * max(-math.expm1(-width / constant), width / age), 0.0)

    return Forecast(
        time=time,
        fast=follow(fast, policy.fast),
        slow=follow(slow, policy.slow),
        dispersion=dispersion,
        last=rate,
        age=age,
        quick=follow(quick, policy.quick),
        brief=follow(brief, policy.brief),
        long=follow(long, policy.long),
    )
