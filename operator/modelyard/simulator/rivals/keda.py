"""KEDA on the engines' queue, and on queue and key-value cache; an HPA does the arithmetic.

Sources: https://keda.sh/docs/latest/reference/scaledobject-spec (polling 30 s, cooldown 300 s, both only for the step
between 0 and 1; the HPA asks for fresh values at each of its syncs unless `useCachedMetrics` is set), the queue of 5
for each replica from vllm-project/production-stack helm/values.yaml, 70 % of the cache from the saturation threshold
of llm-d/llm-d guides/workload-autoscaling/keda-epp.

One ScaledObject scales one workload: neither several variants nor prefill and decode apart. It does not know how long
a replica takes to start.
"""

from dataclasses import dataclass

from modelyard.simulator.rivals.common import PublishedRule, Target
from modelyard.simulator.rivals.hpa import (
    DEFAULT_BEHAVIOUR,
    SYNC_PERIOD,
    TOLERANCE,
    Behaviour,
    Normalizer,
    external_recommendation,
    largest,
)
from modelyard.simulator.scenario import Scenario, Signals

POLLING_INTERVAL = 30.0
"""Seconds."""

COOLDOWN_PERIOD = 300.0
"""Seconds."""

QUEUE = Target(5)
"""Requests that wait, for each replica."""


@dataclass(frozen=True, slots=True)
class KedaSettings:
    """The triggers of a ScaledObject; all are `AverageValue`."""

    queue: Target = QUEUE
    cache: float | None = None
    """Share of the cache in use, for each replica; None: no such trigger."""
    polling: float = POLLING_INTERVAL
    cooldown: float = COOLDOWN_PERIOD
    cached_metrics: bool = False
    """Whether the HPA sees the last poll instead of a fresh value (`useCachedMetrics`)."""
    tolerance: float = TOLERANCE
    behaviour: Behaviour = DEFAULT_BEHAVIOUR


class Keda(PublishedRule):
    """Scales on waiting requests, those at the gateway included, as a trigger on the router's queue sees them."""

    def __init__(self, name: str, scenario: Scenario, settings: KedaSettings) -> None:
        super().__init__(name, SYNC_PERIOD, scenario, to_zero=True)
        self._settings = settings
        self._queue_target = settings.queue.of(scenario)
        # The HPA works between 1 and the maximum; KEDA itself goes to 0 and back.
        self._normalizer = Normalizer(max(1, self.minimum), self.maximum, settings.behaviour)
        self._polled: float | None = None
        self._active_at: float | None = None
        self._values = (0.0, 0.0)

    def desired(self, signals: Signals, replicas: int) -> int:
        """Poll if it is time, then let the HPA decide, unless there is or shall be no replica."""
        values = (signals.waiting, signals.cache_usage * signals.ready)
        due = self._polled is None or signals.time - self._polled >= self._settings.polling
        if due or not self._settings.cached_metrics:
            self._values = values
        if due:
            self._polled = signals.time
            if self._active_at is None or any(values):
                self._active_at = signals.time
            if replicas == 0:
                return 1 if any(values) else 0
            if self._idle(signals.time) and self.minimum == 0:
                return 0
        return (
            0 if replicas == 0 else self._normalizer.apply(signals.time, replicas, self._recommend(replicas))
        )

    def _idle(self, now: float) -> bool:
        return self._active_at is not None and now - self._active_at >= self._settings.cooldown

    def _recommend(self, replicas: int) -> int | None:
        waiting, cache = self._values
        tolerance = self._settings.tolerance
        counts: list[int | None] = [external_recommendation(waiting, self._queue_target, replicas, tolerance)]
        if self._settings.cache is not None:
            counts.append(external_recommendation(cache, self._settings.cache, replicas, tolerance))
        return largest(counts, replicas)
