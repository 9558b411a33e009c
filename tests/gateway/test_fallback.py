"""Where a request goes when its target fails, and what the next target gets."""

import asyncio
import json
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from dev.envoy.process import free_port
from modelyard.core.routing import Endpoint, Upstream, WeightedTarget
from tests.gateway.conftest import PATIENCE
from tests.gateway.test_providers import engine, external, table_to
from tests.gateway.tls import tls_provider

FIRST_KEY, SECOND_KEY = "sk-first-00000000", "sk-second-1111111"


@pytest.fixture
async def two(gateway, tmp_path):
    """Two providers with different keys, paths and model names."""
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(tls_provider(tmp_path / "ca-1"))
        second = await stack.enter_async_context(tls_provider(tmp_path / "ca-2"))
        gateway.keys = {"first": FIRST_KEY, "second": SECOND_KEY}
        yield (
            (first, external(first, "first", "a-rather-long-model-name", path="/v1beta/openai")),
            (second, external(second, "second", "short", path="/v1")),
        )


async def reset(request, writer):
    writer.transport.abort()


async def hang(request, writer):
    await asyncio.Event().wait()


FAILURES = (429, 500, 502, 503, 504, "reset", "dead port", "unknown host", "another certificate", "silent")


@pytest.mark.parametrize("failure", FAILURES)
async def test_the_next_target_is_tried_with_its_own_name_path_and_key(gateway, two, failure):
    (first, one), (second, other) = two
    changes = {}
    if isinstance(failure, int):
        first.status = failure
    elif failure == "reset":
        first.respond = reset
    elif failure == "dead port":
        one = external(first, "first", port=free_port())
    elif failure == "unknown host":
        one = external(first, "first", host="nowhere.invalid")
    elif failure == "another certificate":
        one = external(first, "first", trust=second.certificate)
    else:
        first.respond = hang
        changes = {"first_token_seconds": 1}
    await gateway.apply(table_to(one, other, **changes))
    # A stream that asks for its usage already, so that the gateway need not.
    streamed = {"stream": True, "stream_options": {"include_usage": True}}
    body = {"model": "chat", **(streamed if failure == "silent" else {})}
    status, answer, _ = await gateway.post(body)
    assert (status, answer["model"]) == (200, "short")
    (request,) = second.received
    assert request.line == "POST /v1/chat/completions HTTP/1.1"
    assert request.headers["authorization"] == f"Bearer {SECOND_KEY}"
    assert request.headers["host"] == f"localhost:{second.port}"
    assert request.body == json.dumps({**body, "model": "short"}).encode()
    assert len(first.received) == (
        0 if failure in {"dead port", "unknown host", "another certificate"} else 1
    )
    for tried in first.received:
        assert tried.headers["authorization"] == f"Bearer {FIRST_KEY}"
        assert tried.line == "POST /v1beta/openai/chat/completions HTTP/1.1"
        assert json.loads(tried.body)["model"] == "a-rather-long-model-name"


@pytest.mark.parametrize("status", [400, 401, 404, 422])
async def test_an_answer_about_the_request_is_the_answer(gateway, two, status):
    (first, one), (second, other) = two
    first.status = status
    await gateway.apply(table_to(one, other))
    assert (await gateway.post({"model": "chat"}))[:2] == (
        status,
        {"error": {"message": "refused by provider"}},
    )
    assert second.received == []


async def test_where_all_targets_fail_the_last_one_answers(gateway, two):
    (first, one), (second, other) = two
    first.status, second.status = 500, 429
    await gateway.apply(table_to(one, other))
    assert (await gateway.post({"model": "chat"}))[0] == 429
    assert (len(first.received), len(second.received)) == (1, 1)


async def test_an_engine_never_sees_what_was_meant_for_a_provider(gateway, two, make_backend):
    (first, one), _ = two
    first.status = 503
    backend = await make_backend()
    # The client's own name: the body needs no change, but the attempt before it announced another length.
    await gateway.apply(table_to(one, engine(backend, model="chat")))
    sent = json.dumps({"model": "chat", "messages": ["x" * 1000]}).encode()
    status, answer, _ = await gateway.post(sent, headers={"Authorization": "Bearer of-the-client"})
    assert (status, answer["model"]) == (200, "chat")
    assert backend.bodies == [sent]
    assert backend.paths == ["/v1/chat/completions"]
    assert backend.headers[0]["content-length"] == str(len(sent))
    assert not {"authorization", "x-modelyard-path", "x-modelyard-authority"} & backend.headers[0].keys()


