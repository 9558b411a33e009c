"""What the rivals share: the count that they write, clean signals, windows, and what one replica carries."""

import math
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections import deque
from dataclasses import dataclass, fields, replace
from operator import attrgetter
from typing import Literal

import numpy as np

from modelyard.core.load import LoadShape
from modelyard.core.perf.predict import predict
from modelyard.simulator.scenario import Arrivals, Engine, Scenario, Signals

Unit = Literal["absolute", "batch"]

ROUNDING = 1e-9
"""What binary fractions may add before a count is rounded up: the originals count in integer thousandths."""

_FIGURES = tuple(field.name for field in fields(Signals) if field.name != "known")
_OPTIONAL = frozenset(
    {"first_token_p90", "first_token_mean", "inter_token_p90", "inter_token_mean", "missed"}
)
_read_needed = attrgetter(*(name for name in _FIGURES if name not in _OPTIONAL))
_read_optional = attrgetter(*_OPTIONAL)


@dataclass(frozen=True, slots=True)
class Target:
    """What a rule aims at for each replica: a figure, or a share of the batch at which a replica gives its capacity.

    Tools document figures. A share is what an operator would set after a load test of the same engine and requests.
    """

    value: float
    unit: Unit = "absolute"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.value) and self.value > 0):
            raise ValueError(f"value: must be above 0, is {self.value}")

    def of(self, scenario: Scenario) -> float:
        """Return the target as a figure."""
        return self.value * capacity_batch(scenario) if self.unit == "batch" else self.value


class PublishedRule(ABC):
    """A rule that writes a count of replicas: it starts from what runs, and keeps its count while no reading comes.

    The count is what the rule last asked for (`spec.replicas` in Kubernetes), not what runs: what is taken away
    comes back by itself.
    """

    def __init__(self, name: str, interval: float, scenario: Scenario, *, to_zero: bool) -> None:
        """`to_zero`: whether the rule can go to 0 replicas, where the scenario's minimum allows it."""
        self._name = name
        self._interval = interval
        self.minimum = max(scenario.minimum, 0 if to_zero else 1)
        self.maximum = max(scenario.maximum, self.minimum)
        self._replicas: int | None = None

    @property
    def name(self) -> str:
        """Name in reports."""
        return self._name

    @property
    def interval(self) -> float:
        """Seconds between two decisions."""
        return self._interval

    def decide(self, signals: Signals) -> int:
        """Return the replicas wanted, starting ones included."""
        if self._replicas is None:
            self._replicas = self._bounded(signals.ready + signals.pending)
        if signals.known:
            self._replicas = self._bounded(self.desired(clean(signals), self._replicas))
        return self._replicas

    @abstractmethod
    def desired(self, signals: Signals, replicas: int) -> int:
        """Return what the rule asks for now that it asks for `replicas`. The scenario's bounds come after."""

    def _bounded(self, replicas: int) -> int:
        return min(max(replicas, self.minimum), self.maximum)


class Window:
    """Samples younger than a span."""

    def __init__(self, span: float) -> None:
        """`span`: seconds."""
        self._span = span
        self._samples: deque[tuple[float, float]] = deque()
        self._maxima: deque[tuple[float, float]] = deque()
        """Samples after which none is larger: the first is the largest."""
        self._sum = 0.0
        self._lost = 0.0
        """What rounding took from the sum (Neumaier 1974), so that years of samples leave no trace."""

    def add(self, time: float, value: float) -> None:
        """Add a sample, and forget those that are a span old or older."""
        self._samples.append((time, value))
        self._count(value)
        while self._maxima and self._maxima[-1][1] <= value:
            self._maxima.pop()
        self._maxima.append((time, value))
        while self._samples[0][0] <= time - self._span and len(self._samples) > 1:
            self._count(-self._samples.popleft()[1])
        while self._maxima[0][0] <= time - self._span and len(self._maxima) > 1:
            self._maxima.popleft()

    def _count(self, value: float) -> None:
        total = self._sum + value
        if abs(self._sum) >= abs(value):
            self._lost += (self._sum - total) + value
        else:
            self._lost += (value - total) + self._sum
        self._sum = total

    @property
    def total(self) -> float:
        """Sum of the samples."""
        return self._sum + self._lost

    @property
    def mean(self) -> float:
        """Mean of the samples; 0 without any."""
        return self.total / len(self._samples) if self._samples else 0.0

    @property
    def largest(self) -> float:
        """The largest sample; 0 without any."""
        return self._maxima[0][1] if self._maxima else 0.0


def clean(signals: Signals) -> Signals:
    """Return the signals with 0 for what is not a number, infinite or negative; a latency becomes None."""
    needed = _read_needed(signals)
    if math.isfinite(sum(needed)) and min(needed) >= 0:
        # By far the most often: a look at each figure takes three times as long.
        for value in _read_optional(signals):
            if value is not None and not 0 <= value < math.inf:
                break
        else:
            return signals
    wrong: dict[str, object] = {}
    for name in _FIGURES:
        value = getattr(signals, name)
        if value is None and name in _OPTIONAL:
            continue
        if value is None or not math.isfinite(value) or value < 0:
            wrong[name] = None if name in _OPTIONAL else 0
    return replace(signals, **wrong) if wrong else signals  # type: ignore[arg-type]


def round_up(value: float) -> int:
    """Return the smallest whole number that is not below a value, but for rounding errors."""
    return math.ceil(value - ROUNDING)


def round_down(value: float) -> int:
    """Return the largest whole number that is not above a value, but for rounding errors."""
    return math.floor(value + ROUNDING)


def mean_shape(arrivals: Arrivals) -> LoadShape:
    """Return the mean request of a trace; of an empty one, the default."""
    if not len(arrivals):
        return LoadShape()
    tokens = float(np.mean(arrivals.input_tokens))
    return LoadShape(
        tokens,
        float(np.mean(arrivals.output_tokens)),
        float(np.mean(arrivals.cached_tokens)) / max(tokens, 1.0),
    )


def capacity_batch(scenario: Scenario) -> float:
    """Return the sequences that run in a replica which gives its capacity at the trace's mean request."""
    engine, shape = scenario.engine, mean_shape(scenario.arrivals)
    batches = range(1, largest_batch(engine, shape) + 1)

    def rate(batch: int) -> float:
        return predict(engine.step, shape, batch).requests_per_second

    return float(min(bisect_left(batches, scenario.capacity, key=rate) + 1, len(batches)))


def best_rate(engine: Engine, shape: LoadShape, first_token: float, inter_token: float) -> float:
    """Return the requests per second that one replica gives at the largest batch within two mean latencies, seconds.

    Where even one request at a time misses them: what it gives one at a time.
    """

    def misses(batch: int) -> bool:
        performance = predict(engine.step, shape, batch)
        return performance.time_to_first_token > first_token or performance.inter_token_latency > inter_token

    batches = range(1, largest_batch(engine, shape) + 1)
    batch = max(1, bisect_left(batches, True, key=misses))
    return predict(engine.step, shape, batch).requests_per_second


def largest_batch(engine: Engine, shape: LoadShape) -> int:
    """Return the sequences that the engine can run at once: on average each holds its prompt and half its answer."""
    held = shape.input_tokens * (1 - shape.cached_share) + shape.output_tokens / 2
    return max(1, min(engine.max_sequences, math.floor(engine.cache_tokens / max(held, 1.0))))


def first_token_objective(scenario: Scenario, input_tokens: float) -> float:
    """Return the scenario's objective of the time to first token for a prompt, seconds."""
    objective = scenario.objective
    return objective.first_token_base + objective.first_token_per_input_token * input_tokens
