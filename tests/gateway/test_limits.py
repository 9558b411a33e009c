"""Large bodies, slow engines, failing hosts: what passes, what is retried, and where it ends."""

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from aiohttp import web

from dev.envoy.process import EnvoyProcess, free_port
from modelyard.core.routing import Endpoint
from modelyard.gateway.resources import ResourceBuilder
from modelyard.render.envoy import parts
from tests.gateway.conftest import PATIENCE, table_of


@asynccontextmanager
async def other_settings(gateway, folder, **changes):
    """Replace the gateway's Envoy by one with other settings."""
    gateway.settings = replace(gateway.settings, listener_port=free_port(), **changes)
    gateway.builder = ResourceBuilder(gateway.settings)
    gateway.offer(table_of(("a", (), 0)))
    await gateway.envoy.stop()
    port = gateway.settings.listener_port
    gateway.envoy = EnvoyProcess(folder, gateway.xds_port, port, node_id="envoy-2")
    async with gateway.envoy:
        yield


def hanging(backend):
    """Make an engine answer only once it is released."""

    async def answer(request):
        await backend.release.wait()
        return web.json_response({})

    backend.reply = answer
    return backend


async def test_a_hold_may_be_longer_than_the_idle_limits(gateway, make_backend, tmp_path):
    """Until the model is known a client may pause for a second here; a held request waits for longer."""
    backend = await make_backend()
    async with other_settings(gateway, tmp_path, body_idle_timeout=1.0):
        held = asyncio.create_task(gateway.post({"model": "a"}))
        await gateway.wait_waiting({"team/a": 1})
        done, _ = await asyncio.wait({held}, timeout=2.5)
        assert not done, "the hold outlives the idle limit of 1 s"
        gateway.offer(table_of(("a", (backend.endpoint,), 0)))
        assert (await held)[0] == 200


async def test_a_pausing_upload_is_ended(gateway, tmp_path):
    async with other_settings(gateway, tmp_path, body_idle_timeout=0.5):
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.settings.listener_port)
        writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            b'content-length: 100\r\n\r\n{"model"'
        )
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE)
        body = json.loads(await reader.readuntil(b"}}"))
        writer.close()
        await writer.wait_closed()
    assert head.startswith(b"HTTP/1.1 408")
    assert body["error"]["code"] == "request_timeout"


async def test_a_request_that_takes_too_long_is_504(gateway, make_backend):
    backend = hanging(await make_backend())
    await gateway.apply(table_of(("a", (backend.endpoint,), 0), request_seconds=1))
    status, body, _ = await gateway.post({"model": "a"})
    backend.release.set()
    assert (status, body["error"]["code"]) == (504, "timeout")


async def test_large_replies_pass_and_are_counted(gateway, make_backend):
    backend = await make_backend()
    usage = {"prompt_tokens": 9, "completion_tokens": 0}
    data = json.dumps({"usage": usage, "data": ["x" * 1000] * 20_000})

    async def large(request):
        return web.json_response(text=data)

    backend.reply = large
    await gateway.apply(table_of(("a", (backend.endpoint,), 0)))
    status, body, _ = await gateway.post({"model": "a"}, path="/v1/embeddings")
    assert status == 200
    assert len(body["data"]) == 20_000
    assert list((await gateway.counters()).prompt_tokens.values()) == [9]


@pytest.mark.parametrize("status", [429, 503])
async def test_large_requests_are_retried_on_another_host(gateway, make_backend, status):
    bad, good = await make_backend(status=status), await make_backend()
    await gateway.apply(table_of(("a", tuple(sorted((bad.endpoint, good.endpoint))), 0)))
    body = {"model": "a", "messages": ["x" * 2_000_000]}
    for _ in range(10):
        assert (await gateway.post(body))[0] == 200
    assert len(good.bodies) == 10
    assert bad.bodies, "the failing host was tried"
    # Every attempt is rewritten once, from the client's own body.
    assert {json.loads(raw)["model"] for raw in bad.bodies + good.bodies} == {"served-a"}
    assert {len(raw) for raw in bad.bodies} == {len(raw) for raw in good.bodies}


