import math

import pytest

from modelyard.simulator.rivals.forecasts import Arima, Constant, Kalman, predictor


def fed(model, values):
    for value in values:
        model.add(value)
    return model.predict()


@pytest.mark.parametrize("kind", ["constant", "arima", "kalman"])
def test_without_readings_there_is_nothing(kind):
    assert predictor(kind).predict() == 0
    assert fed(predictor(kind), [0.0, math.nan, math.inf]) == 0


@pytest.mark.parametrize("kind", ["constant", "arima", "kalman"])
def test_what_is_constant_stays(kind):
    assert fed(predictor(kind), [0.0, 0.0] + [7.0] * 12) == pytest.approx(7.0)


def test_constant_is_the_last_reading():
    assert fed(Constant(), [3.0, 9.0]) == 9


def test_kalman_by_hand():
    model = Kalman()
    model.add(100.0)
    assert model.predict() == 100
    # Variance after one step: level 1000 + 1000 + 1 = 2001, with trend 1000. Gains: 2001 / 2011 and 1000 / 2011.
    model.add(110.0)
    assert model.predict() == pytest.approx(100 + 10 * 2001 / 2011 + 10 * 1000 / 2011)


def test_kalman_follows_a_trend():
    assert fed(Kalman(), [10.0 * step for step in range(1, 60)]) == pytest.approx(600, abs=1)


def test_kalman_does_not_fall_below_zero():
    assert fed(Kalman(), [100.0, 50.0, 0.0, 0.0]) == 0


def test_arima_needs_five_readings():
    assert fed(Arima(), [1.0, 2.0, 3.0, 4.0]) == 4


def test_arima_finds_a_straight_line():
    # The differences are constant: one difference, and a constant alone, which is repeated on the logarithm. Doubling
    # is a straight line there.
    assert fed(Arima(), [2.0**power - 1 for power in range(1, 12)]) == pytest.approx(2.0**12 - 1)


def test_arima_finds_an_autoregression():
    # y = 20 + 0.5 y' - 0.3 y'', exactly.
    values = [10.0, 40.0]
    while len(values) < 30:
        values.append(20 + 0.5 * values[-1] - 0.3 * values[-2])
    assert fed(Arima(), values) == pytest.approx(20 + 0.5 * values[-1] - 0.3 * values[-2], rel=1e-3)


def test_arima_finds_a_wave():
    values = [100 + 50 * math.sin(step / 5) for step in range(60)]
    assert fed(Arima(), values) == pytest.approx(100 + 50 * math.sin(60 / 5), rel=0.01)


def test_arima_keeps_its_orders():
    model = Arima()
    fed(model, [10.0, 12.0, 9.0, 14.0, 8.0, 15.0])
    chosen = model._orders
    fed(model, [float(step) for step in range(40)])
    assert model._orders == chosen
