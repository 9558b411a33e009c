"""An Envoy that is to leave: it ends after its last request, when the operator has written what it counted."""

import asyncio

import pytest

from modelyard.render.envoy import scripts
from modelyard.render.envoy.bootstrap import LEAVE_PATH
from tests.gateway.conftest import table_of, until


@pytest.fixture
async def served(gateway, make_backend):
    backend = await make_backend()
    await gateway.apply(table_of(("a", (backend.endpoint,), 0)))
    return backend


async def leave(gateway):
    """Ask as the kubelet does before it sends SIGTERM; return status and text."""
    async with gateway.session.get(f"{gateway.envoy.stats_url}{LEAVE_PATH}") as reply:
        return reply.status, await reply.text()


def asked(gateway, question):
    return gateway.operator.asked.count((question, gateway.envoy.node_id))


async def health(gateway):
    async with gateway.session.get(f"{gateway.envoy.url}/healthz") as reply:
        return reply.status


async def test_it_ends_after_the_last_request_and_a_reading(gateway, served):
    gateway.operator.leaving = True
    url = f"{gateway.envoy.url}/v1/chat/completions"
    async with gateway.session.post(url, json={"model": "a", "stream": True}) as stream:
        await stream.content.readline()
        leaving = asyncio.create_task(leave(gateway))
        await until(lambda: asked(gateway, "Leaving"))
        while await health(gateway) == 200:
            await asyncio.sleep(0.02)
        # New requests are still answered, and clients are told to connect elsewhere.
        status, _, headers = await gateway.post({"model": "a"})
        assert (status, headers["connection"]) == (200, "close")
        await asyncio.sleep(2.5)
        assert not asked(gateway, "Settle"), "a request is under way"
        served.release.set()
        assert (await stream.content.read()).endswith(b"data: [DONE]\n\n")
    await until(lambda: asked(gateway, "Settle"))
    assert not leaving.done()
    gateway.operator.settles.set()
    assert await leaving == (200, "settled\n")
    assert (asked(gateway, "Leaving"), asked(gateway, "Settle")) == (1, 1)


async def test_a_request_after_the_reading_asks_for_another_one(gateway, served):
    gateway.operator.leaving = True
    leaving = asyncio.create_task(leave(gateway))
    await until(lambda: asked(gateway, "Settle") == 1)
    # It comes and ends while the operator is busy with what was before.
    assert (await gateway.post({"model": "a"}))[0] == 200
    gateway.operator.settles.set()
    assert await leaving == (200, "settled\n")
    assert asked(gateway, "Settle") == 2


async def test_who_is_no_kubelet_makes_nobody_leave(gateway, served):
    """Anybody who reaches the counters can ask: the operator knows better, and clients notice nothing."""
    leaving = asyncio.create_task(leave(gateway))
    await until(lambda: asked(gateway, "Settle"))
    assert await health(gateway) == 200
    status, _, headers = await gateway.post({"model": "a"})
    assert (status, headers.get("connection")) == (200, None)
    gateway.operator.settles.set()
    await leaving
    assert await health(gateway) == 200


async def test_it_waits_for_an_operator_that_is_away(gateway, served):
    await gateway.server.stop()
    leaving = asyncio.create_task(leave(gateway))
    assert (await gateway.post({"model": "a"}))[0] == 200
    await asyncio.sleep(4)
    assert not leaving.done()
    gateway.operator.settles.set()
    await gateway.server.start("127.0.0.1", gateway.xds_port)
    assert await leaving == (200, "settled\n")
    assert asked(gateway, "Settle")


@pytest.fixture
def impatient(monkeypatch):
    script = scripts.leave(1, 3)
    monkeypatch.setattr(scripts, "leave", lambda _serves_on, _patience: script)


async def test_it_does_not_wait_for_ever(impatient, gateway, served):
    await gateway.server.stop()
    assert await leave(gateway) == (200, "the operator does not answer\n")
