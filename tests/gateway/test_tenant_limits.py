"""Limits of tenants, over all gateways together: who is refused, what is charged, and what others pay."""

import asyncio
import io
import json
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp
import pytest

from dev.envoy.process import EnvoyProcess
from modelyard.core.limits.account import Limits
from modelyard.core.routing import RoutingTable, Tenant
from modelyard.gateway.ads import AdsServer
from modelyard.gateway.ratelimit import limit_service
from tests.gateway.conftest import PATIENCE, USAGE, Gateway, table_of, until

SECOND = 10**9
KEYS = {f"sk-{name}-0123456789abcdef": name for name in ("small", "small-too", "large")}
CALLER = {tenant: {"authorization": f"Bearer {key}"} for key, tenant in KEYS.items()} | {None: {}}
TOKENS = USAGE["total_tokens"]
STREAMED = {"model": "a", "stream": True}


@dataclass
class Asked:
    """What the gateways asked and told the operator."""

    requests: list[str] = field(default_factory=list)
    charges: list[tuple[str, int]] = field(default_factory=list)


@pytest.fixture
def asked(gateway, monkeypatch) -> Asked:
    gateway.clock.stopped = 0
    gateway.tenant_keys = KEYS
    seen = Asked()
    admit, charge = gateway.limits.admit, gateway.limits.charge

    def note_request(tenant):
        seen.requests.append(tenant)
        return admit(tenant)

    def note_charge(tenant, tokens):
        charge(tenant, tokens)
        seen.charges.append((tenant, tokens))

    monkeypatch.setattr(gateway.limits, "admit", note_request)
    monkeypatch.setattr(gateway.limits, "charge", note_charge)
    return seen


def limited(table: RoutingTable, **limits: int) -> RoutingTable:
    """Return the table with limits for the tenant `small`."""
    tenants = {name: Tenant() for name in KEYS.values()} | {"small": Tenant(limits=Limits(**limits))}
    return replace(table, tenants=tenants)


async def post(gateway: Gateway, tenant: str | None = "small", body: Any = None, **options: Any) -> Any:
    return await gateway.post(body or {"model": "a"}, headers=CALLER[tenant], **options)


async def test_requests_beyond_the_limit_are_refused_in_openais_words(gateway, make_backend, asked):
    backend = await make_backend()
    await gateway.apply(limited(table_of(("a", (backend.endpoint,), 0)), requests=3))
    answers = [await post(gateway) for _ in range(3)]
    assert [(status, headers["x-ratelimit-remaining-requests"]) for status, _, headers in answers] == [
        (200, "2"),
        (200, "1"),
        (200, "0"),
    ]
    status, body, headers = await post(gateway)
    assert (status, headers["content-type"]) == (429, "application/json")
    assert body["error"] == {
        "message": "Rate limit reached for tenant small on requests per minute: limit 3. Try again in 20 s.",
        "type": "rate_limit_error",
        "param": None,
        "code": "rate_limit_exceeded",
    }
    assert headers["retry-after"] == "20"
    assert headers["x-ratelimit-limit-requests"] == "3"
    assert headers["x-ratelimit-reset-requests"] == "1m0s"
    assert "x-envoy-ratelimited" not in headers
    gateway.clock.stopped = 20 * SECOND - 1
    assert (await post(gateway))[0] == 429
    gateway.clock.stopped = 20 * SECOND
    assert [(await post(gateway))[0] for _ in range(2)] == [200, 429]
    assert len(backend.bodies) == 4


async def test_refused_requests_are_no_arrivals(gateway, make_backend, asked):
    backend = await make_backend()
    await gateway.apply(limited(table_of(("a", (backend.endpoint,), 0)), requests=1))
    assert [(await post(gateway))[0] for _ in range(3)] == [200, 429, 429]
    assert (await gateway.counters()).arrivals == {"team/a": 1}


