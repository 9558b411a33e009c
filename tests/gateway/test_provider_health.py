"""Providers that do not answer are passed over, and asked again after a while."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import pytest

from tests.gateway.conftest import PATIENCE
from tests.gateway.test_fallback import two
from tests.gateway.test_providers import external, provider, table_to

__all__ = ["provider", "two"]

FAILURES = 3
"""`provider_failures` of the gateway's settings."""

REFUSED = 40
"""Requests that are refused at once."""


@dataclass
class Silent:
    """A port that takes connections and never says a word, as a host behind a firewall does after the first packet."""

    port: int = 0
    connections: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Say nothing until the other side gives up."""
        self.connections += 1
        with contextlib.suppress(ConnectionError):
            await reader.read()
            while await reader.read(4096):
                pass
        writer.close()


@asynccontextmanager
async def silent_host() -> AsyncIterator[Silent]:
    host = Silent()
    server = await asyncio.start_server(host.serve, "127.0.0.1", 0)
    host.port = server.sockets[0].getsockname()[1]
    try:
        yield host
    finally:
        server.close()


@pytest.fixture
async def quick(gateway):
    """The gateway with a short connect timeout and a short first ejection."""
    gateway.settings = replace(gateway.settings, provider_connect_timeout=1.0, provider_ejection_seconds=2.0)
    return gateway


async def test_a_provider_that_hangs_costs_a_few_requests_the_connect_timeout(gateway, two):
    gateway.settings = replace(gateway.settings, provider_connect_timeout=1.0)
    (_, one), (second, other) = two
    async with silent_host() as silent:
        await gateway.apply(table_to(replace(one, port=silent.port), other))
        for _ in range(FAILURES):
            assert (await gateway.post({"model": "chat"}))[0] == 200
        tried = silent.connections
        assert tried == FAILURES
        for _ in range(5):
            assert (await gateway.post({"model": "chat"}))[0] == 200
        assert silent.connections == tried, "it is passed over at once"
        assert len(second.received) == FAILURES + 5


async def test_where_it_is_the_only_target_the_refusal_comes_at_once(gateway, provider):
    gateway.settings = replace(gateway.settings, provider_connect_timeout=1.0)
    gateway.keys = {"acme": "sk-provider-0123456789"}
    async with silent_host() as silent:
        await gateway.apply(table_to(replace(external(provider), port=silent.port)))
        # Each request tries a connection three times.
        assert (await gateway.post({"model": "chat"}))[0] == 503
        tried = silent.connections
        # Many more than the addresses that stand in for the provider take before they were left out themselves. With
        # three connect timeouts each they would take twice as long as they may.
        async with asyncio.timeout(PATIENCE):
            for _ in range(REFUSED):
                status, body, headers = await gateway.post({"model": "chat"})
                assert (status, body["error"]["type"]) == (503, "server_error")
                assert "retry-after" in headers
        assert silent.connections == tried


async def test_a_provider_that_answers_503_is_passed_over_and_asked_again(quick, two):
    (first, one), (_, other) = two
    first.status = 503
    await quick.apply(table_to(one, other))
    for _ in range(FAILURES + 3):
        assert (await quick.post({"model": "chat"}))[0] == 200
    assert len(first.received) == FAILURES
    first.status = 200
    async with asyncio.timeout(PATIENCE):
        while len(first.received) == FAILURES:
            assert (await quick.post({"model": "chat"}))[0] == 200
            await asyncio.sleep(0.05)
    status, answer, _ = await quick.post({"model": "chat"})
    assert (status, answer["model"]) == (200, one.model)


@pytest.mark.parametrize("status", [400, 401, 429, 500])
async def test_answers_about_requests_say_nothing_about_health(gateway, two, status):
    (first, one), (_, other) = two
    first.status = status
    await gateway.apply(table_to(one, other))
    for _ in range(FAILURES * 2):
        await gateway.post({"model": "chat"})
    assert len(first.received) == FAILURES * 2
