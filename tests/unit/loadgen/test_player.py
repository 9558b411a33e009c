"""The generator against a real HTTP server in the same loop."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web

from dev.loadgen import LoadGenerator, PlannedRequest

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Serve = Callable[[Handler], Awaitable[str]]


def usage(prompt: int, output: int) -> bytes:
    return (
        b"data: "
        + json.dumps({"usage": {"prompt_tokens": prompt, "completion_tokens": output}}).encode()
        + b"\n\n"
    )


async def answer(request: web.Request) -> web.StreamResponse:
    """Answer as asked for, in two pieces."""
    body = await request.json()
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b'data: {"choices": [{"text": "a"}]}\n\n')
    await response.write(usage(len(body["prompt"]), body["max_tokens"]) + b"data: [DONE]\n\n")
    return response


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    runners: list[web.AppRunner] = []

    async def start(handler: Handler) -> str:
        app = web.Application()
        app.router.add_post("/v1/completions", handler)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        runners.append(runner)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    yield start
    for runner in runners:
        await runner.cleanup()


async def test_every_request_is_sent_as_planned_and_answered(serve: Serve) -> None:
    bodies = []

    async def record(request: web.Request) -> web.StreamResponse:
        bodies.append(await request.json())
        return await answer(request)

    generator = LoadGenerator(await serve(record), "some/model")
    records = await generator.run([PlannedRequest(0.0, 3, 2), PlannedRequest(0.01, 14_050, 1000)])
    assert [item.answered for item in records] == [True, True]
    assert sorted(len(body["prompt"]) for body in bodies) == [3, 14_050]
    assert {body["model"] for body in bodies} == {"some/model"}
    assert all(body["stream"] and body["stream_options"]["include_usage"] for body in bodies)
    assert (generator.progress.sent, generator.progress.answered, generator.progress.lost) == (2, 2, 0)
    assert generator.progress.in_flight == 0


async def test_the_loop_is_open(serve: Serve) -> None:
    """No request waits for another one: all are under way at once, though none is answered before the
    last."""
    count = 300
    under_way = 0
    everyone = asyncio.Event()

    async def wait_for_everyone(request: web.Request) -> web.StreamResponse:
        nonlocal under_way
        under_way += 1
        if under_way == count:
            everyone.set()
        await everyone.wait()
        return await answer(request)

    url = await serve(wait_for_everyone)
    records = await LoadGenerator(url, "m").run(
        [PlannedRequest(0.001 * index, 5, 5) for index in range(count)]
    )
    assert all(record.answered for record in records)


async def test_requests_never_leave_early(serve: Serve) -> None:
    records = await LoadGenerator(await serve(answer), "m").run(
        [PlannedRequest(0.05 * index, 1, 1) for index in range(5)]
    )
    assert all(record.sent_s is not None and record.sent_s >= record.scheduled_s for record in records)


async def unavailable(request: web.Request) -> web.StreamResponse:
    return web.json_response({"error": {"message": "no replica"}}, status=503)


async def cut_short(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b'data: {"choices": [{"text": "a"}]}\n\n')
    assert request.transport is not None
    request.transport.abort()
    return response


async def miscount(request: web.Request) -> web.StreamResponse:
    return web.Response(body=usage(3, 1) + b"data: [DONE]\n\n")


async def silent(request: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


@pytest.mark.parametrize(
    ("handler", "reason"),
    [
        (unavailable, "HTTP 503: .*no replica"),
        (cut_short, "ClientPayloadError|ClientOSError|ServerDisconnectedError"),
        (miscount, "3 prompt and 1 output tokens instead of 3 and 2"),
        (silent, "no complete answer within 0.2 s"),
    ],
)
async def test_a_failure_is_a_lost_request_with_its_reason(
    serve: Serve, handler: Handler, reason: str
) -> None:
    generator = LoadGenerator(await serve(handler), "m", timeout_s=0.2)
    (record,) = await generator.run([PlannedRequest(0.0, 3, 2)])
    assert not record.answered
    assert record.error is not None
    assert re.search(reason, record.error)
    assert generator.progress.lost == 1


async def test_nobody_listening_is_a_lost_request(unused_tcp_port: int) -> None:
    (record,) = await LoadGenerator(f"http://127.0.0.1:{unused_tcp_port}", "m").run(
        [PlannedRequest(0.0, 1, 1)]
    )
    assert "Cannot connect" in (record.error or "")
