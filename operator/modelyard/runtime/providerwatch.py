"""Watches what becomes of requests to providers: whether they answer, and what is left of their limits."""

import logging
from collections.abc import Callable

from prometheus_client import Gauge

from modelyard.core.answering import find_silent, find_tried, observe_attempts
from modelyard.core.providerlimits import count_limits, find_reached
from modelyard.core.routing import EXTERNAL_PREFIX
from modelyard.runtime.fleet import Fleet
from modelyard.runtime.metrics import PROVIDER_ANSWERING, PROVIDER_LIMITED

logger = logging.getLogger(__name__)


class ProviderWatch:
    """Takes in every reading of the gateway's counters, before routes are decided on."""

    def __init__(self, fleet: Fleet, publish: Callable[[], None]) -> None:
        """`publish` asks for a new routing table."""
        self._fleet = fleet
        self._publish = publish
        self._shown: set[tuple[Gauge, tuple[str, ...]]] = set()

    def look(self, now: float) -> None:
        """Work out what follows from the newest reading. `now`: Unix time."""
        fleet = self._fleet
        before, tried = find_silent(fleet.answers), find_tried(fleet.answers)
        reached = find_reached(fleet.provider_limits)
        if fleet.reading is not None:
            fleet.answers = observe_attempts(fleet.answers, fleet.reading.attempts, fleet.reading.time)
        fleet.provider_limits = count_limits(fleet.provider_limits, fleet.providers, fleet.reading, now)
        after = find_silent(fleet.answers)
        for key in after.keys() - before.keys():
            logger.warning("%s", after[key].message)
        for key in before.keys() - after.keys():
            logger.info(
                "%s answers again, or nobody has asked it for long", key.removeprefix(EXTERNAL_PREFIX)
            )
        # A budget that prefers what is cheaper puts silent providers last.
        silence = (after.keys(), find_tried(fleet.answers)) != (before.keys(), tried)
        if silence or find_reached(fleet.provider_limits) != reached:
            self._publish()
        self._show()

    def _show(self) -> None:
        """Set the metrics, and take away those of what is gone."""
        shown: set[tuple[Gauge, tuple[str, ...]]] = set()
        for key, memory in self._fleet.answers.items():
            provider, _, model = key.removeprefix(EXTERNAL_PREFIX).partition("/")
            PROVIDER_ANSWERING.labels(provider, model).set(float(memory.silence is None))
            shown.add((PROVIDER_ANSWERING, (provider, model)))
        for name, limit in self._fleet.provider_limits.items():
            for kind, amount in (("requests", limit.limits.requests), ("tokens", limit.limits.tokens)):
                if amount is not None:
                    used = limit.reached is not None and limit.reached.kind == kind
                    PROVIDER_LIMITED.labels(name, kind).set(float(used))
                    shown.add((PROVIDER_LIMITED, (name, kind)))
        for gauge, labels in self._shown - shown:
            gauge.remove(*labels)
        self._shown = shown
