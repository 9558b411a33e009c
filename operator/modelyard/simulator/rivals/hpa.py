"""The Horizontal Pod Autoscaler of Kubernetes, on GPU utilisation, on CPU and on requests in flight.

Sources: kubernetes/kubernetes pkg/controller/podautoscaler (replica_calculator.go: ratio, tolerance, missing and
unready pods; horizontal.go: stabilisation, rate limits, order), config/v1alpha1/defaults.go (15 s, 5 min, 0.1) and
pkg/apis/autoscaling/v2/defaults.go (policies, CPU at 80 %).

It scales one workload: several variants of a model, or prefill and decode apart, are several HPAs that do not know of
each other. Scaling to zero needs an alpha feature gate and is left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from modelyard.simulator.rivals.common import ROUNDING, PublishedRule, Target, round_down, round_up
from modelyard.simulator.scenario import Scenario, Signals

SYNC_PERIOD = 15.0
"""Seconds (HorizontalPodAutoscalerSyncPeriod)."""

TOLERANCE = 0.1
"""Share by which the ratio may differ from 1 (HorizontalPodAutoscalerTolerance)."""

DOWN_WINDOW = 300.0
"""Seconds (HorizontalPodAutoscalerDownscaleStabilizationWindow)."""

IDLE_CPU, BUSY_CPU = 0.05, 0.15
"""Share of its CPU request that an engine uses while it is idle and while it runs steps all the time. Reported: 5 to
15 % for a vLLM pod (https://www.kunwar.page/chapter/051-autoscaling-gpu-inference-with-keda), 5 % beside a full GPU
(https://kubernai.com/articles/hpa-for-token-throughput). In between, in proportion to the time it runs steps."""

Metric = Literal["gpu", "cpu", "concurrency"]
Starting = Literal["missing", "unready"]


@dataclass(frozen=True, slots=True)
class Limit:
    """How far one scaling policy lets the count change within a period."""

    kind: Literal["pods", "percent"]
    value: float
    period: float
    """Seconds."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """The `behavior` of a HorizontalPodAutoscaler; of several limits the widest counts."""

    up_window: float = 0.0
    """Seconds; the lowest recommendation within it counts."""
    down_window: float = DOWN_WINDOW
    """Seconds; the highest recommendation within it counts."""
    up: tuple[Limit, ...] = (Limit("pods", 4, 15), Limit("percent", 100, 15))
    down: tuple[Limit, ...] = (Limit("percent", 100, 15),)


DEFAULT_BEHAVIOUR = Behaviour()


class Normalizer:
    """What the controller does with a recommendation before it writes it: stabilise, limit the rate, keep bounds."""

    def __init__(self, minimum: int, maximum: int, behaviour: Behaviour) -> None:
        self._minimum = minimum
        self._maximum = maximum
        self._behaviour = behaviour
        self._recommended: list[tuple[float, int]] = []
        self._changes: list[tuple[float, int]] = []
        """When, and by how many replicas."""
        self._memory = max(
            behaviour.up_window,
            behaviour.down_window,
            *(rule.period for rule in behaviour.up + behaviour.down),
        )

    def apply(self, now: float, replicas: int, recommendation: int | None) -> int:
        """Return the count to write. `recommendation`: None if no metric could be read."""
        if not self._recommended:
            # The count found at the start counts as recommended then.
            self._recommended.append((now, replicas))
        if replicas > self._maximum:
            wanted = self._maximum
        elif replicas < self._minimum:
            wanted = self._minimum
        elif recommendation is None:
            wanted = replicas
        else:
            wanted = self._limited(now, replicas, self._stabilised(now, replicas, recommendation))
        if wanted != replicas:
            self._changes.append((now, wanted - replicas))
        self._forget(now)
        return wanted

    def _stabilised(self, now: float, replicas: int, recommendation: int) -> int:
        self._recommended.append((now, recommendation))
        low = self._recent(now, self._behaviour.up_window)
        high = self._recent(now, self._behaviour.down_window)
        return min(max(replicas, min(low, default=recommendation)), max(high, default=recommendation))

    def _recent(self, now: float, window: float) -> list[int]:
        young = [count for time, count in self._recommended[:-1] if time > now - window]
        return [*young, self._recommended[-1][1]]

    def _limited(self, now: float, replicas: int, wanted: int) -> int:
        if wanted > replicas:
            limits = []
            for rule in self._behaviour.up:
                start = self._start(now, replicas, rule.period)
                grown = start + rule.value if rule.kind == "pods" else start * (1 + rule.value / 100)
                limits.append(round_up(grown))
            return min(wanted, max(replicas, *limits), self._maximum)
        if wanted < replicas:
            limits = []
            for rule in self._behaviour.down:
                start = self._start(now, replicas, rule.period)
                shrunk = start - rule.value if rule.kind == "pods" else start * (1 - rule.value / 100)
                limits.append(round_down(shrunk))
            return max(wanted, min(replicas, *limits), self._minimum)
        return replicas

    def _start(self, now: float, replicas: int, period: float) -> int:
        """Return the count that a period began with."""
        return replicas - sum(change for time, change in self._changes if time > now - period)

    def _forget(self, now: float) -> None:
        oldest = now - self._memory
        last = self._recommended[-1]
        self._recommended = [entry for entry in self._recommended if entry[0] > oldest] or [last]
        self._changes = [entry for entry in self._changes if entry[0] > oldest]


def within_tolerance(ratio: float, tolerance: float) -> bool:
    """Whether a ratio is too close to 1 to act on."""
    return abs(1 - ratio) <= tolerance + ROUNDING


def pods_recommendation(
    average: float,
    target: float,
    *,
    ready: int,
    starting: int,
    replicas: int,
    tolerance: float = TOLERANCE,
    starting_as: Starting = "missing",
) -> int | None:
    """Recommend a count from a metric of each pod; None without any pod that has one.

    `starting` pods count as 0 when the ready ones call for more. When these call for fewer, a pod whose metric is
    `missing` counts as exactly on target, one that is `unready` is left out. A result that would turn the direction
    round changes nothing.
    """
    if ready <= 0:
        return None
    ratio = average / target
    missing = starting if starting_as == "missing" else 0
    unready = starting if starting_as == "unready" and ratio > 1 else 0
    if not missing and not unready:
        return replicas if within_tolerance(ratio, tolerance) else round_up(ratio * ready)
    pods = ready + missing + unready
    total = ratio * ready + (missing if ratio < 1 else 0)
    corrected = total / pods
    if within_tolerance(corrected, tolerance) or (ratio - 1) * (corrected - 1) < 0:
        return replicas
    count = round_up(total)
    turned = count > replicas if corrected < 1 else count < replicas
    return replicas if turned else count


def external_recommendation(total: float, target: float, replicas: int, tolerance: float = TOLERANCE) -> int:
    """Recommend a count from a metric of the whole workload with a target for each pod (`AverageValue`)."""
    if replicas > 0 and within_tolerance(total / (target * replicas), tolerance):
        return replicas
    return round_up(total / target)


def largest(recommendations: Sequence[int | None], replicas: int) -> int | None:
    """Combine the recommendations of several metrics: the largest; none downwards while one could not be read."""
    known = [count for count in recommendations if count is not None]
    if not known or (len(known) < len(recommendations) and max(known) < replicas):
        return None
    return max(known)


@dataclass(frozen=True, slots=True)
class HpaSettings:
    """One metric and its target for each pod."""

    metric: Metric
    target: Target
    """`gpu`, `cpu`: share of the time, share of the request. `concurrency`: requests."""
    tolerance: float = TOLERANCE
    behaviour: Behaviour = DEFAULT_BEHAVIOUR


class Hpa(PublishedRule):
    """One HPA on one metric.

    A pod that loads its model runs but is not Ready: its own metrics are missing; its CPU counts as unready, since it
    has not been Ready within the CPU initialisation period.
    """

    def __init__(self, name: str, scenario: Scenario, settings: HpaSettings) -> None:
        super().__init__(name, SYNC_PERIOD, scenario, to_zero=False)
        self._settings = settings
        self._target = settings.target.of(scenario)
        self._normalizer = Normalizer(self.minimum, self.maximum, settings.behaviour)

    def desired(self, signals: Signals, replicas: int) -> int:
        """Recommend by the metric, then normalise."""
        recommendation = pods_recommendation(
            self._average(signals),
            self._target,
            ready=signals.ready,
            starting=signals.pending,
            replicas=replicas,
            tolerance=self._settings.tolerance,
            starting_as="unready" if self._settings.metric == "cpu" else "missing",
        )
        return self._normalizer.apply(signals.time, replicas, recommendation)

    def _average(self, signals: Signals) -> float:
        if self._settings.metric == "gpu":
            return signals.busy
        if self._settings.metric == "cpu":
            return IDLE_CPU + (BUSY_CPU - IDLE_CPU) * min(signals.busy, 1.0)
        in_engines = signals.running + max(0.0, signals.waiting - signals.gateway_waiting)
        return in_engines / max(signals.ready, 1)