@pytest.mark.parametrize(
    "path", ["/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/chat/completions?x=1"]
)
async def test_the_endpoint_survives_the_way_through_all_targets(gateway, two, make_backend, path):
    (first, one), (second, other) = two
    first.status = second.status = 503
    failing, good = await make_backend(status=503), await make_backend()
    await gateway.apply(table_to(engine(failing, name="bad"), other, one, engine(good)))
    assert (await gateway.post({"model": "chat"}, path=path))[0] == 200
    endpoint = path.removeprefix("/v1").partition("?")[0]
    assert first.received[0].line == f"POST /v1beta/openai{endpoint} HTTP/1.1"
    assert second.received[0].line == f"POST /v1{endpoint} HTTP/1.1"
    assert (failing.paths, good.paths) == ([path], [f"/v1{endpoint}"])


async def test_another_pod_of_a_target_goes_before_another_target(gateway, two, make_backend):
    (first, one), _ = two
    bad, good = await make_backend(status=503), await make_backend()
    await gateway.apply(table_to(engine(bad, good), one))
    for _ in range(20):
        assert (await gateway.post({"model": "chat"}))[1]["model"] == "served-own"
    assert bad.bodies, "the failing pod was tried"
    assert first.handshakes == 0
    good.status = 503
    assert (await gateway.post({"model": "chat"}))[1]["model"] == "a-rather-long-model-name"


async def test_requests_are_split_by_weight_and_fall_back_to_the_others(gateway, two, make_backend):
    (first, one), (second, other) = two
    backend = await make_backend()
    table = table_to(engine(backend), one, other, priority=False)
    (route,) = table.routes
    weights = {"team/own": 5, one.cluster: 3, other.cluster: 2}
    table = replace(
        table,
        routes=(
            replace(route, targets=tuple(WeightedTarget(key, weight) for key, weight in weights.items())),
        ),
    )
    await gateway.apply(table)
    for _ in range(200):
        assert (await gateway.post({"model": "chat"}))[0] == 200
    counts = (len(backend.bodies), len(first.received), len(second.received))
    assert sum(counts) == 200
    # Five standard deviations of a binomial (7.1, 6.5, 5.7) either way.
    assert 65 <= counts[0] <= 135
    assert 28 <= counts[1] <= 92
    assert 12 <= counts[2] <= 68
    first.status = 503
    second.received.clear()
    for _ in range(60):
        assert (await gateway.post({"model": "chat"}))[0] == 200
    # What the first provider refuses goes to the next in the list.
    assert len(second.received) >= len(first.received) - counts[1] > 0


async def test_a_sleeping_first_target_is_woken_and_not_bypassed(gateway, two, make_backend):
    (first, one), _ = two
    backend = await make_backend()
    asleep = Upstream("team/own", 0, "served-own", ())
    await gateway.apply(table_to(asleep, one))
    held = asyncio.create_task(gateway.post({"model": "chat"}))
    await gateway.wait_waiting({"team/chat@route": 1})
    async with asyncio.timeout(PATIENCE):
        while not gateway.wakes:
            await asyncio.sleep(0.01)
    assert gateway.wakes[0][:2] == ("team/own", 0)
    await gateway.apply(table_to(engine(backend), one))
    assert (await held)[1]["model"] == "served-own"
    assert first.handshakes == 0


async def test_a_sleeping_deployment_is_no_fallback(gateway, two):
    (first, one), (_, other) = two
    first.status = 503
    await gateway.apply(table_to(one, Upstream("team/own", 0, "served-own", ()), other))
    assert (await gateway.post({"model": "chat"}))[1]["model"] == "short"
    assert gateway.wakes == []


async def test_the_time_to_the_first_token_bounds_streams_only(gateway, two):
    (first, one), (_, other) = two
    release = asyncio.Event()

    async def late(request, writer):
        await release.wait()
        await first.reply(writer, 200, b'{"model":"late"}')

    first.respond = late
    await gateway.apply(table_to(one, other, first_token_seconds=1))
    nested = {"model": "chat", "stream": False, "metadata": {"stream": True}, "tools": [{"stream": True}]}
    unary = asyncio.create_task(gateway.post(nested))
    # The streamed one runs out of its time beside it, so the other had as much.
    assert (await gateway.post({"model": "chat", "stream": True}))[1]["model"] == "short"
    assert not unary.done()
    release.set()
    assert (await unary)[1]["model"] == "late"


async def test_an_engine_that_dies_leaves_its_request_to_the_provider(gateway, two):
    (_, one), _ = two
    dead = Upstream("team/own", 0, "served-own", (Endpoint("127.0.0.1", free_port()),))
    await gateway.apply(table_to(dead, one))
    assert (await gateway.post({"model": "chat"}))[1]["model"] == "a-rather-long-model-name"


async def test_the_whole_answer_is_bounded_over_all_targets(gateway, two):
    (first, one), (second, other) = two
    first.respond = second.respond = hang
    await gateway.apply(table_to(one, other, request_seconds=1))
    status, body, _ = await gateway.post({"model": "chat"})
    assert (status, body["error"]["code"]) == (504, "timeout")
    assert len(second.received) == 0
