"""llm-d's SLO-aware path: the 90th percentile of latency against the objective, KEDA's formula, an HPA.

Sources: llm-d/llm-d guides/workload-autoscaling/README.slo-aware.md (signal, formula, thresholds, HPA behaviour);
llm-d/llm-d-autoscaling pull request 1376 (95.8 % attainment at 26 % less cost than a static peak).

The objective is the operator's: here the scenario's, for its mean prompt. The guide covers one variant and one
objective; for prefill and decode apart it calls itself future work.
"""

from dataclasses import dataclass

from modelyard.simulator.rivals.common import (
    PublishedRule,
    Window,
    first_token_objective,
    mean_shape,
    round_down,
    round_up,
)
from modelyard.simulator.rivals.hpa import (
    SYNC_PERIOD,
    TOLERANCE,
    Behaviour,
    Limit,
    Normalizer,
    external_recommendation,
)
from modelyard.simulator.scenario import Scenario, Signals

ACTUATION = Behaviour(
    up_window=30.0,
    down_window=180.0,
    up=(Limit("percent", 100, 60), Limit("pods", 4, 60)),
    down=(Limit("pods", 1, 120),),
)
"""The guide's HPA behaviour."""


@dataclass(frozen=True, slots=True)
class EppSaturationSettings:
    """Recording rules, formula and HPA."""

    scale_up: float = 0.55
    """Share of the objective above which replicas are added."""
    scale_down: float = 0.40
    clamp: float = 2.0
    smoothing: float = 45.0
    """Seconds over which the clamped signal is averaged."""
    predicted: bool = True
    """Whether the router predicts latency: it then sees the wait of a request that comes now, and not only those of
    requests that have had their first token."""
    tolerance: float = TOLERANCE
    behaviour: Behaviour = ACTUATION


class EppSaturation(PublishedRule):
    """Replicas in proportion to the smoothed share of the objective that the 90th percentile takes.

    The original's percentiles are over a minute, sampled every 15 s; the signals give those of the last 15 s, so this
    reacts sooner. Its predictor is a learned model; here it foresees the queue perfectly: waiting requests over the
    ready replicas' capacity.
    """

    def __init__(self, name: str, scenario: Scenario, settings: EppSaturationSettings) -> None:
        super().__init__(name, SYNC_PERIOD, scenario, to_zero=False)
        self._settings = settings
        self._capacity = scenario.capacity
        self._first_token = first_token_objective(scenario, mean_shape(scenario.arrivals).input_tokens)
        self._inter_token = scenario.objective.inter_token
        self._signal = Window(settings.smoothing)
        self._normalizer = Normalizer(self.minimum, self.maximum, settings.behaviour)

    def desired(self, signals: Signals, replicas: int) -> int:
        """Evaluate the recording rules, the formula and the HPA."""
        self._signal.add(signals.time, min(self._saturation(signals), self._settings.clamp))
        count = formula(self._signal.mean, replicas, signals.ready, self._settings)
        recommendation = external_recommendation(max(count, 0), 1.0, replicas, self._settings.tolerance)
        return self._normalizer.apply(signals.time, replicas, recommendation)

    def _saturation(self, signals: Signals) -> float:
        first_token = signals.first_token_p90 or 0.0
        if self._settings.predicted and signals.waiting > 0:
            wait = signals.waiting / (signals.ready * self._capacity) if signals.ready else float("inf")
            first_token = max(first_token, wait)
        return max(first_token / self._first_token, (signals.inter_token_p90 or 0.0) / self._inter_token)


def formula(saturation: float, replicas: int, ready: int, settings: EppSaturationSettings) -> int:
    """Return KEDA's formula: only the deficit beyond what already starts upwards, the plain signal downwards."""
    if saturation > settings.scale_up:
        credit = ready / replicas if 0 < ready < replicas else 1.0
        return replicas + round_up(replicas * (saturation * credit / settings.scale_up - 1))
    if saturation < settings.scale_down:
        return replicas - round_down(replicas * (1 - saturation / settings.scale_down))
    return replicas
