"""Keeps the gateway's routing table in line with the fleet: whoever changes something asks, one task builds."""

import asyncio
import logging
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import replace

from modelyard.core.budget.decide import RuleMemory, apply_budgets
from modelyard.core.budget.prices import price_targets
from modelyard.core.certificates import Certificate
from modelyard.core.load import LoadShape
from modelyard.core.names import build_routing_table, resolve_names
from modelyard.core.providerlimits import find_reached
from modelyard.core.routing import RoutingTable, route_name
from modelyard.core.snapshot import Snapshot
from modelyard.gateway.ads import AdsServer
from modelyard.gateway.resources import ResourceBuilder
from modelyard.runtime.fleet import Fleet
from modelyard.runtime.limits import LimitBook
from modelyard.runtime.settings import OperatorSettings

logger = logging.getLogger(__name__)


class Publisher:
    """Builds the table whenever it is asked to. Requests that come while it builds are served by one more build."""

    def __init__(
        self,
        fleet: Fleet,
        server: AdsServer,
        limits: LimitBook,
        settings: OperatorSettings,
        on_names: Callable[[AbstractSet[str]], None] = lambda _names: None,
    ) -> None:
        """`on_names` is told of names that belong to somebody else than before."""
        self._fleet = fleet
        self._on_names = on_names
        self._server = server
        self._limits = limits
        self._settings = settings
        self._builder = ResourceBuilder(settings.gateway)
        self._rules = RuleMemory()
        self._asked = asyncio.Event()
        self._offered = False
        self._secrets: tuple[dict[str, str], Certificate | None, dict[str, str]] = ({}, None, {})
        self._waiters: list[asyncio.Future[None]] = []

    def request(self) -> None:
        """Ask for a table that holds everything known by now."""
        self._asked.set()

    async def published(self) -> None:
        """Wait until a table built after this call has been handed to the ADS server."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        self._asked.set()
        await waiter

    async def run(self) -> None:
        """Build until cancelled."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            waiters, self._waiters = self._waiters, []
            self._publish()
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    def _publish(self) -> None:
        snapshot = self._fleet.snapshot_names()
        before, owners = self._fleet.owners, resolve_names(snapshot)
        self._fleet.owners = owners
        changed = {name for name in owners.keys() | before.keys() if owners.get(name) != before.get(name)}
        if changed:
            self._on_names(changed)
        table = build_routing_table(
            snapshot,
            self._fleet.owners,
            self._fleet.exposures(),
            self._fleet.table,
            self._fleet.routes_plan.routes,
            anonymous=self._settings.anonymous,
        )
        table = self._under_budgets(table, snapshot)
        secrets = (self._fleet.provider_keys, self._fleet.certificate, self._fleet.tenant_keys)
        if table != self._fleet.table or secrets != self._secrets or not self._offered:
            # The first table is offered even if it is empty: Envoy waits for one.
            self._offered = True
            self._fleet.table, self._secrets = table, secrets
            self._limits.set_limits(table.limits)
            resources = self._builder.build(table, *secrets)
            self._fleet.rollout.offer(table.routes, resources.routes_version)
            self._server.set_resources(resources)

    def _under_budgets(self, table: RoutingTable, snapshot: Snapshot) -> RoutingTable:
        """Return the table with what budgets, and used up limits of providers, make of its routes."""
        limits = find_reached(self._fleet.provider_limits)
        if not self._fleet.budgets and not limits:
            return table
        prices = price_targets(table, snapshot.deployments, snapshot.providers.values(), LoadShape())
        routes = snapshot.routes.items()
        by_cost = {route_name(key) for key, route in routes if route.spec.policy == "LowestCost"}
        limited = apply_budgets(table.routes, self._fleet.budgets, prices, by_cost, self._rules, limits)
        return replace(table, routes=limited)