async def test_requests_that_were_held_are_asked_about_after_it_and_once(gateway, make_backend, asked):
    """Envoy's filter asks about no request whose cluster does not exist."""
    backend = await make_backend()
    await gateway.apply(limited(table_of(("a", (), 0)), requests=2))
    held = [asyncio.create_task(post(gateway)) for _ in range(3)]
    await gateway.wait_waiting({"team/a": 3})
    assert asked.requests == []
    gateway.offer(limited(table_of(("a", (backend.endpoint,), 0)), requests=2))
    assert sorted([status for status, _, _ in await asyncio.gather(*held)]) == [200, 200, 429]
    assert asked.requests == ["small"] * 3
    gateway.clock.stopped = 60 * SECOND
    assert [(await post(gateway))[0] for _ in range(3)] == [200, 200, 429]
    assert asked.requests == ["small"] * 6
    assert [name for headers in backend.headers for name in headers if name.startswith("x-modelyard")] == []


async def test_tokens_beyond_the_limit_are_a_debt(gateway, make_backend, asked):
    backend = await make_backend()
    await gateway.apply(limited(table_of(("a", (backend.endpoint,), 0)), tokens=8))
    status, _, headers = await post(gateway)
    assert (status, headers["x-ratelimit-remaining-tokens"]) == (200, "8")
    await until(lambda: asked.charges == [("small", TOKENS)])
    status, _, headers = await post(gateway)
    assert (status, headers["x-ratelimit-remaining-tokens"]) == (200, "3")
    await until(lambda: asked.charges == [("small", TOKENS)] * 2)
    status, body, headers = await post(gateway)
    # 10 of 8 are used: 3 have to flow back until there is room for one, 8 in a minute.
    assert (status, headers["retry-after"]) == (429, "23")
    assert "tokens per minute: limit 8" in body["error"]["message"]
    assert headers["x-ratelimit-remaining-tokens"] == "0"
    gateway.clock.stopped = 23 * SECOND
    assert (await post(gateway))[0] == 200


async def test_streams_are_charged_with_what_they_tell_at_their_end(gateway, make_backend, asked):
    backend = await make_backend()
    await gateway.apply(limited(table_of(("a", (backend.endpoint,), 0)), tokens=100))
    raw = io.BytesIO(json.dumps(STREAMED).encode())
    headers = {**CALLER["small"], "content-type": "application/json"}
    url = f"{gateway.envoy.url}/v1/chat/completions"
    async with gateway.session.post(url, data=raw, headers=headers) as reply:
        assert b"content" in await reply.content.readline()
        assert asked.charges == []
        backend.release.set()
        await reply.read()
    await until(lambda: asked.charges)
    assert asked.charges == [("small", TOKENS)]


