"""The operator process: wires watches, queue, gateway and loops, and runs until one of them ends."""

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Coroutine, Iterator
from dataclasses import replace
from typing import Any

from aiohttp.web import AppRunner

from modelyard.gateway.ads import AdsServer
from modelyard.gateway.departures import departure_service
from modelyard.gateway.ratelimit import limit_service
from modelyard.kube.client import KubeClient
from modelyard.kube.informers import Change, Indices, build_registry, build_settings, run_informers
from modelyard.kube.resources import (
    ACCELERATOR_CLASSES,
    CHILDREN,
    LLM_DEPLOYMENTS,
    LLM_ROUTES,
    NODES,
    PODS,
    PRIORITY_CLASSES,
    Resource,
)
from modelyard.runtime.agenda import Agenda
from modelyard.runtime.budgets import BudgetKeeper
from modelyard.runtime.capacity import OccupancyReader
from modelyard.runtime.certificates import CertificateKeeper
from modelyard.runtime.children import ChildApplier
from modelyard.runtime.clusterdomain import find_cluster_domain
from modelyard.runtime.departures import DepartureKeeper
from modelyard.runtime.engines import EngineReader
from modelyard.runtime.fleet import Fleet
from modelyard.runtime.fleetmetrics import FleetCollector
from modelyard.runtime.gatewayroute import GatewayRouteKeeper
from modelyard.runtime.groups import GroupKeeper
from modelyard.runtime.health import Health, serve_health
from modelyard.runtime.holds import HoldBoard
from modelyard.runtime.leader import ActiveMark, Leader
from modelyard.runtime.ledger import LedgerKeeper
from modelyard.runtime.limits import LimitBook
from modelyard.runtime.logs import ROUTE_PREFIX
from modelyard.runtime.metrics import (
    LEADER,
    RECONCILE_SECONDS,
    RECONCILES,
    REGISTRY,
    observe_request,
)
from modelyard.runtime.pickers import PickerKeeper
from modelyard.runtime.placer import Placer
from modelyard.runtime.profiles import ProfileReader
from modelyard.runtime.providers import ProviderKeeper
from modelyard.runtime.providerwatch import ProviderWatch
from modelyard.runtime.publisher import RELEASE_PAUSE, Publisher
from modelyard.runtime.queue import WorkQueue
from modelyard.runtime.readings import Reader
from modelyard.runtime.reconcile import Reconciler
from modelyard.runtime.rollout import watch_rollout
from modelyard.runtime.routes import RouteDecider
from modelyard.runtime.scalers import ScalerKeeper
from modelyard.runtime.settings import OperatorSettings
from modelyard.runtime.sizes import SizeBoard
from modelyard.runtime.succession import Ending, Succession
from modelyard.runtime.support import find_optional
from modelyard.runtime.sync import wait_synced
from modelyard.runtime.tenants import TenantKeeper
from modelyard.runtime.watchaudit import WatchAudit
from modelyard.runtime.web import WebPages, serve_web
from modelyard.runtime.xdstls import XdsCertificates

logger = logging.getLogger(__name__)