async def test_a_host_that_dies_in_the_middle_of_a_request_is_replaced(gateway, make_backend):
    dying, good = await make_backend(), await make_backend()

    async def drop(request):
        request.transport.abort()
        return web.Response()

    dying.reply = drop
    await gateway.apply(table_of(("a", tuple(sorted((dying.endpoint, good.endpoint))), 0)))
    statuses = [(await gateway.post({"model": "a"}))[0] for _ in range(20)]
    assert statuses == [200] * 20
    assert dying.bodies


async def test_no_host_answers(gateway):
    await gateway.apply(table_of(("a", (Endpoint("127.0.0.1", free_port()),), 0)))
    status, body, headers = await gateway.post({"model": "a"})
    assert (status, body["error"]["code"]) == (503, "model_unavailable")
    assert headers["retry-after"] == "10"


async def test_errors_of_an_engine_pass_unchanged(gateway, make_backend):
    backend = await make_backend(status=400)
    await gateway.apply(table_of(("a", (backend.endpoint,), 0)))
    assert (await gateway.post({"model": "a"}))[:2] == (400, {"error": {"message": "refused"}})


async def test_a_busy_pod_gets_nothing_while_another_is_free(gateway, make_backend):
    busy, free = hanging(await make_backend()), await make_backend()
    await gateway.apply(table_of(("a", (busy.endpoint,), 0)))
    first = asyncio.create_task(gateway.post({"model": "a"}))
    async with asyncio.timeout(PATIENCE):
        while not busy.bodies:
            await asyncio.sleep(0.01)
    await gateway.apply(table_of(("a", tuple(sorted((busy.endpoint, free.endpoint))), 0)))
    for _ in range(30):
        assert (await gateway.post({"model": "a"}))[0] == 200
    assert len(busy.bodies) == 1
    assert len(free.bodies) == 30
    busy.release.set()
    assert (await first)[0] == 200


async def test_hundreds_of_models(gateway, make_backend):
    backend = await make_backend()
    names = [f"m{number}" for number in range(500)]
    await gateway.apply(table_of(*((name, (backend.endpoint,), 0) for name in names)))
    async with gateway.session.get(f"{gateway.envoy.url}/v1/models") as reply:
        assert len((await reply.json())["data"]) == 1000
    for name in ("m0", "m499"):
        assert (await gateway.post({"model": name}))[1]["model"] == f"served-{name}"


async def test_a_rate_limited_request_gets_429_in_openai_shape(gateway, make_backend, monkeypatch):
    """No tenant has a limit yet; the arrivals' limiter is told to enforce, which is the same filter."""
    counter = parts._arrival_counter

    def enforcing(name):
        limiter = counter(name)
        limiter["filter_enforced"]["default_value"]["numerator"] = 100
        return limiter

    monkeypatch.setattr(parts, "_arrival_counter", enforcing)
    backend = await make_backend()
    await gateway.apply(table_of(("a", (backend.endpoint,), 0)))
    assert (await gateway.post({"model": "a"}))[0] == 200
    status, answer, headers = await gateway.post({"model": "a"})
    assert (status, headers["content-type"]) == (429, "application/json")
    assert answer["error"]["code"] == "rate_limit_exceeded"
    assert set(answer["error"]) >= {"message", "type", "code"}
    assert len(backend.bodies) == 1


async def test_an_engine_that_is_full_everywhere_says_so_itself(gateway, make_backend):
    backend = await make_backend(status=429)
    await gateway.apply(table_of(("a", (backend.endpoint,), 0)))
    status, answer, _ = await gateway.post({"model": "a"})
    assert (status, answer["error"]["message"]) == (429, "refused")
    assert len(backend.bodies) == 1 + gateway.settings.retries
