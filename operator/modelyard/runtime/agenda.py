"""What has to be looked at again after a change: keys of deployments and routes for the work queue."""

import logging
import time
from collections.abc import Set as AbstractSet

from modelyard.core.budget.scope import ROUTE_SUFFIX
from modelyard.core.routing import route_name
from modelyard.runtime.fleet import Fleet
from modelyard.runtime.holds import HoldBoard
from modelyard.runtime.logs import ROUTE_PREFIX, about
from modelyard.runtime.metrics import WAKES
from modelyard.runtime.queue import WorkQueue

logger = logging.getLogger(__name__)


class Agenda:
    """Adds to the work queue whatever a change concerns. Nothing here waits."""

    def __init__(self, fleet: Fleet, queue: WorkQueue, holds: HoldBoard) -> None:
        self._fleet = fleet
        self._queue = queue
        self._holds = holds

    def add_deployments(self) -> None:
        """Look at every deployment."""
        for key in self._fleet.deployment_keys():
            self._queue.add(key)

    def add_routes(self) -> None:
        """Look at every route."""
        for key in self._fleet.route_keys():
            self._queue.add(ROUTE_PREFIX + key)

    def add_routes_to(self, deployment: str) -> None:
        """Look at the routes that have this deployment among their targets."""
        for key in self._fleet.routes_to(deployment):
            self._queue.add(ROUTE_PREFIX + key)

    def route_changed(self, key: str) -> None:
        """Take in that a route was made, changed or deleted."""
        follows = self._fleet.notice_route(key)
        # Of those that are closed it has changed whether their pods may reach anything outside.
        for other in (*(ROUTE_PREFIX + name for name in {key} | follows.siblings), *follows.closed):
            self._queue.add(other)

    def names_changed(self, names: AbstractSet[str]) -> None:
        """Take in that these names belong to somebody else than before."""
        for route in self._fleet.readable_routes():
            if route.spec.model in names or route.key in names:
                self._queue.add(ROUTE_PREFIX + route.key)

    def route_reported(self, name: str) -> None:
        """Take in that something else is to be told of a route. Names of deployments have no status of this kind."""
        key = name.removesuffix(ROUTE_SUFFIX)
        if route_name(key) == name and self._fleet.route(key) is not None:
            self._queue.add(ROUTE_PREFIX + key)

    def wake(self, deployment: str, generation: int, node: str) -> None:
        """Take in the wake signal of a held request. An adapter's request wakes its deployment."""
        key = deployment.partition(":")[0]
        logger.info(
            "Envoy %s holds a request for %s (generation %d)", node, key, generation, extra=about(key)
        )
        WAKES.inc()
        self._holds.note(key)
        self._fleet.wakes[key] = time.time()
        self._queue.add(key)
