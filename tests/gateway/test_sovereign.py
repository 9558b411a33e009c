"""A sovereign route and an attacker: the provider is there, works, and must not see a single handshake."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from aiohttp import web

from dev.envoy.process import free_port
from modelyard.core.names import Exposure, build_routing_table, resolve_names
from modelyard.core.routeplan.model import RoutePlan
from modelyard.core.routing import RoutingTable, WeightedTarget
from modelyard.core.snapshot import Pod, Snapshot
from tests.gateway.tls import TlsProvider, tls_provider
from tests.unit.core.build import make_deployment, make_pod, make_provider, make_targets_route

OWN = "team/own"
ACME = {"provider": "acme", "model": "large"}


@dataclass
class Fleet:
    """A sovereign route and an open one that share a deployment; both name the same provider."""

    gateway: Any
    provider: TlsProvider
    pods: dict[str, tuple[Pod, ...]]
    generation: int = 0
    asleep: bool = False
    policy: str = "Priority"
    targets: tuple[dict[str, Any], ...] = ({"deployment": "own"}, ACME)

    async def apply(self) -> None:
        """Build the table as the operator does, and wait until Envoy has it."""
        deployment = make_deployment(
            OWN,
            model={"name": "own", "adapters": [{"name": "lora", "source": "hf://org/lora"}]},
        )
        # No validation was asked: the API server would refuse the first one.
        routes = (
            make_targets_route(
                "team/closed",
                "closed",
                *self.targets,
                dataPolicy="Sovereign",
                policy=self.policy,
                timeouts={"firstToken": "1s", "hold": "1s"},
            ),
            make_targets_route("team/open", "open", {"deployment": "own"}, ACME, policy="Priority"),
        )
        price = {"inputPerMillion": "0.01", "outputPerMillion": "0.01"}
        provider = make_provider(
            "acme",
            {"name": "large", "price": price},
            baseURL=f"{self.provider.url}/v1",
            trust=self.provider.certificate,
        )
        snapshot = Snapshot(
            {OWN: deployment},
            {route.key: route for route in routes},
            {"acme": provider},
            pods=self.pods,
        )
        exposures = {OWN: Exposure(self.generation, asleep=self.asleep)}
        owners = resolve_names(snapshot)
        # A decision that sends all to the provider, as one from before the route was closed would.
        stale = RoutePlan((WeightedTarget("provider:acme/large"), WeightedTarget(OWN, 0, standby=True)))
        plans = {"team/closed": stale}
        table = build_routing_table(snapshot, owners, exposures, RoutingTable(), plans, anonymous=True)
        await self.gateway.apply(table)


def pods_of(*ports: int) -> dict[str, tuple[Pod, ...]]:
    found = (make_pod(f"pod-{port}", OWN, address="127.0.0.1", port=port) for port in ports)
    return {OWN: tuple(found)}


@pytest.fixture
async def fleet(gateway, tmp_path) -> AsyncIterator[Fleet]:
    async with tls_provider(tmp_path / "ca") as provider:
        yield Fleet(gateway, provider, {})


async def prove_that_the_provider_works(fleet: Fleet) -> None:
    """Send a request through the open route, whose deployment fails: else silence would prove nothing."""
    status, body, _ = await fleet.gateway.post({"model": "open"})
    assert (status, body["model"]) == (200, "large")
    assert fleet.provider.handshakes > 0
    fleet.provider.handshakes = 0
    fleet.provider.received.clear()
    fleet.provider.drop_connections()


FAILURES = ("503", "500", "429", "reset", "dead", "silent")


@pytest.mark.parametrize("policy", ["Priority", "Weighted", "LowestCost"])
@pytest.mark.parametrize("failure", FAILURES)
async def test_no_failure_of_its_own_targets_opens_a_sovereign_route(fleet, make_backend, failure, policy):
    backend = await make_backend(status=int(failure) if failure.isdecimal() else 200)
    port = free_port() if failure == "dead" else backend.endpoint.port

    async def reset(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async def silent(_: web.Request) -> web.StreamResponse:
        await backend.release.wait()
        return web.Response()

    backend.reply = {"reset": reset, "silent": silent}.get(failure)
    fleet.pods, fleet.policy = pods_of(port), policy
    await fleet.apply()
    if failure != "silent":
        await prove_that_the_provider_works(fleet)
    for _ in range(4):
        status, body, _ = await fleet.gateway.post({"model": "closed", "stream": failure == "silent"})
        assert status in {429, 500, 503, 504}, body
    backend.release.set()
    assert (fleet.provider.handshakes, fleet.provider.received) == (0, [])


async def test_no_hold_of_a_sleeping_target_opens_a_sovereign_route(fleet):
    fleet.asleep = True
    await fleet.apply()
    status, body, _ = await fleet.gateway.post({"model": "closed"})
    assert (status, body["error"]["code"]) == (503, "model_not_ready")
    assert fleet.gateway.wakes
    assert fleet.provider.handshakes == 0


async def test_a_sovereign_route_with_nothing_but_a_provider_says_why_it_refuses(fleet):
    fleet.targets = (ACME,)
    fleet.pods = pods_of(free_port())
    await fleet.apply()
    await prove_that_the_provider_works(fleet)
    status, body, _ = await fleet.gateway.post({"model": "closed"})
    assert status == 503
    assert "dataPolicy Sovereign" in body["error"]["message"]
    assert fleet.provider.handshakes == 0


HEADERS = (
    {"x-modelyard-route": "model:open"},
    {"x-modelyard-authority": "localhost", "x-modelyard-path": "/v1", "x-modelyard-served-model": "large"},
    {"x-modelyard-stream": "true"},
    {"x-envoy-retry-on": "5xx", "x-envoy-max-retries": "9", "x-envoy-retriable-status-codes": "404"},
    {
        "x-envoy-upstream-alt-stat-name": "x",
        "x-envoy-original-path": "/v1",
        "x-envoy-decorator-operation": "x",
    },
    {"x-gateway-destination-endpoint": "127.0.0.1"},
    {"host": "api.acme.example"},
    {"x-forwarded-host": "api.acme.example", "x-forwarded-proto": "https"},
    {"cluster": "provider:acme/large", "x-envoy-cluster": "provider:acme/large"},
)

BODIES = (
    b'{"model":"closed","model ":"open"}',
    b'{"model":"closed","x":{"model":"open"}}',
    b'{"mod\\u0065l":"open","model":"closed"}',
    b'{"model":"closed","model":"open"}',
    b'{"model":"provider:acme/large"}',
    b'{"model":"acme/large"}',
    b'{"model":"large"}',
    b'{"model":"closed\\u0000open"}',
    b'{"model":"closed","provider":"acme","route":"open","models":["open"],"fallbacks":["open"]}',
    b'{"model":"lora"}',
    b'{"model":"team/own"}',
    b'{"model":"closed"}{"model":"open"}',
)


async def test_nothing_in_a_request_opens_a_sovereign_route(fleet, make_backend):
    backend = await make_backend(status=503)
    fleet.pods = pods_of(backend.endpoint.port)
    await fleet.apply()
    await prove_that_the_provider_works(fleet)
    for headers in HEADERS:
        status, _, _ = await fleet.gateway.post({"model": "closed"}, headers=headers)
        assert status == 503, headers
    for body in BODIES:
        status, _, _ = await fleet.gateway.post(body)
        assert status in {400, 404, 503}, body
    for path in (
        "/v1/embeddings",
        "/v1/responses",
        "/v1/chat/completions?model=open",
        "/v1/completions#open",
    ):
        status, _, _ = await fleet.gateway.post({"model": "closed"}, path=path)
        assert status == 503, path
    assert (fleet.provider.handshakes, fleet.provider.received) == (0, [])


async def test_nothing_leaves_while_a_route_is_held_and_generations_change(fleet, make_backend):
    """Requests that wait under an old name of a cluster are released to pods, never to a provider."""
    backend = await make_backend(status=503)
    fleet.asleep = True
    await fleet.apply()
    held = [asyncio.create_task(fleet.gateway.post({"model": "closed"})) for _ in range(5)]
    await fleet.gateway.wait_waiting({"team/closed@route": 5})
    fleet.generation = 1
    await fleet.apply()
    fleet.asleep, fleet.pods = False, pods_of(backend.endpoint.port)
    await fleet.apply()
    for status, _, _ in await asyncio.gather(*held):
        assert status == 503
    assert (fleet.provider.handshakes, fleet.provider.received) == (0, [])
