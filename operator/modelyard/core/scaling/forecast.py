"""What the offered load will be: a level and a trend, from arrivals in short bins.

Two exponentially weighted means of the rate, a fast and a slow one. On a ramp each lags by its own time constant, so
their difference gives the slope, and the slope corrects the lag. A slope is used as far as it stands out from the noise
that both means have, and a change of level that stands out moves both means at once. There is no season: day-ahead
autocorrelation of the public traces is 0.07 to 0.49, too weak to beat the last value.
"""

import math
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class ForecastPolicy:
    """How arrivals become a forecast."""

    fast: float = 30.0
    """Seconds, time constant. Two of them, 60 s, are the stable window of Knative's autoscaler."""
    slow: float = 120.0
    """Seconds, time constant: a usual start time, since a slope is used over one."""
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

    def level(self, policy: ForecastPolicy) -> float:
        """Return requests per second now."""
        return max(self.fast + policy.fast * self.slope(policy), 0.0)

    def slope(self, policy: ForecastPolicy) -> float:
        """Return requests per second and second, as far as it stands out from noise (positive-part shrinkage)."""
        raw = (self.fast - self.slow) / (policy.slow - policy.fast)
        error = policy.significance * self._slope_error(policy)
        return 0.0 if abs(raw) <= error else raw * (1.0 - (error / raw) ** 2)

    def ahead(self, seconds: float, policy: ForecastPolicy, trend: float = 1.0) -> float:
        """Return requests per second so many seconds from now. `trend`: weight of the slope, 0 to 1."""
        slope = self.slope(policy) * trend
        reach = policy.damping * -math.expm1(-seconds / policy.damping)
        return max(self.fast + slope * (policy.fast + reach), 0.0)

    def _slope_error(self, policy: ForecastPolicy) -> float:
        # White noise of density s gives a mean of time constant T the variance s / 2T, and two such means the
        # covariance s / (T1 + T2).
        fast, slow = policy.fast, policy.slow
        density = self.dispersion * max(self.slow, self.fast, 0.0)
        variance = density * (0.5 / fast + 0.5 / slow - 2.0 / (fast + slow))
        return math.sqrt(variance) / (slow - fast)


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
    before = state.last - level
    noise = math.sqrt(state.dispersion * expected / (2 * width))
    if error * before > 0 and min(abs(error), abs(before)) > policy.change / 2 * noise:
        shift = (error + before) / 2
        if abs(shift) > policy.change * noise:
            fast, slow = fast + shift, slow + shift
    # While history is short each mean is that of all bins so far.
    age = state.age + width
    fast += (rate - fast) * max(-math.expm1(-width / policy.fast), width / age)
    slow += (rate - slow) * max(-math.expm1(-width / policy.slow), width / age)
    return Forecast(time, max(fast, 0.0), max(slow, 0.0), dispersion, rate, age)
