"""Ray Serve: ongoing requests for each replica, with delays.

Sources: ray-project/ray python/ray/serve/autoscaling_policy.py (the rule), python/ray/serve/config.py (look-back 30 s,
delays 30 s and 600 s, factors 1), python/ray/serve/_private/constants.py (2 ongoing requests, metrics every 10 s).

The controller decides every 0.1 s on figures that change every 10 s; here it decides every 10 s, and a delay is the
same number of seconds. It scales one deployment: several variants, or prefill and decode, each by itself.
"""

from dataclasses import dataclass

from modelyard.simulator.rivals.common import PublishedRule, Target, Window, round_up
from modelyard.simulator.scenario import Scenario, Signals

PUSH_INTERVAL = 10.0
"""Seconds between two pushes of the handles' figures."""

ONGOING = Target(2)
"""Requests that run or wait, for each replica."""


@dataclass(frozen=True, slots=True)
class RayServeSettings:
    """The `autoscaling_config` of a deployment; times in seconds."""

    target_ongoing_requests: Target = ONGOING
    look_back: float = 30.0
    upscale_delay: float = 30.0
    downscale_delay: float = 600.0
    downscale_to_zero_delay: float | None = None
    """None: as `downscale_delay`."""
    upscaling_factor: float = 1.0
    downscaling_factor: float = 1.0


class RayServe(PublishedRule):
    """Replicas = ongoing requests / target, once every decision of a delay has pointed the same way."""

    def __init__(self, name: str, scenario: Scenario, settings: RayServeSettings) -> None:
        super().__init__(name, PUSH_INTERVAL, scenario, to_zero=True)
        self._settings = settings
        self._target = settings.target_ongoing_requests.of(scenario)
        self._ongoing = Window(settings.look_back)
        self._counter = 0
        """Decisions in a row: upwards if positive, downwards if negative."""

    def desired(self, signals: Signals, replicas: int) -> int:
        """Scale the difference by the factor, keep the bounds, then wait out the delay."""
        self._ongoing.add(signals.time, signals.mean_running + signals.mean_waiting)
        if replicas == 0:
            busy = signals.running + signals.waiting > 0 or self._ongoing.largest > 0
            return max(1, round_up(self._settings.upscaling_factor)) if busy else 0
        return self._delayed(replicas, self._bounded(self._scaled(signals.ready)))

    def _scaled(self, running: int) -> int:
        wanted = self._ongoing.mean / self._target
        settings = self._settings
        factor = settings.upscaling_factor if wanted > running else settings.downscaling_factor
        count = round_up(running + factor * (wanted - running))
        stuck = round_up(wanted) < running and count == running
        return count - 1 if stuck else count

    def _delayed(self, replicas: int, wanted: int) -> int:
        settings = self._settings
        if wanted == replicas:
            self._counter = 0
            return replicas
        if wanted > replicas:
            self._counter = max(self._counter, 0) + 1
            delay = settings.upscale_delay
        else:
            self._counter = min(self._counter, 0) - 1
            to_zero = settings.downscale_to_zero_delay if replicas == 1 else None
            delay = settings.downscale_delay if to_zero is None else to_zero
            wanted = wanted if replicas == 1 else max(1, wanted)
        if abs(self._counter) > int(delay / PUSH_INTERVAL):
            self._counter = 0
            return wanted
        return replicas
