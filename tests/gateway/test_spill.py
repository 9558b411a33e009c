"""What a decision about spill and standby targets makes of requests in a real Envoy."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from modelyard.core.routing import ExternalUpstream, RoutingTable, Upstream, WeightedTarget
from tests.gateway.conftest import PATIENCE
from tests.gateway.test_providers import engine, external, table_to
from tests.gateway.tls import TlsProvider, tls_provider

OWN = "team/own"


@pytest.fixture
async def provider(tmp_path) -> AsyncIterator[TlsProvider]:
    async with tls_provider(tmp_path / "ca") as started:
        yield started


def spilling(own: Upstream, api: ExternalUpstream, tenths: int) -> RoutingTable:
    """A route whose deployment has room for so many tenths of the requests."""
    table = table_to(own, api, priority=False)
    targets = (
        WeightedTarget(OWN, tenths, standby=not tenths, wanted=1),
        WeightedTarget(api.cluster, 10 - tenths, standby=tenths == 10, wanted=0),
    )
    return replace(table, routes=(replace(table.routes[0], targets=targets),))


async def ask(gateway, count: int) -> list[str]:
    """Send requests one after the other, and return the models that answered."""
    models = []
    for _ in range(count):
        status, body, _ = await gateway.post({"model": "chat"})
        assert status == 200
        models.append(body["model"])
    return models


async def test_requests_spill_while_replicas_start_and_come_back_as_they_serve(
    gateway, provider, make_backend
):
    api = external(provider, "acme", "large", keyed=False)
    asleep = Upstream(OWN, 0, "served-own", ())
    await gateway.apply(spilling(asleep, api, 0))
    # Nothing waits, and nothing is woken by the gateway: the operator knows of the load from the arrivals.
    async with asyncio.timeout(PATIENCE):
        assert await ask(gateway, 20) == ["large"] * 20
    assert gateway.wakes == []
    backend = await make_backend()
    await gateway.apply(spilling(engine(backend), api, 7))
    models = await ask(gateway, 200)
    # 140 expected; five standard deviations of a binomial (6.5) either way.
    assert 107 <= models.count("served-own") <= 173
    assert set(models) == {"served-own", "large"}
    await gateway.apply(spilling(engine(backend), api, 10))
    before = len(provider.received)
    assert await ask(gateway, 30) == ["served-own"] * 30
    assert len(provider.received) == before
    counters = await gateway.counters()
    assert counters.arrivals["team/chat@route"] == 250


async def test_a_target_that_stands_by_is_tried_when_others_fail(gateway, provider, make_backend):
    backend = await make_backend(status=503)
    api = external(provider, "acme", "large", keyed=False)
    await gateway.apply(spilling(engine(backend), api, 10))
    assert await ask(gateway, 3) == ["large"] * 3
    assert backend.bodies, "the deployment was asked first"
    backend.status = 200
    provider.status = 503
    await gateway.apply(spilling(engine(backend), api, 0))
    backend.bodies.clear()
    assert await ask(gateway, 3) == ["served-own"] * 3
    assert len(backend.bodies) == 3


async def test_streams_under_way_end_where_they_began_when_the_target_changes(
    gateway, provider, make_backend
):
    backend = await make_backend()
    api = external(provider, "acme", "large", keyed=False)
    await gateway.apply(spilling(engine(backend), api, 10))
    url = f"{gateway.envoy.url}/v1/chat/completions"
    async with gateway.session.post(url, json={"model": "chat", "stream": True}) as reply:
        assert reply.status == 200
        first = await reply.content.readline()
        await gateway.apply(spilling(Upstream(OWN, 1, "served-own", ()), api, 0))
        assert await ask(gateway, 2) == ["large"] * 2
        backend.release.set()
        text = (first + await reply.read()).decode()
    assert (len(backend.bodies), len(provider.received)) == (1, 2)
    assert "[DONE]" in text
