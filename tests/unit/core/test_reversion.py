"""What the distance from the mean is worth to a forecast."""

import math
import random
from dataclasses import replace

import pytest

from modelyard.core.scaling.forecast import Forecast, ForecastPolicy, advance, begin
from modelyard.core.scaling.headroom import Headroom, HeadroomPolicy, learn
from modelyard.core.scaling.reversion import ReversionPolicy, ReversionRecord
from tests.unit.core.build import NOW

FORECAST, HEADROOM, POLICY = ForecastPolicy(), HeadroomPolicy(), ReversionPolicy()
BIN, LEAD = 8.0, 120.0


def test_the_way_back_ends_at_the_mean_over_minutes():
    state = Forecast(time=NOW, fast=10.0, slow=20.0, dispersion=0.0, long=30.0)
    assert state.back(0.0, FORECAST) == 0.0
    assert state.back(120.0, FORECAST) == pytest.approx(20.0 * (1 - math.exp(-1)))
    assert state.back(1e6, FORECAST) == pytest.approx(20.0)
    plain = state.ahead(120.0, FORECAST, (0.0, 0.0))
    assert plain == 10.0
    assert state.ahead(1e6, FORECAST, (0.0, 0.0), 0.5) == pytest.approx(20.0)
    # Of a first mean over minutes nothing is known yet.
    assert replace(state, long=None).back(1e6, FORECAST) == pytest.approx(10.0)
    # What noise explains is no distance, and the rest is shrunk.
    assert 0.0 < replace(state, dispersion=4.0).back(1e6, FORECAST) < 20.0
    assert replace(state, long=10.5, slow=10.0, dispersion=4.0).back(1e6, FORECAST) == 0.0


def test_a_return_that_comes_each_time_counts_as_far_as_it_came():
    record = ReversionRecord().take_in(10.0, 6.0, 1.0)
    assert record.weight(1e9, POLICY) == pytest.approx(0.6)
    # The assumption of none counts as `prior` seconds.
    assert record.weight(POLICY.prior, POLICY) == pytest.approx(0.3)
    assert record.weight(0.0, POLICY) == 0.0
    beyond = ReversionRecord().take_in(10.0, 60.0, 1.0)
    assert beyond.weight(1e9, POLICY) == POLICY.highest
    against = ReversionRecord().take_in(10.0, -6.0, 1.0)
    assert against.weight(1e9, POLICY) == 0.0
    assert ReversionRecord().take_in(0.0, 6.0, 1.0).weight(1e9, POLICY) == 0.0


@pytest.mark.parametrize(
    ("explained", "clarity"), [(0.0, 0.0), (POLICY.least, 0.0), (0.2, 0.5), (POLICY.clear, 1.0), (0.9, 1.0)]
)
def test_a_return_that_explains_little_does_not_count(explained: float, clarity: float):
    # 4 squared foretold, half of it came on average, and so much of what was left is explained by that.
    record = ReversionRecord(foretold=4.0, followed=2.0, unexplained=1.0 / max(explained, 1e-3))
    assert record.weight(1e9, POLICY) == pytest.approx(0.5 * clarity, abs=1e-6)


def test_it_is_the_same_in_requests_of_another_size():
    record = ReversionRecord().take_in(10.0, 6.0, 0.5).take_in(3.0, 4.0, 0.5)
    assert record.convert(2.5).weight(900.0, POLICY) == pytest.approx(record.weight(900.0, POLICY))
    assert record.convert(2.0).foretold == 4 * record.foretold


def _weigh(rates: list[float]) -> float:
    """Return the weight after these rates, bin by bin."""
    state, forecast = Headroom(), begin(NOW, rates[0], FORECAST)
    for number, rate in enumerate(rates, start=1):
        after = advance(forecast, NOW + number * BIN, rate * BIN, FORECAST)
        state = learn(state, forecast, after, 1.0, LEAD, FORECAST, HEADROOM)
        forecast = after
    return state.weight_back(HEADROOM)


def _swing(period: float, hours: float) -> list[float]:
    count = round(hours * 3600 / BIN)
    return [80.0 - 70.0 * math.cos(2 * math.pi * number * BIN / period) for number in range(count)]


@pytest.mark.parametrize("period", [600.0, 900.0, 1200.0])
def test_a_swing_earns_it_within_a_period_and_a_half(period: float):
    assert _weigh(_swing(period, 1.5 * period / 3600)) > 0.4
    assert _weigh(_swing(period, 3.0)) > 0.4


def test_one_surge_that_passes_is_forgotten_in_minutes():
    """It looks like half a swing. What is foretold stays between the load and its mean, and that mean falls."""
    forecast, state = begin(NOW, 10.0, FORECAST), Headroom()
    for number, rate in enumerate([10.0] * 75 + [20.0] * 30 + [10.0] * 200, start=1):
        after = advance(forecast, NOW + number * BIN, rate * BIN, FORECAST)
        state = learn(state, forecast, after, 1.0, LEAD, FORECAST, HEADROOM)
        forecast = after
        ahead = forecast.ahead(LEAD, FORECAST, (0.0, 0.0), state.weight_back(HEADROOM))
        low, high = sorted((forecast.fast, forecast.slow if forecast.long is None else forecast.long))
        assert low - 1e-9 <= ahead <= high + 1e-9
    assert ahead == pytest.approx(10.0, rel=0.05)


def test_levels_noise_and_growth_earn_nothing():
    chance = random.Random(1)
    levels = [chance.lognormvariate(4.0, 0.3) for _ in range(36)]
    held = [level for level in levels for _ in range(round(600 / BIN))]
    assert _weigh(held) == 0.0
    assert _weigh([chance.gauss(100.0, 10.0) for _ in range(2700)]) < 0.1
    assert _weigh([20.0 + number / 50 for number in range(2700)]) == 0.0
    assert _weigh([100.0] * 2700) == 0.0
