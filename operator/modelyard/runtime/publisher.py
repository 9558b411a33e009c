"""Keeps the gateway's routing table in line with the fleet: whoever changes something asks, one task builds.

It builds in a thread, from a snapshot that never changes: with thousands of models that takes longer than an Envoy, or
a probe, may wait for the event loop. What comes of it is taken over on the loop, one build after the other.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from modelyard.core.budget.decide import RuleMemory, apply_budgets
from modelyard.core.budget.judge import Standing
from modelyard.core.budget.prices import price_targets
from modelyard.core.certificates import Certificate
from modelyard.core.load import LoadShape
from modelyard.core.names import Claim, Exposure, build_routing_table, resolve_names
from modelyard.core.providerlimits import ReachedLimit, find_reached
from modelyard.core.routeplan.model import RoutePlan
from modelyard.core.routing import RoutingTable, route_name
from modelyard.core.snapshot import Snapshot
from modelyard.core.sovereign import sovereign_names
from modelyard.gateway.ads import AdsServer
from modelyard.gateway.resources import ResourceBuilder, Resources
from modelyard.runtime.fleet import Fleet
from modelyard.runtime.limits import LimitBook
from modelyard.runtime.settings import OperatorSettings

logger = logging.getLogger(__name__)


Secrets = tuple[Mapping[str, str], Certificate | None, Mapping[str, str]]
"""API keys of providers, the gateway's certificate, and names of tenants by the digests of their keys."""


@dataclass(frozen=True, slots=True)
class _Known:
    """Everything that a build looks at, as it was when the build began."""

    snapshot: Snapshot
    owners: Mapping[str, Claim]
    exposures: Mapping[str, Exposure]
    table: RoutingTable
    plans: Mapping[str, RoutePlan]
    budgets: tuple[Standing, ...]
    limits: tuple[ReachedLimit, ...]
    secrets: Secrets = field(repr=False)
    changed: bool
    """Whether resources are wanted though the table is the same."""


@dataclass(frozen=True, slots=True)
class _Built:
    """What came of it."""

    owners: dict[str, Claim]
    closed_names: frozenset[tuple[str, str]]
    names: frozenset[str]
    """Those that belong to somebody else than before."""
    table: RoutingTable
    resources: Resources | None
    """None: they are those that are offered already."""


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
        # Only the thread touches these two, and there is never more than one build.
        self._thread = ThreadPoolExecutor(1, "publisher")
        self._asked = asyncio.Event()
        self._offered = False
        self._secrets: Secrets = ({}, None, {})
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
            await self._publish()
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    async def _publish(self) -> None:
        known = self._look()
        loop = asyncio.get_running_loop()
        built = await loop.run_in_executor(self._thread, self._build, known)
        fleet = self._fleet
        fleet.owners, fleet.names, fleet.closed_names = built.owners, known.snapshot, built.closed_names
        if built.names:
            self._on_names(built.names)
        if built.resources is None:
            return
        self._offered = True
        fleet.table, self._secrets = built.table, known.secrets
        self._limits.set_limits(built.table.limits)
        fleet.rollout.offer(built.table.routes, built.resources.routes_version)
        self._server.set_resources(built.resources)

    def _look(self) -> _Known:
        """Return everything that a build looks at. What the fleet changes in place is copied."""
        fleet = self._fleet
        secrets = (dict(fleet.provider_keys), fleet.certificate, dict(fleet.tenant_keys))
        return _Known(
            snapshot=fleet.snapshot_names(),
            owners=fleet.owners,
            exposures=fleet.exposures(),
            table=fleet.table,
            plans=fleet.routes_plan.routes,
            budgets=fleet.budgets,
            limits=tuple(find_reached(fleet.provider_limits)),
            secrets=secrets,
            # The first table is offered even if it is empty: Envoy waits for one.
            changed=secrets != self._secrets or not self._offered,
        )

    def _build(self, known: _Known) -> _Built:
        """Build in the thread. Nothing here may look at the fleet."""
        before, owners = known.owners, resolve_names(known.snapshot)
        names = frozenset(
            name for name in owners.keys() | before.keys() if owners.get(name) != before.get(name)
        )
        table = build_routing_table(
            known.snapshot,
            owners,
            known.exposures,
            known.table,
            known.plans,
            anonymous=self._settings.anonymous,
        )
        table = self._under_budgets(table, known)
        wanted = known.changed or table != known.table
        return _Built(
            owners,
            sovereign_names(known.snapshot.routes.values()),
            names,
            table,
            self._builder.build(table, *known.secrets) if wanted else None,
        )

    def _under_budgets(self, table: RoutingTable, known: _Known) -> RoutingTable:
        """Return the table with what budgets, and used up limits of providers, make of its routes."""
        if not known.budgets and not known.limits:
            return table
        snapshot = known.snapshot
        prices = price_targets(table, snapshot.deployments, snapshot.providers.values(), LoadShape())
        routes = snapshot.routes.items()
        by_cost = {route_name(key) for key, route in routes if route.spec.policy == "LowestCost"}
        limited = apply_budgets(
            table.routes,
            known.budgets,
            prices,
            by_cost,
            self._rules,
            known.limits,
            silent=snapshot.silent,
            tried=snapshot.tried,
        )
        return replace(table, routes=limited)
