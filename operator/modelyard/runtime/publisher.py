"""Keeps the gateway's routing table in line with the fleet: whoever changes something asks, one task builds.

It builds in a thread, from a snapshot that never changes: with thousands of models that takes longer than an Envoy, or
a probe, may wait for the event loop. What comes of it is taken over on the loop, one build after the other.

Held requests wait for no build: pods of a model that had none are offered at once, as the next table has them too.
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
from modelyard.core.release import find_released, keep_released, with_upstreams
from modelyard.core.routeplan.model import RoutePlan
from modelyard.core.routing import RoutingTable, Upstream, route_name
from modelyard.core.snapshot import Snapshot
from modelyard.core.sovereign import sovereign_names
from modelyard.gateway.ads import AdsServer
from modelyard.gateway.resources import ResourceBuilder, Resources
from modelyard.runtime.fleet import Fleet
from modelyard.runtime.limits import LimitBook
from modelyard.runtime.metrics import TABLE_BUILDS, TABLE_FAILING
from modelyard.runtime.settings import OperatorSettings

logger = logging.getLogger(__name__)

RELEASE_PAUSE = 0.05
"""Seconds after a release in which further ones are gathered: each costs a look at what all models have in Envoy, some
milliseconds with thousands of them. The first after a quiet time waits for nothing."""

RETRY_SECONDS = 10.0
"""Seconds from a build that failed to the next, if nothing asks for one before."""


class TableError(RuntimeError):
    """A table could not be built; the last one stays."""


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
        self._resources: Resources | None = None
        """What is offered; None before the first table."""
        self._secrets: Secrets = ({}, None, {})
        self._waiters: list[asyncio.Future[None]] = []
        self._gathered: set[str] = set()
        """Deployments whose pods are to be looked at by the next release."""
        self._released: dict[str, Upstream] = {}
        """Released since the present build began, which does not know of it."""
        self._next_release = 0.0
        """Time of the loop before which nothing is released."""
        self._complaint = ""
        """Why the last build failed; it is said once."""

    def request(self) -> None:
        """Ask for a table that holds everything known by now."""
        self._asked.set()

    def release(self, key: str) -> bool:
        """Let requests that wait for a deployment, by `namespace/name`, go to its pods, and say whether any could.

        A table that holds everything is asked for too.
        """
        loop = asyncio.get_running_loop()
        wait = self._next_release - loop.time()
        if wait <= 0:
            return self._release({key})
        if not self._gathered:
            loop.call_later(wait, self._release_gathered)
        self._gathered.add(key)
        return False

    async def published(self) -> None:
        """Wait until a table built after this call has been handed to the ADS server.

        Raises TableError if it cannot be built.
        """
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        self._asked.set()
        await waiter

    async def run(self) -> None:
        """Build until cancelled. After a build that failed the last table stays, and the next is tried later."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            waiters, self._waiters = self._waiters, []
            failure = await self._try_publish()
            for waiter in waiters:
                if waiter.done():
                    continue
                if failure is None:
                    waiter.set_result(None)
                else:
                    waiter.set_exception(failure)

    async def _try_publish(self) -> TableError | None:
        """Publish a table, or return why that failed."""
        try:
            await self._publish()
        except Exception as error:
            # Whatever is wrong with one object must not end this.
            TABLE_BUILDS.labels(outcome="failed").inc()
            TABLE_FAILING.set(1)
            reason = f"{type(error).__name__}: {error}"
            if reason != self._complaint:
                logger.exception("The routing table cannot be built, Envoys keep the last one")
            self._complaint = reason
            asyncio.get_running_loop().call_later(RETRY_SECONDS, self._asked.set)
            return TableError(f"the routing table cannot be built: {reason}")
        TABLE_BUILDS.labels(outcome="built").inc()
        TABLE_FAILING.set(0)
        if self._complaint:
            logger.info("The routing table is built again")
        self._complaint = ""
        return None

    async def _publish(self) -> None:
        known = self._look()
        self._released = {}
        loop = asyncio.get_running_loop()
        built = await loop.run_in_executor(self._thread, self._build, known)
        fleet = self._fleet
        fleet.owners, fleet.names, fleet.closed_names = built.owners, known.snapshot, built.closed_names
        if built.names:
            self._on_names(built.names)
        if built.resources is None:
            return
        self._secrets = known.secrets
        self._limits.set_limits(built.table.limits)
        late = keep_released(built.table, self._released)
        resources = built.resources.with_upstreams(late) if late else built.resources
        fleet.rollout.offer(built.table.routes, resources.routes_version)
        self._offer(with_upstreams(built.table, late) if late else built.table, resources)

    def _release_gathered(self) -> None:
        keys, self._gathered = self._gathered, set()
        self._release(keys)

    def _release(self, keys: AbstractSet[str]) -> bool:
        """Offer the pods of deployments that had none."""
        found: dict[str, Upstream] = {}
        try:
            for key in keys if self._resources is not None else ():
                found |= self._find_released(key)
            if found and self._resources is not None:
                self._released |= found
                self._offer(with_upstreams(self._fleet.table, found), self._resources.with_upstreams(found))
        except Exception:
            # The table says the same later, or why it cannot.
            logger.exception("Requests that wait for %s could not be let go at once", ", ".join(sorted(keys)))
        if not found:
            self._asked.set()
            return False
        loop = asyncio.get_running_loop()
        self._next_release = loop.time() + RELEASE_PAUSE
        # Envoy has questions of its own before requests go on, and the table would be in their way.
        loop.call_later(RELEASE_PAUSE, self._asked.set)
        return True

    def _find_released(self, key: str) -> dict[str, Upstream]:
        fleet, seen = self._fleet, self._fleet.deployment(key)
        if seen is None or seen.object is None:
            return {}
        return find_released(seen.object, fleet.pods(key), fleet.expose(seen.object), fleet.table)

    def _offer(self, table: RoutingTable, resources: Resources) -> None:
        self._fleet.table, self._resources = table, resources
        self._server.set_resources(resources)

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
            changed=secrets != self._secrets or self._resources is None,
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