class Operator:
    """One operator process."""

    def __init__(self, client: KubeClient, settings: OperatorSettings, leader: Leader | None = None) -> None:
        # One table of images decides both what may run and what does.
        variants = replace(settings.policy.variants, images=settings.render.images)
        settings = replace(settings, policy=replace(settings.policy, variants=variants))
        self._client = client
        self._settings = settings
        self._leader = leader
        self._queue = WorkQueue()
        self._health = Health()
        # Outside a cluster another search list counts than the gateway's.
        self.fleet = Fleet(cluster_domain="" if settings.kubeconfig else find_cluster_domain())
        self._limits = LimitBook()
        self._holds = HoldBoard(lambda key: any(pod.serving for pod in self.fleet.pods(key)))
        self._agenda = Agenda(self.fleet, self._queue, self._holds)
        self._server = AdsServer(self._agenda.wake, [limit_service(self._limits)])
        self._publisher = Publisher(
            self.fleet, self._server, self._limits, settings, self._agenda.names_changed
        )
        client.observer = observe_request
        self._audit = WatchAudit(
            client, lambda: self.fleet.indices, settings.namespaces, settings.audit_interval
        )
        self._collector = FleetCollector(
            self.fleet,
            self._queue,
            self._holds,
            self._audit,
            lambda: self._server.nodes.values(),
            settings.policy,
            lambda: self._health.acting,
        )
        children = ChildApplier(client)
        self._scalers = ScalerKeeper(client, children, self.fleet, self._queue, settings)
        self._pickers = PickerKeeper(client, self.fleet, self._queue, settings, self._publisher.request)
        self._groups = GroupKeeper(client, children, self.fleet, self._queue, settings)
        self._sizes = SizeBoard()
        self._reconciler = Reconciler(
            client,
            children,
            self.fleet,
            self._publisher,
            lambda key: self._server.generations.get(key),
            self._scalers,
            self._pickers,
            self._groups,
            self._sizes,
            settings,
        )
        self._routes = RouteDecider(
            self.fleet,
            self._publisher.request,
            lambda key: self._queue.add(ROUTE_PREFIX + key),
            settings,
        )
        self._provider_watch = ProviderWatch(self.fleet, self._publisher.request)
        self._reader = Reader(self.fleet, self._server, self._queue, settings, self._decide_routes)
        self._placer = Placer(self.fleet, self._queue, settings)
        self._profiles = ProfileReader(self.fleet, self._queue, settings)
        self._providers = ProviderKeeper(
            client, self.fleet, settings, self._providers_changed, lambda: self._server.plain
        )
        self._certificates = CertificateKeeper(client, self.fleet, settings, self._publisher.request)
        # No status of a route depends on budgets.
        self._budgets = BudgetKeeper(client, self.fleet, self._queue, settings, self._publisher.request)
        self._tenants = TenantKeeper(client, self.fleet, settings, self._publisher.request)
        self._xds_certificates = XdsCertificates(client, settings) if settings.xds_tls else None
        self._engines = EngineReader(self.fleet, self._queue, settings)
        self._ledger = LedgerKeeper(client, self.fleet, settings, self._budgets.judge)
        envoys = self._reader.envoys
        departures = DepartureKeeper(client, settings, envoys.read_since, self._ledger.write, envoys.finish)
        self._server.add_service(departure_service(departures))
        self._mark = succession = None
        if leader is not None and settings.pod_name:
            own = settings.render.gateway.namespace, settings.pod_name
            self._mark, succession = ActiveMark(client, *own), Succession(client, *own)
        self._ending = Ending(lambda: self._health.acting, succession)

    async def run(self) -> None:
        """Run until the watches end (a signal, or one that cannot go on) or anything else fails.

        After SIGTERM it goes on until another operator stands by.

        Raises LeaseLostError if another operator acts now, or may soon.
        """
        settings = self._settings
        indices = Indices()
        self.fleet.indices = indices
        optional = await find_optional(self._client)
        registry = build_registry(self._client.configuration, indices, self._changed, optional)
        health = await serve_health(
            self._health, settings.http_host, settings.http_port, self._write_metrics, self._sizes.find
        )
        web = await self._serve_web()
        REGISTRY.register(self._collector)
        watches = run_informers(registry, build_settings(), settings.namespaces, self._ending.tell)
        informers = asyncio.create_task(watches)
        ending = asyncio.create_task(self._ending.run())
        work = asyncio.create_task(self._work(optional))
        beat = asyncio.create_task(self._health.beat())
        parts: list[asyncio.Task[None]] = [work, informers, beat, ending]
        election = asyncio.create_task(self._leader.run()) if self._leader else None
        try:
            ends = {informers, work, ending} | ({election} if election else set())
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in parts:
                task.cancel()
            # Whatever decides, writes or talks to Envoy has ended before the Lease is given back.
            await asyncio.wait({work})
            LEADER.set(0)
            REGISTRY.unregister(self._collector)
            await self._server.stop()
            if election is not None:
                election.cancel()
                parts.append(election)
            if self._leader is not None:
                await self._leader.release()
            outcomes = await asyncio.gather(*parts, return_exceptions=True)
            await health.cleanup()
            if web is not None:
                await web.cleanup()
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome

    async def _serve_web(self) -> AppRunner | None:
        """Serve the read-only web page, where it is asked for."""
        settings = self._settings
        if settings.web_host is None:
            return None
        name = settings.pod_name or socket.gethostname()
        pages = WebPages(self.fleet, settings.policy, name, lambda: self._health.acting)
        return await serve_web(pages, settings.web_host, settings.web_port)

    def _extra_loops(self) -> Iterator[Coroutine[Any, Any, None]]:
        """Yield the loops that placement, speed, outside autoscalers, providers, tenants and money need."""
        yield self._placer.run()
        yield self._profiles.run()
        yield self._engines.run()
        yield self._scalers.run()
        yield self._pickers.run()
        yield self._groups.run()
        if (route := self._settings.gateway_route) is not None:
            namespace = self._settings.render.gateway.namespace
            yield GatewayRouteKeeper(self._client, namespace, route, self._settings.scaler_interval).run()
        yield self._providers.run()
        if self._settings.gateway.tls:
            yield self._certificates.run()
        if self._xds_certificates is not None:
            yield self._xds_certificates.run()
        yield self._ledger.run()
        yield self._budgets.run()
        yield self._tenants.run()
        yield watch_rollout(
            self.fleet.rollout,
            self._server.nodes.values,
            self._agenda.route_reported,
            self._settings.read_interval,
        )
        if self._mark is not None:
            yield self._mark.run()
        if not self._settings.namespaces:
            yield OccupancyReader(self._client, self.fleet.capacity, self._settings.occupancy_interval).run()

    async def _work(self, optional: frozenset[Resource]) -> None:
        """Wait for the first full view of the cluster, then act on it."""
        await wait_synced(self._client, self.fleet.indices, self._settings.namespaces, optional)
        if self._leader is not None:
            # Ready, so that a rollout goes on: the old pod gives the Lease back when it ends.
            self._health.synced, self._health.informed = True, self._leader.informed
            await self._leader.acquired.wait()
        LEADER.set(1)
        await self._scalers.start()
        await self._groups.start()
        await self._providers.start()
        if self._settings.gateway.tls:
            await self._certificates.start()
        await self._ledger.start()
        await self._budgets.start()
        await self._tenants.start()
        tls = await self._xds_certificates.start() if self._xds_certificates else None
        # The table comes before the server: an Envoy must never be told that there are no models.
        publishing = asyncio.create_task(self._publisher.run())
        await self._publisher.published()
        port = await self._server.start(self._settings.xds_host, self._settings.xds_port, tls)
        if self._mark is not None:
            # Before everything else that follows: Envoys wait for it.
            await self._mark.try_set()
        self._health.synced = self._health.acting = True
        self._audit.begin()
        logger.info(
            "Watching %d LLMDeployments; Envoy is served on port %d", len(self.fleet.deployment_keys()), port
        )
        self._agenda.add_deployments()
        self._agenda.add_routes()
        try:
            async with asyncio.TaskGroup() as group:
                for loop in (
                    self._queue.run(self._handle, self._settings.workers),
                    self._reader.run(),
                    self._audit.run(),
                    self._verify(),
                    *self._extra_loops(),
                ):
                    group.create_task(_forever(loop))
        finally:
            publishing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await publishing

    async def _decide_routes(self, now: float) -> None:
        """Decide where requests go, knowing what is spent and which providers answer. `now`: Unix time.

        What a reading says is judged at once: a budget may be overspent by what comes until then.
        """
        await self._ledger.look(now)
        self._provider_watch.look(now)
        await self._routes.decide(now)

    async def _verify(self) -> None:
        """Compare everything with the API server from time to time, whatever the watches say."""
        while True:
            await asyncio.sleep(self._settings.verify_interval)
            for key in self.fleet.deployment_keys():
                self._reconciler.children.forget(key)
                self._queue.add(key)

    async def _handle(self, key: str) -> None:
        started = time.perf_counter()
        try:
            if key.startswith(ROUTE_PREFIX):
                await self._reconciler.reconcile_route(key.removeprefix(ROUTE_PREFIX))
                again = None
            else:
                again = await self._reconciler.reconcile(key)
        except Exception:
            RECONCILES.labels(outcome="failed").inc()
            raise
        RECONCILES.labels(outcome="done").inc()
        RECONCILE_SECONDS.observe(time.perf_counter() - started)
        if again is not None:
            self._queue.add_later(key, again)

    def _changed(self, resource: Resource, key: str, change: Change) -> None:
        """Take in a watch event, in the event loop. Never raises, never waits: Kopf would drop the error."""
        self._audit.note(resource)
        if resource in {NODES, PODS, ACCELERATOR_CLASSES}:
            self.fleet.capacity.changed = True
        if resource in {NODES, PRIORITY_CLASSES}:
            # Nodes report often and seldom change anything: the placement loop looks at them.
            return
        if resource in CHILDREN:
            self._reconciler.children.notice(resource, key, change)
        # A pod that became ready releases held requests now, not after its turn in the queue.
        released = resource == PODS and self._publisher.release(key)
        if resource == PODS:
            self._holds.look(key)
        if resource == ACCELERATOR_CLASSES:
            self._agenda.add_deployments()
        elif resource == LLM_ROUTES:
            self._agenda.route_changed(key)
        elif released:
            # Its status can wait until Envoy has what it asks for meanwhile.
            self._queue.add_later(key, RELEASE_PAUSE)
        else:
            self._queue.add(key)
        if resource == LLM_DEPLOYMENTS:
            # Whether a name has changed hands shows in the table.
            self._publisher.request()
            self._agenda.add_routes_to(key)

    def _providers_changed(self) -> None:
        """Publish the table anew, and look at every route again."""
        self._publisher.request()
        self._agenda.add_routes()

    async def _write_metrics(self) -> bytes:
        self._holds.keep(self.fleet.deployment_keys())
        return await self._collector.write(REGISTRY)


async def _forever(loop: Coroutine[Any, Any, None]) -> None:
    """Run a loop that must not end: its silent end would leave a process that looks healthy and does nothing."""
    await loop
    raise RuntimeError("a loop of the operator ended")
