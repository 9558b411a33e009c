"""What is compared: nothing in between, a plain Envoy, our gateway, a bare asyncio proxy. All run at once."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.gateway.bodies import LOOPBACK, client_name, engine_name
from dev.cluster.processes import Component, responds
from dev.envoy.binary import envoy_binary
from dev.envoy.process import EnvoyProcess, free_port
from modelyard.core.limits.account import Limits
from modelyard.core.routing import Endpoint, Route, RoutingTable, Tenant, Upstream, WeightedTarget
from modelyard.core.tenants import hash_key
from modelyard.gateway.ads import AdsServer
from modelyard.gateway.ratelimit import limit_service
from modelyard.gateway.resources import ResourceBuilder
from modelyard.render.envoy.settings import GatewaySettings
from modelyard.render.envoy.typed import Json, extension, socket_address
from modelyard.runtime.limits import LimitBook
from modelyard.runtime.metrics import LIMITED_TOKENS

DIRECT, PLAIN, OURS, ASYNCIO = "direct", "plain Envoy", "Modelyard", "asyncio proxy"
LIMITED = "Modelyard, tenant with limits"
CONTENDERS = 5
"""These, which every row of requests is measured with."""
KEY = "sk-benchmark-0123456789"
"""API key of the tenant that has limits."""
LIMITED_TENANT = "limited"
LIMITS = Limits(requests=10**9, tokens=10**9)
"""Per minute: more than can be sent, since every request is to be answered."""
APPLY_SECONDS = 60.0
"""How long Envoy may take to accept a table."""
_MANAGER = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_ROUTER = "envoy.extensions.filters.http.router.v3.Router"


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to the engine."""

    name: str
    port: int
    pid: int = 0
    """Process in between; 0: there is none."""
    rewrites: bool = False
    """Whether the engine gets its own model name instead of the client's."""
    key: str = ""
    """API key that clients send; empty: none."""

    def answers(self, name: str) -> str:
        """Return the model name that reaches the engine."""
        return engine_name(name) if self.rewrites else name


@dataclass
class Gateway:
    """Our gateway: the ADS server in this process, the real Envoy, and what the engine calls back."""

    server: AdsServer
    envoy: EnvoyProcess
    builder: ResourceBuilder
    wakes: list[tuple[str, int, str]] = field(default_factory=list)
    """Sleeping deployments that Envoy asked for: name, generation, node."""

    def offer(self, table: RoutingTable) -> str:
        """Offer a table; return its version."""
        keys = {hash_key(KEY): LIMITED_TENANT} if table.tenants else None
        resources = self.builder.build(table, tenant_keys=keys)
        self.server.set_resources(resources)
        return resources.version

    async def apply(self, table: RoutingTable) -> None:
        """Offer a table and wait until Envoy has it. Raises RuntimeError if it rejects anything."""
        await self.applied(self.offer(table))

    async def applied(self, version: str) -> None:
        """Wait until Envoy has this version. Raises RuntimeError if it rejects anything."""
        async with asyncio.timeout(APPLY_SECONDS):
            await self.server.wait_applied(self.envoy.node_id, version)
        rejection = self.server.nodes[self.envoy.node_id].last_rejection
        if rejection is not None:
            raise RuntimeError(f"Envoy rejected {rejection}")


def models_table(
    indices: Sequence[int], endpoint: Endpoint | None, generation: int = 0, **route: Any
) -> RoutingTable:
    """Return a table of models with one route each; without an endpoint all of them sleep."""
    endpoints = (endpoint,) if endpoint else ()
    routes, upstreams = [], {}
    for index in indices:
        name = client_name(index)
        key = f"bench/{name}"
        upstreams[key] = Upstream(key, generation, engine_name(name), endpoints)
        routes.append(Route(name=key, models=(name, key), targets=(WeightedTarget(key),), **route))
    return RoutingTable(tuple(routes), upstreams, anonymous=True)


