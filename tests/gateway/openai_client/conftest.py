"""Fixtures: OpenAI's own Python client in front of Envoy, and engine stand-ins behind it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import openai
import pytest
from aiohttp import web

from dev.envoy.process import free_port
from dev.standin.arguments import parse_arguments
from dev.standin.server import Standin, build
from dev.standin.settings import Faults, Settings
from modelyard.core.routing import Endpoint, RoutingTable
from tests.gateway.conftest import Gateway, table_of

MESSAGES = [{"role": "user", "content": "hello"}]

CHAT = {"model": "a", "messages": MESSAGES}

UPDATE_SECONDS = 60
"""Longest wait for anything that happens at once on an idle machine."""


@dataclass
class Received:
    """One request that reached an engine."""

    path: str
    headers: dict[str, str]
    body: bytes
    at: float
    """Time of the event loop, in seconds."""


class StepClock:
    """Engine time that stands still: a step ends only when the test lets it."""

    def __init__(self) -> None:
        self._now = 0.0
        self._allowed = asyncio.Semaphore(0)

    def time(self) -> float:
        return self._now

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        await self._allowed.acquire()
        self._now += seconds

    def allow(self, steps: int = 1) -> None:
        """Let so many steps end."""
        for _ in range(steps):
            self._allowed.release()


@dataclass
class Engine:
    """A stand-in behind Envoy, and what reached it."""

    standin: Standin
    endpoint: Endpoint
    received: list[Received] = field(default_factory=list)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    """A client went away before it had its answer, and the engine has noticed."""
    arrival: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def wait_received(self, count: int) -> None:
        """Wait until so many requests have arrived."""
        async with asyncio.timeout(UPDATE_SECONDS), self.arrival:
            await self.arrival.wait_for(lambda: len(self.received) >= count)

    async def wait_left(self) -> None:
        """Wait until a client's departure has been noticed."""
        async with asyncio.timeout(UPDATE_SECONDS):
            await self.left.wait()

    def break_down(self, **faults: Any) -> None:
        """Switch faults on, or all off without any."""
        self.standin.injector.set(Faults().patched(faults))

    @web.middleware
    async def record(self, request: web.Request, handler: Callable[..., Any]) -> web.StreamResponse:
        """Note a request, and whether its client stays for the answer."""
        body = await request.read()
        headers = {key.lower(): value for key, value in request.headers.items()}
        async with self.arrival:
            self.received.append(Received(request.path, headers, body, asyncio.get_running_loop().time()))
            self.arrival.notify_all()
        try:
            return await handler(request)
        except asyncio.CancelledError:
            self.left.set()
            raise


@pytest.fixture
async def make_engine() -> AsyncIterator[Callable[..., Any]]:
    """Starts stand-ins that answer to the name `served-a`, as in the tables of `table_of`."""
    async with AsyncExitStack() as stack:

        async def make(*arguments: str, clock: StepClock | None = None, **settings: Any) -> Engine:
            standin = build(
                parse_arguments(["--model", "org/model", "--served-model-name", "served-a", *arguments]),
                Settings().patched(settings),
                Faults(),
                clock=clock,
            )
            standin.api.ready = True
            steps = asyncio.create_task(standin.engine.run())
            stack.callback(steps.cancel)
            engine = Engine(standin, Endpoint("127.0.0.1", free_port()))
            app = standin.api.application()
            app.middlewares.insert(0, engine.record)
            runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, engine.endpoint.address, engine.endpoint.port).start()
            standin.injector.start()
            return engine

        yield make


@pytest.fixture
async def make_client(gateway: Gateway) -> AsyncIterator[Callable[..., openai.AsyncOpenAI]]:
    """Makes asynchronous clients that do not retry, unless told so."""
    async with AsyncExitStack() as stack:

        def make(**options: Any) -> openai.AsyncOpenAI:
            client = openai.AsyncOpenAI(**client_options(gateway) | options)
            stack.push_async_callback(client.close)
            return client

        yield make


@pytest.fixture
def client(make_client: Callable[..., openai.AsyncOpenAI]) -> openai.AsyncOpenAI:
    """An asynchronous client that does not retry."""
    return make_client()


@pytest.fixture(params=["sync", "async"])
async def ask(
    request: pytest.FixtureRequest, gateway: Gateway, client: openai.AsyncOpenAI
) -> AsyncIterator[Callable[..., Any]]:
    """Makes a call, such as `lambda client: client.models.list()`, with each kind of client; collects streams."""
    if request.param == "async":

        async def call(function: Callable[[Any], Any]) -> Any:
            answer = await function(client)
            return [event async for event in answer] if isinstance(answer, openai.AsyncStream) else answer

        yield call
        return
    with openai.OpenAI(**client_options(gateway)) as synchronous:

        def run(function: Callable[[Any], Any]) -> Any:
            answer = function(synchronous)
            return list(answer) if isinstance(answer, openai.Stream) else answer

        async def call_in_thread(function: Callable[[Any], Any]) -> Any:
            return await asyncio.to_thread(run, function)

        yield call_in_thread


@pytest.fixture
async def engine(gateway: Gateway, make_engine: Callable[..., Any]) -> Engine:
    """A stand-in, started as the operator starts vLLM, that serves the models `a` and `team/a`."""
    started: Engine = await make_engine("--enable-prompt-tokens-details")
    await gateway.apply(awake(started))
    return started


def client_options(gateway: Gateway) -> dict[str, Any]:
    """Return the options of a client that does not retry and ends a test that hangs."""
    return {
        "base_url": f"{gateway.envoy.url}/v1",
        "api_key": "any",
        "max_retries": 0,
        "timeout": 3 * UPDATE_SECONDS,
    }


def awake(*engines: Engine, **route: Any) -> RoutingTable:
    """Return the table in which these engines serve the models `a` and `team/a`."""
    endpoints = tuple(sorted(engine.endpoint for engine in engines))
    return table_of(("a", endpoints, 0), **route)


def asleep(**route: Any) -> RoutingTable:
    """Return the table in which the models `a` and `team/a` sleep."""
    return table_of(("a", (), 0), **route)


async def wait_requests(gateway: Gateway, count: int) -> None:
    """Wait until Envoy has seen so many requests end."""
    async with asyncio.timeout(UPDATE_SECONDS):
        while sum((await gateway.counters()).requests.values()) < count:
            await asyncio.sleep(0.02)
