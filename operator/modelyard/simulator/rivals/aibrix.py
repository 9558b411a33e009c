"""AIBrix: its APA and KPA strategies.

Sources: vllm-project/aibrix pkg/controller/podautoscaler: algorithm/apa.go and kpa.go (the rules), context/context.go
(rates 2, tolerances 10 %, cooldown 300 s, panic threshold 2), metrics/client.go (windows 180 s and 60 s, means over
pods), podautoscaler_controller.go (10 s, cooldown); samples/autoscaling (targets).

A PodAutoscaler scales one workload. The GPU optimiser that mixes GPU types is Melange's program (melange.py); with one
variant it sizes by load.
"""

import math
from dataclasses import dataclass
from typing import Literal

from modelyard.simulator.rivals.common import PublishedRule, Target, Window, round_up
from modelyard.simulator.scenario import Scenario, Signals

REQUEUE = 10.0
"""Seconds between two decisions (DefaultRequeueDuration)."""


@dataclass(frozen=True, slots=True)
class ScalingContext:
    """What both strategies share; times in seconds."""

    up_tolerance: float = 0.1
    down_tolerance: float = 0.1
    max_up_rate: float = 2.0
    max_down_rate: float = 2.0
    up_cooldown: float = 0.0
    down_cooldown: float = 300.0
    stable_window: float = 180.0


DEFAULT_CONTEXT = ScalingContext()

CACHE_TARGET = Target(0.5)
"""Share of the cache in use (samples/autoscaling/apa.yaml)."""

REQUESTS_TARGET = Target(100)
"""Requests for each replica (samples/autoscaling/external-metrics-kpa.yaml)."""


@dataclass(frozen=True, slots=True)
class ApaSettings:
    """A metric of each pod."""

    metric: Literal["cache", "concurrency"] = "cache"
    target: Target = CACHE_TARGET
    """`cache`: share of the cache in use. `concurrency`: requests."""
    context: ScalingContext = DEFAULT_CONTEXT


@dataclass(frozen=True, slots=True)
class KpaSettings:
    """The requests that run in the whole workload."""

    target: Target = REQUESTS_TARGET
    panic_window: float = 60.0
    """Seconds."""
    panic_threshold: float = 2.0
    """Times the stable mean."""
    context: ScalingContext = DEFAULT_CONTEXT


class Cooldown:
    """What AIBrix does with recommendations: the highest within the window upwards, the lowest downwards.

    It is said to be like the HPA, which takes the highest downwards: here the window makes it go down further.
    """

    def __init__(self, context: ScalingContext) -> None:
        self._context = context
        self._recommended: list[tuple[float, int]] = []

    def apply(self, now: float, replicas: int, recommendation: int) -> int:
        """Return the count to write."""
        self._recommended.append((now, recommendation))
        longest = max(self._context.up_cooldown, self._context.down_cooldown)
        self._recommended = [entry for entry in self._recommended if entry[0] > now - longest]
        if recommendation == replicas:
            return replicas
        up = recommendation > replicas
        window = self._context.up_cooldown if up else self._context.down_cooldown
        recent = [count for time, count in self._recommended if time > now - window]
        return (max if up else min)(recent, default=recommendation)


class Apa(PublishedRule):
    """Replicas in proportion to the mean of the metric over its window, within a tolerance and a rate."""

    def __init__(self, name: str, scenario: Scenario, settings: ApaSettings) -> None:
        super().__init__(name, REQUEUE, scenario, to_zero=False)
        self._settings = settings
        self._target = settings.target.of(scenario)
        self._stable = Window(settings.context.stable_window)
        self._cooldown = Cooldown(settings.context)

    def desired(self, signals: Signals, replicas: int) -> int:
        """Read the pods that are ready; without one there is no metric and no change."""
        if signals.ready == 0:
            return replicas
        self._stable.add(signals.time, self._value(signals))
        count = self._bounded(self._recommend(replicas, self._stable.mean / self._target))
        return self._cooldown.apply(signals.time, replicas, count)

    def _value(self, signals: Signals) -> float:
        if self._settings.metric == "cache":
            return signals.cache_usage
        return (signals.running + max(0.0, signals.waiting - signals.gateway_waiting)) / signals.ready

    def _recommend(self, replicas: int, ratio: float) -> int:
        context = self._settings.context
        if ratio > 1 + context.up_tolerance:
            return min(round_up(replicas * ratio), math.ceil(context.max_up_rate * replicas))
        if ratio < 1 - context.down_tolerance:
            return max(round_up(replicas * ratio), math.floor(replicas / context.max_down_rate))
        return replicas


class Kpa(PublishedRule):
    """Replicas = requests / target over the stable window; in a panic, the larger of that and over the shorter one.

    On a metric of each pod this rule would divide the mean of one pod by the target, so it is used with a metric of
    the whole workload, as its sample does. Unlike Knative's, its panic holds nothing: the context with the panic's
    count is made anew for each decision.
    """

    def __init__(self, name: str, scenario: Scenario, settings: KpaSettings) -> None:
        super().__init__(name, REQUEUE, scenario, to_zero=False)
        self._settings = settings
        self._target = settings.target.of(scenario)
        self._stable = Window(settings.context.stable_window)
        self._panic = Window(settings.panic_window)
        self._cooldown = Cooldown(settings.context)

    def desired(self, signals: Signals, replicas: int) -> int:
        """Follow the published rule for one decision."""
        in_flight = signals.running + signals.waiting
        self._stable.add(signals.time, in_flight)
        self._panic.add(signals.time, in_flight)
        return self._cooldown.apply(signals.time, replicas, self._bounded(self._recommend(replicas)))

    def _recommend(self, replicas: int) -> int:
        stable, panic = self._stable.mean, self._panic.mean
        count = self._within_rate(replicas, stable)
        if stable > 0 and panic / stable <= self._settings.panic_threshold:
            return count
        return max(count, self._within_rate(replicas, panic))

    def _within_rate(self, replicas: int, value: float) -> int:
        context = self._settings.context
        near = (
            (1 - context.down_tolerance) * self._target <= value <= (1 + context.up_tolerance) * self._target
        )
        count = replicas if near else round_up(value / self._target)
        highest = max(1, math.ceil(context.max_up_rate * replicas))
        return min(max(count, math.floor(replicas / context.max_down_rate)), highest)
