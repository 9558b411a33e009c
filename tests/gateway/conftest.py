"""Fixtures: the ADS server, the real Envoy, and engines that say what reached them."""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from dev.envoy.process import EnvoyProcess, free_port
from modelyard.core.certificates import Certificate
from modelyard.core.routing import Endpoint, Route, RoutingTable, Upstream, WeightedTarget
from modelyard.core.tenants import hash_key
from modelyard.gateway.ads import AdsServer
from modelyard.gateway.counters import GatewayCounters, read_counters
from modelyard.gateway.departures import departure_service
from modelyard.gateway.ratelimit import limit_service
from modelyard.gateway.resources import ResourceBuilder
from modelyard.render.envoy.settings import GatewaySettings
from modelyard.runtime.limits import LimitBook

PATIENCE = 60.0
"""Seconds after which what was waited for will not come any more, on a machine with other work too."""

USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


@dataclass
class Backend:
    """An engine that records the requests that reach it."""

    endpoint: Endpoint
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    """Paths with their queries."""
    status: int = 200
    release: asyncio.Event = field(default_factory=asyncio.Event)
    """A streamed answer pauses after its first event until this is set."""

    reply: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None
    """Answers instead of the usual reply."""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer as an OpenAI server does."""
        body = await request.read()
        self.bodies.append(body)
        self.paths.append(request.path_qs)
        self.headers.append({key.lower(): value for key, value in request.headers.items()})
        if self.reply is not None:
            return await self.reply(request)
        if self.status != 200:
            return web.json_response({"error": {"message": "refused"}}, status=self.status)
        asked = json.loads(body)
        if not asked.get("stream"):
            return web.json_response({"model": asked["model"], "usage": USAGE})
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await stream.prepare(request)
        await stream.write(b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n')
        await self.release.wait()
        await stream.write(
            b"data: " + json.dumps({"choices": [], "usage": USAGE}).encode() + b"\n\ndata: [DONE]\n\n"
        )
        await stream.write_eof()
        return stream


@dataclass
class Clock:
    """Nanoseconds, which a test may stop."""

    stopped: int | None = None

    def __call__(self) -> int:
        return time.monotonic_ns() if self.stopped is None else self.stopped


@dataclass
class Operator:
    """The operator's part when an Envoy leaves: the test says what it answers."""

    leaving: bool = False
    """Whether the Envoy's pod is being deleted."""
    settles: asyncio.Event = field(default_factory=asyncio.Event)
    """An Envoy that asks whether it is written waits for this."""
    asked: list[tuple[str, str]] = field(default_factory=list)
    """Questions and node ids."""

    async def is_leaving(self, node: str) -> bool:
        self.asked.append(("Leaving", node))
        return self.leaving

    async def settle(self, node: str) -> bool:
        self.asked.append(("Settle", node))
        await self.settles.wait()
        return True


@dataclass
class Gateway:
    """One Envoy, fed by our server."""

    folder: Path
    settings: GatewaySettings
    server: AdsServer
    envoy: EnvoyProcess
    xds_port: int
    wakes: list[tuple[str, int, str]]
    session: aiohttp.ClientSession
    table: RoutingTable = field(default_factory=lambda: RoutingTable(anonymous=True))
    builder: ResourceBuilder | None = None
    keys: dict[str, str] = field(default_factory=dict)
    """API keys of providers, by the provider's name."""
    clock: Clock = field(default_factory=Clock)
    limits: LimitBook = field(default_factory=LimitBook)
    """What tenants have used of their limits, by that clock."""
    operator: Operator = field(default_factory=Operator)
    certificate: Certificate | None = None
    """What Envoy shows its clients where `settings.tls` is set."""
    tenant_keys: dict[str, str] = field(default_factory=dict)
    """Names of tenants, by their API keys."""

    def offer(self, table: RoutingTable) -> str:
        """Offer a table; returns its version."""
        self.builder = self.builder or ResourceBuilder(self.settings)
        digests = {hash_key(key): tenant for key, tenant in self.tenant_keys.items()}
        resources = self.builder.build(table, self.keys, self.certificate, digests)
        self.table = table
        self.limits.set_limits(table.limits)
        self.server.set_resources(resources)
        return resources.version

    async def apply(self, table: RoutingTable) -> None:
        """Offer a table and wait until Envoy has it, without a rejection."""
        version = self.offer(table)
        async with asyncio.timeout(PATIENCE):
            await self.server.wait_applied(self.envoy.node_id, version)
        assert self.server.nodes[self.envoy.node_id].last_rejection is None

    async def post(self, body: Any, **options: Any) -> tuple[int, dict[str, Any], dict[str, str]]:
        """Send a chat request; returns status, body and headers."""
        raw = io.BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
        headers = {"Content-Type": "application/json", **options.pop("headers", {})}
        path = options.pop("path", "/v1/chat/completions")
        async with self.session.post(
            f"{self.envoy.url}{path}", data=raw, headers=headers, **options
        ) as reply:
            text = await reply.text()
            return (
                reply.status,
                json.loads(text),
                {key.lower(): value for key, value in reply.headers.items()},
            )

    async def counters(self) -> GatewayCounters:
        """Read what Envoy counted."""
        return await read_counters(self.session, self.envoy.stats_url)

    async def wait_waiting(self, arrivals: dict[str, int]) -> None:
        """Wait until so many requests have arrived for each route."""
        async with asyncio.timeout(PATIENCE):
            while True:
                counted = (await self.counters()).arrivals
                if all(counted.get(name, 0) >= count for name, count in arrivals.items()):
                    return
                await asyncio.sleep(0.05)


async def until(condition: Callable[[], object]) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.002)


def table_of(*entries: tuple[str, tuple[Endpoint, ...], int], **route: Any) -> RoutingTable:
    """Return a table with a route and an upstream for each (name, endpoints, generation)."""
    routes, upstreams = [], {}
    for name, endpoints, generation in entries:
        key = f"team/{name}"
        served = f"served-{name}"
        upstreams[key] = Upstream(key, generation, served, endpoints)
        routes.append(Route(name=key, models=(name, key), targets=(WeightedTarget(key),), **route))
    return RoutingTable(tuple(routes), upstreams, anonymous=True)


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    """An Envoy that serves no model yet."""
    wakes: list[tuple[str, int, str]] = []
    clock = Clock()
    limits = LimitBook(clock)
    operator = Operator()
    services = [limit_service(limits), departure_service(operator)]
    server = AdsServer(lambda *wake: wakes.append(wake), services)
    xds_port = await server.start("127.0.0.1", 0)
    settings = replace(GatewaySettings(), listener_address="127.0.0.1", listener_port=free_port())
    server.set_resources(ResourceBuilder(settings).build(RoutingTable(anonymous=True)))
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=120)
    async with (
        aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
        EnvoyProcess(tmp_path, xds_port, settings.listener_port) as envoy,
    ):
        yield Gateway(
            tmp_path,
            settings,
            server,
            envoy,
            xds_port,
            wakes,
            session,
            clock=clock,
            limits=limits,
            operator=operator,
        )
    await server.stop()


@pytest.fixture
async def make_backend() -> AsyncIterator[Any]:
    """Starts engines."""
    runners: list[web.AppRunner] = []

    async def make(status: int = 200) -> Backend:
        # The port is known once it is bound: until then nothing is sent to it.
        backend = Backend(Endpoint("127.0.0.1", 0), status=status)
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/{path:.*}", backend.answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        runners.append(runner)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        backend.endpoint = Endpoint("127.0.0.1", runner.addresses[0][1])
        return backend

    yield make
    for runner in runners:
        await runner.cleanup()
