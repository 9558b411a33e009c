"""Weights of the slopes of a forecast, from the changes that they foretold."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.scaling.forecast import ForecastPolicy, advance, begin
from modelyard.core.scaling.headroom import Headroom, HeadroomPolicy, learn
from modelyard.core.scaling.slopes import SlopePolicy, SlopeRecord

POLICY = SlopePolicy()
FORECAST = ForecastPolicy()
HEADROOM = HeadroomPolicy()
WIDTH, LEAD = 8.0, 120.0


def test_before_anything_was_foretold_the_assumed_weights_count():
    assert SlopeRecord().weights(0.0, POLICY) == POLICY.assumed
    assert SlopeRecord().take_in((0.0, 0.0), 5.0, 1.0).weights(600.0, POLICY) == POLICY.assumed


def test_what_was_followed_gets_its_weight_and_the_assumption_fades():
    record = SlopeRecord()
    for number in range(1, 200):
        long, short = (1.0, 0.0) if number % 2 else (0.0, 2.0)
        record = record.take_in((long, short), 1.2 * long + 0.7 * short, 1 / number)
    early, late = record.weights(300.0, POLICY), record.weights(300_000.0, POLICY)
    assert late == pytest.approx((1.2, 0.7), abs=0.01)
    assert POLICY.assumed[0] < early[0] < late[0]
    assert POLICY.assumed[1] < early[1] < late[1]


def test_a_slope_that_the_load_goes_against_is_left_out_and_the_other_stands_alone():
    record = SlopeRecord(foretold=(1.0, 0.5, 1.0), followed=(0.8, -0.3))
    long, short = record.weights(1e9, POLICY)
    assert short == 0.0
    assert long == pytest.approx(0.8)


@given(
    st.lists(
        st.tuples(*[st.floats(-1e3, 1e3, allow_nan=False, allow_subnormal=False)] * 3),
        min_size=1,
        max_size=20,
    ),
    st.floats(1.0, 1e5),
    st.floats(0.01, 100.0),
)
def test_weights_are_bounded_and_the_same_in_any_unit(changes, observed, factor):
    record = SlopeRecord()
    for number, (long, short, came) in enumerate(changes, 1):
        record = record.take_in((long, short), came, 1 / number)
    weights = record.weights(observed, POLICY)
    assert all(0.0 <= weight <= POLICY.highest for weight in weights)
    if sum(record.foretold) > 1e-3:
        assert record.convert(factor).weights(observed, POLICY) == pytest.approx(weights, rel=1e-6, abs=1e-6)


def _play(rate, seconds, seed=1):
    """Return forecast and headroom after so many seconds of Poisson-like arrivals at `rate(time)`."""
    chance = random.Random(seed)
    forecast, headroom = begin(0.0, rate(0.0), FORECAST), Headroom()
    for step in range(1, int(seconds / WIDTH)):
        mean = rate(step * WIDTH) * WIDTH
        arrivals = max(chance.gauss(mean, math.sqrt(mean)), 0.0)
        after = advance(forecast, step * WIDTH, arrivals, FORECAST)
        headroom = learn(headroom, forecast, after, 1.0, LEAD, FORECAST, HEADROOM)
        forecast = after
    return forecast, headroom


def test_a_load_that_swings_as_fast_as_starts_is_followed_by_the_short_slope():
    def rate(time):
        return 12.5 - 11.5 * math.cos(2 * math.pi * time / 900.0)

    # In the middle of the fifth rise.
    now = 4 * 900.0 + 225.0
    forecast, headroom = _play(rate, now)
    long, short = headroom.weights(HEADROOM)
    assert short > 0.5
    ahead = forecast.ahead(LEAD, FORECAST, (long, short))
    # Of what the slope over minutes misses, a third at least is foretold.
    assert abs(ahead - rate(now + LEAD)) < abs(forecast.ahead(LEAD, FORECAST) - rate(now + LEAD)) * 2 / 3


def test_the_slopes_of_a_steady_load_earn_little():
    forecast, headroom = _play(lambda _: 20.0, 6 * 3600.0)
    assert headroom.weights(HEADROOM)[1] < 0.2
    assert forecast.ahead(LEAD, FORECAST, headroom.weights(HEADROOM)) == pytest.approx(20.0, rel=0.15)
