"""Decides at every reading where the requests of LLMRoutes go, and has it published, told and counted.

It decides in a thread, from values that never change. What follows is taken over on the event loop: one decision after
the other, and nobody else writes what it writes.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from prometheus_client import Gauge

from modelyard.api.meta import split_key
from modelyard.core.routeplan.decide import decide_routes
from modelyard.core.routeplan.model import RoutePlan, RoutesMemory, RoutesPlan
from modelyard.core.routeplan.views import needs_plan
from modelyard.core.routestatus import tell_plan
from modelyard.core.routing import Route
from modelyard.core.snapshot import Snapshot
from modelyard.core.state import DeploymentMemory
from modelyard.core.status import format_time
from modelyard.runtime.fleet import Fleet, is_settled
from modelyard.runtime.logs import about
from modelyard.runtime.metrics import ROUTE_CHANGES, ROUTE_COST, ROUTE_SHARE, ROUTE_SPILLED
from modelyard.runtime.settings import OperatorSettings

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Known:
    """Everything that a decision looks at, as it was when it began."""

    now: float
    """Unix time."""
    snapshot: Snapshot
    table: tuple[Route, ...]
    memory: RoutesMemory
    deployments: Mapping[str, DeploymentMemory]
    before: RoutesPlan
    readable: frozenset[str]
    """LLMRoutes, by key, that stand as the snapshot has them: of others no status follows from a plan."""
    written: Mapping[str, float]
    """Unix time of the last write of each LLMRoute's status."""


@dataclass(frozen=True, slots=True)
class _Decided:
    """What came of it."""

    plan: RoutesPlan
    memory: RoutesMemory
    moved: bool
    """Whether the gateway is to be configured otherwise."""
    untold: tuple[str, ...]
    """LLMRoutes whose status is too far from what should stand."""


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
        self._thread = ThreadPoolExecutor(1, "routes")
        self._series: set[tuple[Gauge, tuple[str, ...]]] = set()
        """Gauges and label values that are shown."""
        self._counted: dict[str, set[str]] = {}
        """Reasons that changes were counted under, by LLMRoute."""

    async def decide(self, now: float) -> None:
        """Decide, and ask for what follows from it. `now`: Unix time. Not to be called before the last call is over."""
        fleet = self._fleet
        before = fleet.routes_plan
        if not before.routes and not any(needs_plan(route) for route in fleet.readable_routes()):
            # Most fleets: a view of all pods for nothing would cost more than all else here.
            return
        known = _Known(
            now,
            fleet.snapshot_routes(),
            fleet.table.routes,
            fleet.routes_memory,
            dict(fleet.memory),
            before,
            frozenset(
                key
                for key in fleet.route_keys()
                if (seen := fleet.route(key)) is not None and seen.object is not None
            ),
            dict(fleet.routes_written),
        )
        loop = asyncio.get_running_loop()
        decided = await loop.run_in_executor(self._thread, self._decide, known)
        after = decided.plan
        fleet.routes_plan, fleet.routes_memory = after, decided.memory
        if decided.moved:
            self._publish()
        for key, plan in after.routes.items():
            self._note_change(key, before.routes.get(key), plan)
        # Whoever looks compares with what stands by then.
        for key in decided.untold:
            self._look_at(key)
        for key in before.routes.keys() - after.routes.keys():
            self._look_at(key)
        self._forget_changes()

    def _decide(self, known: _Known) -> _Decided:
        """Decide in the thread. Nothing here may look at the fleet."""
        plan, memory = decide_routes(
            known.snapshot,
            known.table,
            known.memory,
            known.deployments,
            known.now,
            self._settings.policy,
        )
        self._show(plan.routes)
        return _Decided(
            plan,
            memory,
            _ways(known.before.routes) != _ways(plan.routes),
            tuple(key for key, item in plan.routes.items() if self._is_untold(key, item, known)),
        )

    def _is_untold(self, key: str, plan: RoutePlan, known: _Known) -> bool:
        """Say whether what stands is too far from a plan."""
        route = known.snapshot.routes.get(key)
        if route is None or key not in known.readable:
            return False
        status = route.status
        settled = is_settled(known.written, key, known.now, self._settings.route_interval)
        # The conditions that are not decided here are left out on both sides.
        told = tell_plan(
            status.model_copy(update={"conditions": ()}), route, plan, known.now, settled=settled
        )
        kinds = {condition.type for condition in told.conditions}
        stood = tuple(item for item in status.conditions if item.type in kinds)
        return told != status.model_copy(update={"conditions": stood})

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
        """Set the metrics, and take away those of routes and targets that are gone. Called in the thread."""
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

    def _forget_changes(self) -> None:
        """Take away the counts of LLMRoutes that are gone."""
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
