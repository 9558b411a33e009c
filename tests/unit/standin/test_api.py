"""The OpenAI API: exact usage, streams, refusals, and faults."""

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from dev.standin.text import render_tokens
from tests.unit.standin.helpers import Launch

MESSAGES = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "x" * 91}]
CHAT = {"model": "m", "messages": MESSAGES}


async def read_events(response: aiohttp.ClientResponse) -> list[dict[str, Any]]:
    """Return a stream's events; the end marker must be there."""
    assert response.status == 200
    assert response.headers["Content-Type"].startswith("text/event-stream")
    parts = (await response.text()).split("\n\n")
    assert parts[-2:] == ["data: [DONE]", ""]
    return [json.loads(part.removeprefix("data: ")) for part in parts[:-2]]


async def test_unary_chat_has_exact_usage(launch: Launch) -> None:
    running = await launch()
    response = await running.client.post("/v1/chat/completions", json=CHAT | {"max_tokens": 7})
    body = await response.json()
    assert body["usage"] == {"prompt_tokens": 25, "completion_tokens": 7, "total_tokens": 32}
    (choice,) = body["choices"]
    assert len(choice["message"]["content"].split()) == 7
    assert choice["finish_reason"] == "length"
    assert (body["object"], body["model"]) == ("chat.completion", "m")


@pytest.mark.parametrize("per_event", [1, 3, 50])
@pytest.mark.parametrize("chat", [True, False])
async def test_streams_carry_every_token_once(launch: Launch, per_event: int, chat: bool) -> None:
    running = await launch(tokens_per_event=per_event)
    path, prompt = ("chat/completions", CHAT) if chat else ("completions", {"prompt": [5] * 40})
    request = prompt | {"stream": True, "max_tokens": 20, "stream_options": {"include_usage": True}}
    events = await read_events(await running.client.post(f"/v1/{path}", json=request))
    usage = events.pop()
    assert usage["choices"] == []
    prompt_tokens = 25 if chat else 40
    assert usage["usage"] == {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": 20,
        "total_tokens": prompt_tokens + 20,
    }
    if chat:
        assert events.pop(0)["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    texts = [
        event["choices"][0]["delta"]["content"] if chat else event["choices"][0]["text"] for event in events
    ]
    assert "".join(texts) == render_tokens(0, 20)
    sizes = [len(text.split()) for text in texts]
    assert sizes[0] == 1
    assert sum(sizes) == 20
    assert set(sizes[1:-1]) <= {per_event}
    reasons = [event["choices"][0]["finish_reason"] for event in events]
    assert reasons == [None] * (len(events) - 1) + ["length"]
    assert all("usage" not in event for event in events)


async def test_usage_in_streams_can_be_forced_or_left_out(launch: Launch) -> None:
    request = CHAT | {"stream": True, "max_tokens": 3}
    plain = await launch()
    events = await read_events(await plain.client.post("/v1/chat/completions", json=request))
    assert all(event["choices"] for event in events)
    forced = await launch("--enable-force-include-usage")
    events = await read_events(await forced.client.post("/v1/chat/completions", json=request))
    assert [event["usage"]["completion_tokens"] for event in events] == [0, 1, 3, 3]
    options = {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}
    events = await read_events(await plain.client.post("/v1/chat/completions", json=request | options))
    assert [event["usage"]["completion_tokens"] for event in events] == [0, 1, 3, 3]
    options = {"stream_options": {"continuous_usage_stats": True}}
    events = await read_events(await plain.client.post("/v1/chat/completions", json=request | options))
    assert not any("usage" in event for event in events)


@pytest.mark.parametrize(
    ("fields", "tokens", "reason"),
    [
        ({}, 30, "stop"),
        ({"max_tokens": 10}, 10, "length"),
        ({"max_completion_tokens": 11, "max_tokens": 5}, 11, "length"),
        ({"max_tokens": 50}, 30, "stop"),
        ({"max_tokens": 50, "ignore_eos": True}, 50, "length"),
        ({"max_tokens": 50, "min_tokens": 40}, 40, "stop"),
        ({"max_tokens": 40, "min_tokens": 40}, 40, "length"),
    ],
)
async def test_where_the_text_ends(launch: Launch, fields: dict[str, Any], tokens: int, reason: str) -> None:
    running = await launch(output_tokens=30)
    body = await (await running.client.post("/v1/chat/completions", json=CHAT | fields)).json()
    assert body["usage"]["completion_tokens"] == tokens
    assert body["choices"][0]["finish_reason"] == reason


