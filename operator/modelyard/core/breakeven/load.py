"""The load and the mean request of one route from its counters.

The forecast and its error are those of the size rule (`core.scaling`), on the route's own arrivals, wherever they go.
"""

from dataclasses import dataclass, field, replace

from modelyard.core.breakeven.inputs import RouteLoad
from modelyard.core.demand import Sample
from modelyard.core.load import LoadShape
from modelyard.core.scaling.forecast import Forecast, ForecastPolicy, advance, begin
from modelyard.core.scaling.headroom import Headroom, HeadroomPolicy, learn
from modelyard.core.scaling.rule import BURST, SERVICE_TIME
from modelyard.core.shape import ENOUGH, ShapeMemory

BIN = SERVICE_TIME
"""Seconds in which arrivals are counted together: what a request takes at a replica, as the size rule does."""
STALE = 30.0
"""Seconds without a reading after which the load is unknown (`DemandPolicy.stale_after`)."""


@dataclass(frozen=True, slots=True)
class LoadHistory:
    """What is remembered of one route's arrivals."""

    last: Sample | None = None
    """The newest reading."""
    counted: Sample | None = None
    """Where the newest bin ends."""
    forecast: Forecast | None = None
    headroom: Headroom = field(default_factory=Headroom)


@dataclass(frozen=True, slots=True)
class LoadRules:
    """How arrivals become a forecast and its error."""

    forecast: ForecastPolicy = field(default_factory=ForecastPolicy)
    headroom: HeadroomPolicy = field(default_factory=HeadroomPolicy)


def count_arrivals(
    history: LoadHistory, time: float, total: float, lead: float, rules: LoadRules | None = None
) -> LoadHistory:
    """Return the history with one more cumulative count of arrivals.

    `time`: Unix time; `lead`: seconds that a start takes. After a counter that began again, or a time without readings,
    the forecast goes on from there: what came in between is not known.
    """
    rules = rules or LoadRules()
    sample, last, counted = Sample(time, total), history.last, history.counted
    if last is not None and time <= last.time:
        return history
    if last is None or counted is None or total < last.total or time - last.time > STALE:
        return replace(history, last=sample, counted=sample)
    history = replace(history, last=sample)
    width, arrivals = time - counted.time, total - counted.total
    if width < BIN * (1 - 1e-6):
        return history
    before = history.forecast or begin(counted.time, arrivals / width, rules.forecast)
    before = replace(before, time=counted.time)
    after = advance(before, time, arrivals, rules.forecast)
    headroom = learn(history.headroom, before, after, 1.0, lead, rules.forecast, rules.headroom)
    return replace(history, counted=sample, forecast=after, headroom=headroom)


def expect_load(
    history: LoadHistory, now: float, lead: float, rules: LoadRules | None = None
) -> RouteLoad | None:
    """Return the load, or None where it is not known: no reading for a while, or too few to tell a mean."""
    rules = rules or LoadRules()
    forecast, last = history.forecast, history.last
    if forecast is None or last is None or now - last.time > STALE or forecast.age < rules.forecast.fast:
        return None
    weights = history.headroom.weights(rules.headroom)
    trend = forecast.trend(rules.forecast)
    ahead = _go_on(forecast, forecast.ahead(lead, rules.forecast, weights), trend, lead, rules.forecast)
    deviation = history.headroom.deviation(ahead, forecast.dispersion, BURST * BIN, rules.headroom)
    return RouteLoad(forecast.ahead(0.0, rules.forecast, weights), ahead, deviation, trend)


def _go_on(forecast: Forecast, ahead: float, trend: float, lead: float, policy: ForecastPolicy) -> float:
    """Return the forecast for one start from now, with the trend where the slopes say less.

    On a slow ramp the slopes over minutes are lost in noise, and a forecast without them is late by the age of its mean
    and a start. The slow mean goes on with the trend: it has half the noise of the fast one. Slopes that stand out
    against the trend have seen it end.
    """
    change = ahead - forecast.fast
    if trend == 0.0 or change * trend < 0:
        return ahead
    later = max(forecast.slow + trend * (policy.slow + lead), 0.0)
    if change == 0.0:
        return later
    return max(ahead, later) if trend > 0 else min(ahead, later)


def mean_request(memory: ShapeMemory, expected: LoadShape) -> LoadShape:
    """Return the mean request over the window of `core.shape`, or the expected one until there are enough requests.

    Not the shape that capacities follow: that one stands still until a mean has moved by a fifth, and a break-even
    would be as much beside the truth. Where nobody counts cached tokens, their share stays the expected one.
    """
    if len(memory.samples) < 2:
        return expected
    first, last = memory.samples[0], memory.samples[-1]
    requests = last.requests - first.requests
    if requests < ENOUGH:
        return expected
    inputs, cached = last.input_tokens - first.input_tokens, last.cached_tokens - first.cached_tokens
    return LoadShape(
        input_tokens=max(inputs / requests, 1.0),
        output_tokens=max((last.output_tokens - first.output_tokens) / requests, 1.0),
        cached_share=min(cached / inputs, 1.0) if cached > 0 and inputs > 0 else expected.cached_share,
    )