async def test_a_stream_whose_client_leaves_is_charged_by_estimate(gateway, make_backend, asked):
    backend = await make_backend()
    await gateway.apply(limited(table_of(("a", (backend.endpoint,), 0)), tokens=100))
    body = json.dumps({**STREAMED, "messages": ["x" * 200]}).encode()
    headers = {**CALLER["small"], "content-type": "application/json"}
    url = f"{gateway.envoy.url}/v1/chat/completions"
    async with gateway.session.post(url, data=io.BytesIO(body), headers=headers) as reply:
        assert b"content" in await reply.content.readline()
        reply.close()
    await until(lambda: asked.charges)
    # Four bytes of the request make a token, and so does each event that was sent.
    assert asked.charges == [("small", -(-len(body) // 4) + 1)]
    backend.release.set()


async def test_errors_of_an_engine_cost_no_tokens(gateway, make_backend, asked):
    backend = await make_backend(status=400)
    await gateway.apply(limited(table_of(("a", (backend.endpoint,), 0)), tokens=100))
    assert (await post(gateway))[0] == 400
    await until(lambda: asked.charges)
    assert asked.charges == [("small", 0)]


async def test_others_are_not_even_asked_about(gateway, make_backend, asked):
    backend = await make_backend()
    table = table_of(("a", (backend.endpoint,), 0))
    await gateway.apply(table)
    assert (await post(gateway))[0] == 200
    await gateway.apply(limited(table, requests=1))
    for tenant in ("large", "small-too", None):
        assert [(await post(gateway, tenant))[0] for _ in range(3)] == [200] * 3
    assert asked.requests == []
    assert (await post(gateway))[0] == 200
    await until(lambda: asked.charges)
    assert asked == Asked(["small"], [("small", TOKENS)])


async def test_what_costs_nothing_is_not_counted(gateway, make_backend, asked):
    backend = await make_backend()
    table = limited(table_of(("a", (backend.endpoint,), 0)), requests=1)
    suspended = replace(table.routes[0], name="team/off", models=("off",), refusal="Suspended.")
    await gateway.apply(replace(table, routes=(*table.routes, suspended)))
    async with gateway.session.get(f"{gateway.envoy.url}/v1/models", headers=CALLER["small"]) as reply:
        assert reply.status == 200
    assert (await post(gateway, body={"model": "unknown"}))[0] == 404
    assert (await post(gateway, body={"model": "off"}))[0] == 503
    assert (await post(gateway, body=b"{"))[0] == 400
    assert asked.requests == []
    assert [(await post(gateway))[0] for _ in range(2)] == [200, 429]


async def test_a_first_limit_interrupts_nothing(gateway, make_backend, asked):
    backend = await make_backend()
    table = table_of(("a", (backend.endpoint,), 0))
    await gateway.apply(table)
    raw = io.BytesIO(json.dumps(STREAMED).encode())
    url = f"{gateway.envoy.url}/v1/chat/completions"
    async with gateway.session.post(url, data=raw, headers={"content-type": "application/json"}) as reply:
        assert b"content" in await reply.content.readline()
        listeners = gateway.server.nodes["envoy-1"].stream.subscriptions
        before = {name: dict(item.sent) for name, item in listeners.items()}
        await gateway.apply(limited(table, requests=1))
        await until_refused(gateway)
        changed = {name for name, item in listeners.items() if item.sent != before[name]}
        assert [name.rpartition(".")[2] for name in changed] == ["RouteConfiguration"]
        backend.release.set()
        assert b"[DONE]" in await reply.read()


async def until_refused(gateway: Gateway) -> None:
    """Wait until workers have the limit: they take new routes in after these were acknowledged."""
    async with asyncio.timeout(PATIENCE):
        while (await post(gateway))[0] != 429:
            await asyncio.sleep(0.01)


async def test_two_gateways_share_one_limit(gateway, make_backend, asked, tmp_path):
    backend = await make_backend()
    await gateway.apply(limited(table_of(("a", (backend.endpoint,), 0)), requests=10))
    port = gateway.settings.listener_port
    async with EnvoyProcess(tmp_path, gateway.xds_port, port, node_id="envoy-2") as second:
        # A connection for each request: the kernel gives it to either of them.
        connector = aiohttp.TCPConnector(force_close=True)
        async with aiohttp.ClientSession(connector=connector) as session:
            fresh = replace(gateway, session=session)
            statuses = [(await post(fresh))[0] for _ in range(40)]
        assert sorted(statuses) == [200] * 10 + [429] * 30
        for envoy in (gateway.envoy, second):
            counted = await replace(gateway, envoy=envoy).counters()
            assert sum(counted.requests.values()) > 0


async def test_the_operator_is_away_and_comes_back(gateway, make_backend, asked):
    gateway.settings = replace(gateway.settings, limit_timeout=PATIENCE)
    backend = await make_backend()
    table = limited(table_of(("a", (backend.endpoint,), 0)), requests=1)
    await gateway.apply(table)
    assert [(await post(gateway))[0] for _ in range(2)] == [200, 429]
    await gateway.server.stop()
    # Nobody waits for an operator that is not there: one that did would wait for so long itself.
    async with asyncio.timeout(PATIENCE):
        assert [(await post(gateway))[0] for _ in range(5)] == [200] * 5
    gateway.server = AdsServer(lambda *_: None, [limit_service(gateway.limits)])
    gateway.offer(table)
    assert await gateway.server.start("127.0.0.1", gateway.xds_port) == gateway.xds_port
    try:
        await until(lambda: gateway.server.nodes)
        await until_refused(gateway)
    finally:
        await gateway.server.stop()


async def test_a_limit_changes_and_goes(gateway, make_backend, asked):
    backend = await make_backend()
    table = table_of(("a", (backend.endpoint,), 0))
    await gateway.apply(limited(table, requests=2))
    assert [(await post(gateway))[0] for _ in range(3)] == [200, 200, 429]
    await gateway.apply(limited(table, requests=3))
    assert [(await post(gateway))[0] for _ in range(2)] == [200, 429]
    await gateway.apply(table)
    assert [(await post(gateway))[0] for _ in range(5)] == [200] * 5
