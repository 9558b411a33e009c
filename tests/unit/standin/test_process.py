"""The process: start, load, drain, crash."""

import asyncio
import json
import socket

import aiohttp
import pytest

from tests.unit.standin.helpers import Spawn, read_until, standin_process

SLOW_STREAM = {"prompt": [1] * 10, "stream": True, "max_tokens": 12, "ignore_eos": True}


async def test_sigterm_drains_within_the_shutdown_timeout(spawn: Spawn) -> None:
    running = await spawn("--shutdown-timeout", "30", STANDIN_PROFILE="l4-8b")
    async with running.session.post("/v1/completions", json=SLOW_STREAM) as response:
        await response.content.readuntil(b"\n\n")
        running.process.terminate()
        rest = (await response.read()).decode()
    assert rest.endswith("data: [DONE]\n\n")
    assert '"finish_reason":"length"' in rest
    assert await running.process.wait() == 0
    with pytest.raises(aiohttp.ClientConnectorError):
        await running.session.get("/health")


async def test_new_connections_are_refused_while_draining(spawn: Spawn) -> None:
    running = await spawn("--shutdown-timeout", "30", STANDIN_PROFILE="l4-8b")
    endless = SLOW_STREAM | {"max_tokens": 10_000}
    async with running.session.post("/v1/completions", json=endless) as response:
        await response.content.readuntil(b"\n\n")
        running.process.terminate()
        await read_until(running.process, "draining")
        with pytest.raises(aiohttp.ClientConnectorError):
            await running.session.get("/health")
        response.close()
    assert await running.process.wait() == 0


async def test_sigterm_ends_requests_at_once_without_a_shutdown_timeout(spawn: Spawn) -> None:
    """vLLM's default is `--shutdown-timeout 0`."""
    running = await spawn(STANDIN_PROFILE="l4-8b")
    endless = SLOW_STREAM | {"max_tokens": 10_000}
    async with running.session.post("/v1/completions", json=endless) as response:
        await response.content.readuntil(b"\n\n")
        running.process.terminate()
        # The request itself would take minutes.
        async with asyncio.timeout(20):
            with pytest.raises(aiohttp.ClientError):
                await response.read()
            assert await running.process.wait() == 0


async def test_a_hung_drain_ignores_sigterm(spawn: Spawn) -> None:
    running = await spawn()
    await running.session.post("/standin/faults", json={"hang_on_drain": True})
    running.process.terminate()
    await read_until(running.process, "ignoring the signal")
    async with running.session.get("/health") as response:
        assert response.status == 200
    running.process.kill()
    assert await running.process.wait() == -9


async def test_the_port_is_closed_while_loading() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        taken.close()
        async with standin_process(STANDIN_LOAD_SECONDS="60", STANDIN_PORT=str(port)) as process:
            await read_until(process, "loading ")
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", port)
            process.terminate()
            assert await process.wait() == 0


async def test_the_load_delay_is_scaled(spawn: Spawn) -> None:
    running = await spawn(STANDIN_LOAD_SECONDS="50", STANDIN_TIME_SCALE="1000")
    async with running.session.get("/v1/models") as response:
        assert response.status == 200


async def test_health_may_lie_while_loading(spawn: Spawn) -> None:
    running = await spawn(STANDIN_LOAD_SECONDS="60", STANDIN_HEALTH_BEFORE_READY="1")
    async with running.session.get("/health") as response:
        assert response.status == 200
    async with running.session.get("/v1/models") as response:
        assert response.status == 503


async def test_a_crash_at_start_has_its_exit_code() -> None:
    async with standin_process(STANDIN_CRASH_AT_START="1", STANDIN_CRASH_EXIT_CODE="137") as process:
        assert await process.wait() == 137


async def test_a_crash_on_a_request_resets_the_connection(spawn: Spawn) -> None:
    running = await spawn(STANDIN_CRASH_AFTER_REQUESTS="2", STANDIN_CRASH_EXIT_CODE="139")
    async with running.session.post("/v1/completions", json={"prompt": "hi"}) as response:
        assert (await response.json())["usage"]["completion_tokens"] == 16
    with pytest.raises(aiohttp.ClientError):
        await running.session.post("/v1/completions", json={"prompt": "hi"})
    assert await running.process.wait() == 139


@pytest.mark.parametrize(
    ("arguments", "variables", "code"),
    [
        (["--no-such-flag"], {}, 2),
        ([], {"STANDIN_PROFILE": "abacus"}, 2),
        (["--max-model-len", "1M"], {"STANDIN_PROFILE": "l4-8b"}, 1),
    ],
)
async def test_what_cannot_start_says_why(arguments: list[str], variables: dict[str, str], code: int) -> None:
    async with standin_process(*arguments, **variables) as process:
        assert "error:" in await read_until(process, "error:")
        assert await process.wait() == code


async def test_concurrent_streams_are_all_exact(spawn: Spawn) -> None:
    running = await spawn(STANDIN_PROFILE="h100-8b", STANDIN_TIME_SCALE="20")
    request = SLOW_STREAM | {"max_tokens": 50, "stream_options": {"include_usage": True}}

    async def stream() -> int:
        async with running.session.post("/v1/completions", json=request) as response:
            events = (await response.text()).split("\n\n")
            return int(json.loads(events[-3].removeprefix("data: "))["usage"]["completion_tokens"])

    assert await asyncio.gather(*(stream() for _ in range(90))) == [50] * 90
    async with running.session.get("/metrics") as response:
        text = await response.text()
    assert 'vllm:generation_tokens_total{engine="0",model_name="Qwen/Qwen3-0.6B"} 4500.0' in text
