"""The load predictors of NVIDIA Dynamo's planner: constant, ARIMA and Kalman.

Source: ai-dynamo/dynamo components/src/dynamo/planner/core/load/predictors.py and config/defaults.py. Its Prophet
predictor is left out.
"""

import math
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Kind = Literal["constant", "arima", "kalman"]

LEVEL_NOISE, TREND_NOISE, READING_NOISE = 1.0, 0.1, 10.0
"""Variances for each step (kalman_q_level, kalman_q_trend, kalman_r)."""

FIRST_VARIANCE = 1000.0
"""Of level and trend, before the first reading."""

ARIMA_POINTS = 5
"""Readings before which the last one is the forecast."""

LARGEST_ORDER = 5
"""Lags that are tried, as in pmdarima's `auto_arima`."""


class Predictor(Protocol):
    """Foresees the next value of a series."""

    def add(self, value: float) -> None:
        """Add a reading. Zeros before the first other value are skipped, as is what is not finite."""

    def predict(self) -> float:
        """Return the next value, at least 0; 0 without readings."""


class Constant:
    """The next value is the last one."""

    def __init__(self) -> None:
        self._last = 0.0

    def add(self, value: float) -> None:
        """Add a reading."""
        if math.isfinite(value):
            self._last = value

    def predict(self) -> float:
        """Return the last reading."""
        return max(0.0, self._last)


class Kalman:
    """A local linear trend: level and slope, each with noise, observed with noise."""

    def __init__(self) -> None:
        self._state: NDArray[np.float64] | None = None
        self._variance = np.eye(2) * FIRST_VARIANCE
        self._step = np.array([[1.0, 1.0], [0.0, 1.0]])
        self._noise = np.diag([LEVEL_NOISE, TREND_NOISE])

    def add(self, value: float) -> None:
        """Add a reading."""
        if not math.isfinite(value) or (self._state is None and value == 0):
            return
        if self._state is None:
            self._state = np.array([value, 0.0])
            return
        state = self._step @ self._state
        variance = self._step @ self._variance @ self._step.T + self._noise
        gain = variance[:, 0] / (variance[0, 0] + READING_NOISE)
        self._state = state + gain * (value - state[0])
        self._variance = variance - np.outer(gain, variance[0])

    def predict(self) -> float:
        """Return the level one step on."""
        return 0.0 if self._state is None else max(0.0, float((self._step @ self._state)[0]))


class Arima:
    """An autoregression with a constant, on the values or on their differences: ARIMA(p, d, 0).

    The planner takes pmdarima's `auto_arima`. This stands in for it, by least squares instead of maximum likelihood
    and without its moving-average terms. Like there, the orders are chosen once, at the first forecast with enough
    readings (d = 1 if the differences vary less than the values, in place of the KPSS test; p up to 5 by Akaike's
    criterion), and coefficients are fitted anew with each reading; a choice without any lag is repeated on log(1 + y).
    """

    def __init__(self) -> None:
        self._readings: list[float] = []
        self._orders: tuple[int, int] | None = None
        self._logarithm = False

    def add(self, value: float) -> None:
        """Add a reading."""
        if math.isfinite(value) and (value != 0 or self._readings):
            self._readings.append(max(0.0, value))

    def predict(self) -> float:
        """Return the forecast, or the last reading where there is too little to fit."""
        if not self._readings:
            return 0.0
        if len(self._readings) < ARIMA_POINTS or len(set(self._readings)) == 1:
            return self._readings[-1]
        series = np.array(self._readings)
        if self._orders is None:
            self._orders = _orders(series)
            if self._orders[0] == 0:
                self._logarithm = True
                self._orders = _orders(np.log1p(series))
        if self._logarithm:
            # Beyond the exponent's range there is no forecast to speak of.
            return max(0.0, math.expm1(min(_forecast(np.log1p(series), *self._orders), 700.0)))
        return max(0.0, _forecast(series, *self._orders))


def predictor(kind: Kind) -> Predictor:
    """Return a new predictor."""
    makers: dict[Kind, type[Constant | Arima | Kalman]] = {
        "constant": Constant,
        "arima": Arima,
        "kalman": Kalman,
    }
    return makers[kind]()


def _orders(series: NDArray[np.float64]) -> tuple[int, int]:
    """Choose lags and differences."""
    differences = 1 if np.var(np.diff(series)) < np.var(series) else 0
    stationary = np.diff(series, n=differences)
    # All orders are judged on the same values, and each leaves more values than coefficients.
    largest = max(0, min(LARGEST_ORDER, (len(stationary) - 2) // 2))
    scores = []
    for lags in range(largest + 1):
        design, target = _design(stationary[largest - lags :], lags)
        coefficients = np.linalg.lstsq(design, target, rcond=None)[0]
        residual = float(np.mean((target - design @ coefficients) ** 2))
        scores.append(len(target) * math.log(max(residual, 1e-12)) + 2 * (lags + 2))
    return int(np.argmin(scores)), differences


def _forecast(series: NDArray[np.float64], lags: int, differences: int) -> float:
    """Fit the autoregression and take one step."""
    stationary = np.diff(series, n=differences)
    design, target = _design(stationary, lags)
    coefficients = np.linalg.lstsq(design, target, rcond=None)[0]
    recent = stationary[len(stationary) - lags :][::-1]
    step = float(coefficients[0] + coefficients[1:] @ recent)
    return step + float(series[-1]) if differences else step


def _design(series: NDArray[np.float64], lags: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the regressors (a constant, then the latest value first) and what they explain."""
    target = series[lags:]
    columns = [np.ones(len(target))]
    columns += [series[lags - back : len(series) - back] for back in range(1, lags + 1)]
    return np.column_stack(columns), target