@pytest.mark.parametrize("prompt", ["y" * 32, ["y" * 32], [1] * 8, [[1] * 8]])
async def test_prompts_are_counted(launch: Launch, prompt: object) -> None:
    running = await launch()
    body = await (
        await running.client.post("/v1/completions", json={"model": "alias", "prompt": prompt})
    ).json()
    assert body["usage"] == {"prompt_tokens": 8, "completion_tokens": 16, "total_tokens": 24}


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("chat/completions", CHAT | {"model": "other"}, 404, "model"),
        ("chat/completions", CHAT | {"model": 3}, 400, "model"),
        ("chat/completions", {"model": "m"}, 400, "messages"),
        ("chat/completions", {"model": "m", "messages": []}, 400, "messages"),
        ("chat/completions", {"model": "m", "messages": ["hi"]}, 400, "messages"),
        ("chat/completions", {"model": "m", "messages": [{"role": "user", "content": 3}]}, 400, "messages"),
        ("chat/completions", CHAT | {"max_tokens": "many"}, 400, "max_tokens"),
        ("chat/completions", CHAT | {"max_tokens": -1}, 400, "max_tokens"),
        ("chat/completions", CHAT | {"n": 0}, 400, "n"),
        ("chat/completions", CHAT | {"n": 129}, 400, "n"),
        ("chat/completions", CHAT | {"stream": "yes"}, 400, "stream"),
        ("chat/completions", CHAT | {"stream_options": {"include_usage": True}}, 400, "stream_options"),
        ("chat/completions", CHAT | {"max_tokens": 5, "min_tokens": 6}, 400, "min_tokens"),
        ("chat/completions", CHAT | {"max_tokens": 1000}, 400, "input_tokens"),
        ("completions", {"model": "m", "prompt": [1] * 1000}, 400, "input_tokens"),
        ("completions", {"model": "m", "prompt": ""}, 400, "prompt"),
        ("completions", {"model": "m", "prompt": ["a", "b"]}, 400, "prompt"),
        ("completions", [], 400, None),
    ],
)
async def test_bad_requests_are_refused_in_vllms_shape(
    launch: Launch, path: str, body: object, status: int, param: str | None
) -> None:
    running = await launch("--max-model-len", "1000")
    response = await running.client.post(f"/v1/{path}", json=body)
    assert response.status == status
    error = (await response.json())["error"]
    assert (error["code"], error["param"]) == (status, param)
    assert error["type"] == ("NotFoundError" if status == 404 else "BadRequestError")
    assert error["message"]


async def test_broken_json_is_refused(launch: Launch) -> None:
    running = await launch()
    for raw in (b"{", b"\xff", b"[" * 100_000):
        assert (await running.client.post("/v1/completions", data=raw)).status == 400


async def test_models_adapters_version_and_health(launch: Launch) -> None:
    running = await launch("--enable-lora", "--lora-modules", "tuned=org/tuned", "--max-model-len", "8k")
    cards = (await (await running.client.get("/v1/models")).json())["data"]
    assert [(card["id"], card["root"], card["parent"]) for card in cards] == [
        ("m", "org/model", None),
        ("alias", "org/model", None),
        ("tuned", "org/tuned", "m"),
    ]
    assert cards[0]["max_model_len"] == 8000
    body = await (await running.client.post("/v1/chat/completions", json=CHAT | {"model": "tuned"})).json()
    assert body["model"] == "tuned"
    assert (await (await running.client.get("/version")).json())["version"].startswith("0.32")
    health = await running.client.get("/health")
    assert (health.status, await health.read()) == (200, b"")


async def test_api_keys_guard_v1_only(launch: Launch) -> None:
    running = await launch("--api-key", "first", "second")
    for headers, status in [
        ({}, 401),
        ({"Authorization": "Bearer no"}, 401),
        ({"Authorization": "Bearer second"}, 200),
    ]:
        assert (await running.client.get("/v1/models", headers=headers)).status == status
    assert (await running.client.get("/health")).status == 200


async def test_a_client_that_leaves_frees_its_place(launch: Launch) -> None:
    running = await launch(profile="l4-8b")
    request = CHAT | {"stream": True, "max_tokens": 5000, "ignore_eos": True}
    async with running.client.post("/v1/chat/completions", json=request) as response:
        await response.content.readuntil(b"\n\n")
        (sequence,) = running.standin.engine.scheduler.running
        progress = asyncio.Event()
        sequence.on_progress = progress.set
        response.close()
    async with asyncio.timeout(10):
        while sequence.finished is None:
            await progress.wait()
            progress.clear()
    assert not running.standin.engine.scheduler.has_work
    assert await running.metric("vllm:request_success_total", "abort") == 1


