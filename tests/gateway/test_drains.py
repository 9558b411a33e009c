"""Answers under way end as they would have, whatever changes in the gateway meanwhile."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from modelyard.core.routing import RoutingTable
from modelyard.gateway.resources import ResourceBuilder
from tests.gateway.conftest import table_of, until

STREAMS = 8


class Running:
    """Streams that have begun and pause after their first event."""

    def __init__(self, gateway, backend):
        self.gateway, self.backend = gateway, backend
        self._stack = AsyncExitStack()
        self._replies = []

    async def begin(self):
        """Start them on connections of their own."""
        url = f"{self.gateway.envoy.url}/v1/chat/completions"
        for _ in range(STREAMS):
            request = self.gateway.session.post(url, json={"model": "a", "stream": True})
            reply = await self._stack.enter_async_context(request)
            assert b'"content":"a"' in await reply.content.readline()
            self._replies.append(reply)

    async def end(self):
        """Let them end; all of them must be whole."""
        self.backend.release.set()
        async with self._stack:
            for reply in self._replies:
                assert (await reply.content.read()).endswith(b"data: [DONE]\n\n")


@pytest.fixture
async def running(gateway, make_backend):
    """Streams from the only pod of model `a`, and the pod of a model `b` beside it."""
    backend, other = await make_backend(), await make_backend()
    await gateway.apply(table_of(("a", (backend.endpoint,), 0), ("b", (other.endpoint,), 0)))
    streams = Running(gateway, backend)
    await streams.begin()
    return streams, other


async def test_a_pod_leaves(gateway, running):
    streams, other = running
    await gateway.apply(table_of(("a", (other.endpoint,), 0), ("b", (other.endpoint,), 0)))
    assert (await gateway.post({"model": "a"}))[0] == 200
    assert len(other.bodies) == 1, "new requests go to the pod that stays"
    await streams.end()


async def test_a_model_goes_to_sleep(gateway, running):
    streams, other = running
    await gateway.apply(table_of(("a", (), 1), ("b", (other.endpoint,), 0)))
    held = asyncio.create_task(gateway.post({"model": "a"}))
    await until(lambda: gateway.wakes)
    await streams.end()
    await gateway.apply(table_of(("a", (other.endpoint,), 1), ("b", (other.endpoint,), 0)))
    assert (await held)[0] == 200


async def test_a_model_is_deleted(gateway, running):
    streams, other = running
    await gateway.apply(table_of(("b", (other.endpoint,), 0)))
    assert (await gateway.post({"model": "a"}))[0] == 404
    await streams.end()


async def test_all_routes_close(gateway, running):
    streams, _ = running
    await gateway.apply(RoutingTable(gateway.table.routes, gateway.table.upstreams, anonymous=False))
    assert (await gateway.post({"model": "a"}))[0] == 401
    await streams.end()


async def test_a_cluster_is_replaced(gateway, running):
    streams, _ = running
    changed = {key: replace(item, affinity=True) for key, item in gateway.table.upstreams.items()}
    await gateway.apply(replace(gateway.table, upstreams=changed))
    assert (await gateway.post({"model": "a"}))[0] == 200
    await streams.end()


async def test_the_listener_is_replaced(gateway, running):
    streams, _ = running
    settings = replace(gateway.settings, headers_timeout=gateway.settings.headers_timeout + 1)
    gateway.builder = ResourceBuilder(settings)
    await gateway.apply(gateway.table)
    assert (await gateway.post({"model": "b"}))[0] == 200
    await streams.end()


async def test_the_gateway_itself_leaves(gateway, running):
    streams, _ = running
    admin = f"http://127.0.0.1:{gateway.envoy.admin_port}"
    async with gateway.session.get(f"{gateway.envoy.url}/healthz") as reply:
        assert reply.status == 200
    async with gateway.session.post(f"{admin}/healthcheck/fail") as reply:
        assert reply.status == 200
    # Load balancers are told first, requests on their way are still answered, and connections end with their answer.
    async with gateway.session.get(f"{gateway.envoy.url}/healthz") as reply:
        assert reply.status == 503
    status, _, headers = await gateway.post({"model": "b"})
    assert (status, headers.get("connection")) == (200, "close")
    async with gateway.session.post(f"{admin}/drain_listeners?graceful") as reply:
        assert reply.status == 200
    await streams.end()
