"""KubeAI: the mean of active requests over ten minutes.

Sources: substratusai/kubeai internal/modelautoscaler/autoscaler.go (the rule), internal/modelclient/scale.go
(consecutive decisions), charts/kubeai/values.yaml (10 s, 10 min), api/k8s/v1/model_types.go (100 requests, 30 s).

It scales one Model with one resource profile: neither several variants nor prefill and decode apart. It wakes a model
on the request itself; here, at its next decision.
"""

from collections import deque
from dataclasses import dataclass

from modelyard.simulator.rivals.common import PublishedRule, Target, round_up
from modelyard.simulator.scenario import Scenario, Signals

REQUESTS = Target(100)
"""Active requests for each replica."""


@dataclass(frozen=True, slots=True)
class KubeAISettings:
    """Of the chart and of the Model; times in seconds."""

    target_requests: Target = REQUESTS
    interval: float = 10.0
    window: float = 600.0
    scale_down_delay: float = 30.0


class KubeAI(PublishedRule):
    """Replicas = mean active requests / target; down only after enough decisions in a row that say so.

    A new model's window starts full of zeros. The scenario's replicas serve already, so the window starts full of the
    first reading instead, as after a restart of KubeAI, which stores its last mean.
    """

    def __init__(self, name: str, scenario: Scenario, settings: KubeAISettings) -> None:
        super().__init__(name, settings.interval, scenario, to_zero=True)
        self._target = settings.target_requests.of(scenario)
        self._samples: deque[float] = deque(maxlen=max(1, round_up(settings.window / settings.interval)))
        self._needed = round_up(settings.scale_down_delay / settings.interval)
        self._lower = 0

    def desired(self, signals: Signals, replicas: int) -> int:
        """Add the active requests to the mean and divide."""
        active = signals.running + signals.waiting
        if not self._samples:
            self._samples.extend([active] * (self._samples.maxlen or 1))
        self._samples.append(active)
        if replicas == 0 and active > 0:
            return 1
        count = self._bounded(round_up(sum(self._samples) / len(self._samples) / self._target))
        if count >= replicas:
            self._lower = 0
            return count
        if self._lower < self._needed:
            self._lower += 1
            return replicas
        # As in the original, the decisions in a row are not counted anew after a step down.
        return count