async def test_a_share_of_requests_is_refused(launch: Launch) -> None:
    running = await launch()
    await running.client.post("/standin/faults", json={"error_share": 0.5, "error_status": 429})
    responses = [await running.client.post("/v1/chat/completions", json=CHAT) for _ in range(60)]
    refused = [response for response in responses if response.status == 429]
    assert 15 <= len(refused) <= 45
    assert {response.status for response in responses} == {200, 429}
    assert (await refused[0].json())["error"]["code"] == 429
    assert "Retry-After" in refused[0].headers
    await running.client.delete("/standin/faults")
    responses = [await running.client.post("/v1/chat/completions", json=CHAT) for _ in range(20)]
    assert {response.status for response in responses} == {200}


async def test_a_stream_breaks_after_some_tokens(launch: Launch) -> None:
    running = await launch(tokens_per_event=1)
    faults = {"break_stream_share": 1, "break_stream_after_tokens": 5}
    await running.client.post("/standin/faults", json=faults)
    response = await running.client.post("/v1/completions", json={"prompt": "hi", "stream": True})
    received = bytearray()

    async def receive() -> None:
        async for chunk in response.content.iter_any():
            received.extend(chunk)

    with pytest.raises(aiohttp.ClientPayloadError):
        await receive()
    assert received.count(b"data: ") == 5
    assert not running.standin.engine.scheduler.has_work


async def test_metrics_can_be_spoilt(launch: Launch) -> None:
    running = await launch()
    client = running.client

    async def scrape(mode: str) -> tuple[int, bytes]:
        assert (await client.post("/standin/faults", json={"metrics": mode})).status == 200
        response = await client.get("/metrics")
        return response.status, await response.read()

    assert (await scrape("error"))[0] == 500
    status, missing = await scrape("missing")
    assert status == 200
    assert b"vllm:" not in missing
    assert b"process_cpu_seconds_total" in missing
    _, renamed = await scrape("renamed")
    assert b"vllm:" not in renamed
    assert b"vllm_engine:num_requests_running{" in renamed
    status, garbage = await scrape("garbage")
    assert status == 200
    with pytest.raises(UnicodeDecodeError):
        garbage.decode()
    assert b"vllm:num_requests_running{" in (await scrape("true"))[1]


async def test_the_first_byte_can_be_late(launch: Launch) -> None:
    running = await launch()
    await running.client.post("/standin/faults", json={"first_byte_delay_seconds": 30})
    request = asyncio.ensure_future(running.client.post("/v1/chat/completions", json=CHAT))
    assert (await asyncio.wait({request}, timeout=0.2))[1] == {request}
    request.cancel()


async def test_crashes_come_on_the_nth_request_or_after_a_time(launch: Launch) -> None:
    running = await launch()
    await running.client.post("/standin/faults", json={"crash_after_requests": 3, "crash_exit_code": 139})
    for number in (1, 2, 3):
        await running.client.post("/v1/chat/completions", json=CHAT)
        assert running.exits.empty() is (number < 3)
    assert running.exits.get_nowait() == 139
    await running.client.post(
        "/standin/faults", json={"crash_after_seconds": 0.01, "crash_after_requests": 0}
    )
    async with asyncio.timeout(10):
        assert await running.exits.get() == 139


@pytest.mark.parametrize(
    "changes",
    [{"bogus": 1}, {"error_share": 2}, {"error_share": "x"}, {"metrics": "odd"}, {"hang_on_drain": 1}, [], 3],
)
async def test_bad_faults_are_refused_and_change_nothing(launch: Launch, changes: object) -> None:
    running = await launch()
    before = running.standin.injector.faults
    assert (await running.client.post("/standin/faults", json=changes)).status == 400
    assert running.standin.injector.faults == before


async def test_v1_waits_for_the_model(launch: Launch) -> None:
    running = await launch()
    running.standin.api.ready = False
    assert (await running.client.get("/health")).status == 200
    response = await running.client.post("/v1/chat/completions", json=CHAT)
    assert response.status == 503
    assert (await response.json())["error"]["type"] == "ServiceUnavailableError"
