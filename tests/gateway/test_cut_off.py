"""An operator that ends in the middle of what it sends: Envoy waits for the rest, however long, and nothing fails."""

import asyncio

import aiohttp
import pytest

from dev.envoy.process import EnvoyProcess
from modelyard.gateway import protos, streams
from tests.gateway.conftest import table_of, until

FETCH_SECONDS = 15
"""Envoy's `initial_fetch_timeout` where a config source does not say another one."""


@pytest.fixture
def withhold(monkeypatch):
    """Lets the operator end before it sends the resources of a type. Undone by the function that it returns."""
    order = streams.PUSH_ORDER

    def begin(type_url):
        assert type_url in order
        monkeypatch.setattr(streams, "PUSH_ORDER", tuple(item for item in order if item != type_url))
        return lambda: monkeypatch.setattr(streams, "PUSH_ORDER", order)

    return begin


async def outlast(gateway):
    """Stop the operator for longer than Envoy waits by default."""
    await gateway.server.stop()
    await asyncio.sleep(FETCH_SECONDS + 2)


async def test_an_envoy_without_routes_is_not_ready(gateway, make_backend, tmp_path, withhold):
    backend = await make_backend()
    await gateway.envoy.kill()
    gateway.offer(table_of(("a", (backend.endpoint,), 0)))
    again = withhold(protos.ROUTES)
    gateway.envoy = EnvoyProcess(tmp_path, gateway.xds_port, gateway.settings.listener_port, "envoy-2")
    try:
        await gateway.envoy.start()
        await until(lambda: protos.ROUTES in subscribed(gateway))
        await outlast(gateway)
        with pytest.raises(aiohttp.ClientConnectionError):
            await gateway.post({"model": "a"})
        again()
        await gateway.server.start("127.0.0.1", gateway.xds_port)
        await gateway.envoy.wait_ready()
        assert (await gateway.post({"model": "a"}))[0] == 200
    finally:
        await gateway.envoy.stop()


def subscribed(gateway):
    node = gateway.server.nodes.get(gateway.envoy.node_id)
    return node.stream.subscriptions if node is not None and node.stream is not None else {}
