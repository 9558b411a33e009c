"""Decides at every reading where the requests of LLMRoutes go, and has it published, told and counted."""

import logging
from collections.abc import Callable, Mapping

from prometheus_client import Gauge

from modelyard.api.meta import split_key
from modelyard.core.routeplan.decide import decide_routes
from modelyard.core.routeplan.model import RoutePlan
from modelyard.core.routeplan.views import needs_plan
from modelyard.core.routestatus import tell_plan
from modelyard.core.status import format_time
from modelyard.runtime.fleet import Fleet
from modelyard.runtime.logs import about
from modelyard.runtime.metrics import ROUTE_CHANGES, ROUTE_COST, ROUTE_SHARE, ROUTE_SPILLED
from modelyard.runtime.settings import OperatorSettings

logger = logging.getLogger(__name__)


class RouteDecider:
    """Decides about routes."""

    def __init__(
        self,
        fleet: Fleet,
        publish: Callable[[], None],
        look_at: Callable[[str], None],
        settings: OperatorSettings,
    ) -> None:
        """`publish` asks for a new routing table; `look_at` for work on the status of an LLMRoute, by its key."""
        self._fleet = fleet
        self._publish = publish
        self._look_at = look_at
        self._settings = settings
        self._series: set[tuple[Gauge, tuple[str, ...]]] = set()
        """Gauges and label values that are shown."""
        self._counted: dict[str, set[str]] = {}
        """Reasons that changes were counted under, by LLMRoute."""

    def decide(self, now: float) -> None:
        """Decide, and ask for what follows from it. `now`: Unix time."""
        fleet = self._fleet
        before = fleet.routes_plan
        if not before.routes and not any(needs_plan(route) for route in fleet.readable_routes()):
            # Most fleets: a view of all pods for nothing would cost more than all else here.
            return
        fleet.routes_plan, fleet.routes_memory = decide_routes(
            fleet.snapshot_routes(),
            fleet.table.routes,
            fleet.routes_memory,
            fleet.memory,
            now,
            self._settings.policy,
        )
        after = fleet.routes_plan
        if _ways(before.routes) != _ways(after.routes):
            self._publish()
        for key, plan in after.routes.items():
            self._note_change(key, before.routes.get(key), plan)
            self._look(key, plan, now)
        for key in before.routes.keys() - after.routes.keys():
            self._look_at(key)
        self._show(after.routes)

    def _look(self, key: str, plan: RoutePlan, now: float) -> None:
        """Ask for a new status if what stands is too far from it."""
        seen = self._fleet.route(key)
        if seen is None or seen.object is None:
            return
        status = seen.object.status
        # The conditions that are not decided here are left out on both sides.
        told = tell_plan(
            status.model_copy(update={"conditions": ()}),
            seen.object,
            plan,
            now,
            settled=self._fleet.is_settled(key, now, self._settings.route_interval),
        )
        kinds = {condition.type for condition in told.conditions}
        stood = tuple(item for item in status.conditions if item.type in kinds)
        if told != status.model_copy(update={"conditions": stood}):
            self._look_at(key)

    def _note_change(self, key: str, before: RoutePlan | None, after: RoutePlan) -> None:
        choice = after.choice
        if choice is None or choice.target is None or before is None or before.choice is None:
            return
        if before.choice.target == choice.target:
            return
        namespace, name = split_key(key)
        self._counted.setdefault(key, set()).add(choice.reason.code)
        ROUTE_CHANGES.labels(namespace=namespace, route=name, reason=choice.reason.code).inc()
        logger.info(
            "Route %s since %s: %s: %s",
            key,
            format_time(after.since),
            choice.reason.code,
            choice.reason.message,
            extra=about(key, "LLMRoute", choice.reason.code),
        )

    def _show(self, plans: Mapping[str, RoutePlan]) -> None:
        """Set the metrics, and take away those of routes and targets that are gone."""
        series: set[tuple[Gauge, tuple[str, ...]]] = set()

        def put(gauge: Gauge, labels: tuple[str, ...], value: float) -> None:
            gauge.labels(*labels).set(value)
            series.add((gauge, labels))

        for key, plan in plans.items():
            names = split_key(key)
            for upstream, part in first_parts(plan).items():
                put(ROUTE_SHARE, (*names, upstream), part)
            if plan.may_spill:
                put(ROUTE_SPILLED, names, plan.spilled)
            for cost in plan.choice.costs if plan.choice is not None else ():
                if cost.hourly is not None:
                    put(ROUTE_COST, (*names, cost.target.name), cost.hourly)
        for gauge, labels in self._series - series:
            gauge.remove(*labels)
        self._series = series
        for key in self._counted.keys() - set(self._fleet.route_keys()):
            for reason in self._counted.pop(key):
                ROUTE_CHANGES.remove(*split_key(key), reason)


def first_parts(plan: RoutePlan) -> dict[str, float]:
    """Return the part of a route's requests that comes first to each of its targets, 0 to 1, by key."""
    if plan.priority:
        return {target.upstream: float(number == 0) for number, target in enumerate(plan.targets)}
    total = sum(target.weight for target in plan.targets)
    return {target.upstream: target.weight / total if total else 0.0 for target in plan.targets}


def _ways(plans: Mapping[str, RoutePlan]) -> dict[str, tuple[object, ...]]:
    """Return what the gateway is configured from."""
    return {key: (plan.targets, plan.priority) for key, plan in plans.items()}