@asynccontextmanager
async def upstream(folder: Path) -> AsyncIterator[int]:
    """Run the engine's stand-in; yields its port."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.gateway.upstream", str(port)]
    async with running(Component("the engine's stand-in", command, folder / "engine.log", ready(port))):
        yield port


@asynccontextmanager
async def gateway(folder: Path) -> AsyncIterator[Gateway]:
    """Run our gateway with one worker thread and no model yet."""
    wakes: list[tuple[str, int, str]] = []
    book = LimitBook()
    book.set_limits({LIMITED_TENANT: LIMITS})
    server = AdsServer(lambda *wake: wakes.append(wake), [limit_service(book)])
    port = await server.start(LOOPBACK, 0)
    try:
        settings = replace(GatewaySettings(), listener_address=LOOPBACK, listener_port=free_port())
        builder = ResourceBuilder(settings)
        server.set_resources(builder.build(RoutingTable(anonymous=True)))
        async with EnvoyProcess(folder, port, settings.listener_port) as envoy:
            yield Gateway(server, envoy, builder, wakes)
    finally:
        await server.stop()


@asynccontextmanager
async def contenders(folder: Path, engine: int, models: int) -> AsyncIterator[list[Contender]]:
    """Run all of them in front of the engine at this port; our gateway and the asyncio proxy know `models` models."""
    async with AsyncExitStack() as stack:
        ours = await stack.enter_async_context(gateway(folder / "modelyard"))
        await ours.apply(models_table(range(models), Endpoint(LOOPBACK, engine)))
        limited = await stack.enter_async_context(gateway(folder / "limited"))
        tenants = {LIMITED_TENANT: Tenant(limits=LIMITS)}
        await limited.apply(replace(models_table(range(models), Endpoint(LOOPBACK, engine)), tenants=tenants))
        plain, proxy = free_port(), free_port()
        envoy = await stack.enter_async_context(running(_plain_envoy(folder / "plain", plain, engine)))
        python = await stack.enter_async_context(
            running(_asyncio_proxy(folder / "asyncio", proxy, engine, models))
        )
        yield [
            Contender(DIRECT, engine),
            Contender(PLAIN, plain, envoy.pid or 0),
            Contender(OURS, ours.envoy.listener_port, ours.envoy.pid, rewrites=True),
            Contender(LIMITED, limited.envoy.listener_port, limited.envoy.pid, rewrites=True, key=KEY),
            Contender(ASYNCIO, proxy, python.pid or 0),
        ]
        if not LIMITED_TOKENS.labels(LIMITED_TENANT)._value.get():  # noqa: SLF001  (the library has no other way)
            raise RuntimeError(f"{LIMITED}: nothing was charged to the tenant")


@asynccontextmanager
async def running(component: Component) -> AsyncIterator[Component]:
    """Run a program until the end of the context."""
    component.start()
    try:
        await asyncio.to_thread(component.wait_ready)
        yield component
    finally:
        await asyncio.to_thread(component.stop)


def ready(port: int) -> Any:
    """Return the question whether somebody answers at a port."""
    return lambda: responds(port, "/")


def _plain_envoy(folder: Path, port: int, engine: int) -> Component:
    """Return an Envoy with one worker thread that only forwards: no scan, no counters, no reading of answers."""
    folder.mkdir(parents=True)
    file = folder / "envoy.json"
    file.write_text(json.dumps(plain_configuration(port, engine), indent=1), encoding="utf-8")
    command = [str(envoy_binary()), "--config-path", str(file), "--concurrency", "1"]
    command += ["--disable-hot-restart", "--log-level", "warning"]
    return Component(PLAIN, command, folder / "envoy.log", ready(port))


def plain_configuration(port: int, engine: int) -> Json:
    """Return the whole configuration of the plain Envoy."""
    manager = {
        "stat_prefix": "plain",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "engine",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "engine", "timeout": "600s"}}],
                }
            ]
        },
        "http_filters": [extension("envoy.filters.http.router", _ROUTER)],
    }
    endpoint = {"endpoint": {"address": socket_address(LOOPBACK, engine)}}
    return {
        "node": {"id": "plain", "cluster": "plain"},
        "static_resources": {
            "listeners": [
                {
                    "name": "plain",
                    "address": socket_address(LOOPBACK, port),
                    "filter_chains": [
                        {
                            "filters": [
                                extension("envoy.filters.network.http_connection_manager", _MANAGER, manager)
                            ]
                        }
                    ],
                }
            ],
            "clusters": [
                {
                    "name": "engine",
                    "type": "STATIC",
                    "connect_timeout": "2s",
                    "load_assignment": {
                        "cluster_name": "engine",
                        "endpoints": [{"lb_endpoints": [endpoint]}],
                    },
                }
            ],
        },
    }


def _asyncio_proxy(folder: Path, port: int, engine: int, models: int) -> Component:
    command = [sys.executable, "-m", "benchmarks.gateway.proxy", str(port), str(engine), str(models)]
    return Component(ASYNCIO, command, folder / "proxy.log", ready(port))
