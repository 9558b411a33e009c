"""The Knative Pod Autoscaler (KPA) on concurrency.

Sources: knative/serving pkg/autoscaler/scaling/autoscaler.go (the rule), multiscaler.go (2 s), pkg/autoscaler/config/
config.go (the figures below), pkg/autoscaler/aggregation/bucketing.go (means over what there is of a window).

It scales one revision: neither several variants nor prefill and decode apart. Its burst capacity only moves the
activator into the path, which does not change the count. Waking a revision takes one tick here.
"""

import math
from dataclasses import dataclass

from modelyard.simulator.rivals.common import PublishedRule, Target, Window, round_up
from modelyard.simulator.scenario import Scenario, Signals

TICK = 2.0
"""Seconds (tickInterval)."""

CONCURRENCY = Target(100)
"""Requests in flight for each replica (container-concurrency-target-default)."""


@dataclass(frozen=True, slots=True)
class KnativeSettings:
    """The `config-autoscaler` ConfigMap; times in seconds."""

    concurrency: Target = CONCURRENCY
    target_utilization: float = 0.7
    """Share of that (container-concurrency-target-percentage)."""
    stable_window: float = 60.0
    panic_window_share: float = 0.1
    """Of the stable window."""
    panic_threshold: float = 2.0
    """Times what the ready replicas are for."""
    max_scale_up: float = 1000.0
    max_scale_down: float = 2.0
    scale_down_delay: float = 0.0
    to_zero_grace: float = 30.0


class Knative(PublishedRule):
    """Replicas = concurrency / target: over a minute, or over the last 6 s in a panic, which only adds replicas."""

    def __init__(self, name: str, scenario: Scenario, settings: KnativeSettings) -> None:
        super().__init__(name, TICK, scenario, to_zero=True)
        self._settings = settings
        self._target = settings.concurrency.of(scenario) * settings.target_utilization
        self._stable = Window(settings.stable_window)
        self._panic = Window(settings.stable_window * settings.panic_window_share)
        self._delayed = Window(max(settings.scale_down_delay, TICK))
        self._panicking_since: float | None = None
        self._panic_replicas = 0
        self._started = False
        self._idle_since: float | None = None

    def desired(self, signals: Signals, replicas: int) -> int:
        """Follow the published rule for one tick."""
        if not self._started:
            self._started = True
            if signals.ready > 1:
                # A new autoscaler starts in a panic: it has no history yet, and shall not scale down for that.
                self._panicking_since, self._panic_replicas = signals.time, signals.ready
        concurrency = signals.mean_running + signals.mean_waiting
        self._stable.add(signals.time, concurrency)
        self._panic.add(signals.time, concurrency)
        count = self._decide(signals.time, max(1, signals.ready))
        if self._settings.scale_down_delay > 0:
            self._delayed.add(signals.time, count)
            count = round_up(self._delayed.largest)
        return self._with_grace(signals.time, replicas, count)

    def _decide(self, now: float, ready: int) -> int:
        settings = self._settings
        highest = math.ceil(settings.max_scale_up * ready)
        lowest = math.floor(ready / settings.max_scale_down)
        stable = round_up(self._stable.mean / self._target)
        panic = round_up(self._panic.mean / self._target)
        count = min(max(stable, lowest), highest)
        if panic / ready >= settings.panic_threshold:
            self._panicking_since = now
        elif self._panicking_since is not None and now - self._panicking_since > settings.stable_window:
            self._panicking_since, self._panic_replicas = None, 0
        if self._panicking_since is None:
            return count
        self._panic_replicas = max(self._panic_replicas, count, min(max(panic, lowest), highest))
        return self._panic_replicas

    def _with_grace(self, now: float, replicas: int, count: int) -> int:
        """Keep one replica for the grace period."""
        if count > 0 or replicas == 0:
            self._idle_since = None
            return count
        if self._idle_since is None:
            self._idle_since = now
        return 0 if now - self._idle_since >= self._settings.to_zero_grace else 1
