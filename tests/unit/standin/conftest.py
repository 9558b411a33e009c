"""Fixtures that start stand-ins: inside the test's event loop, or as processes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import aiohttp
import pytest
from aiohttp.test_utils import TestClient, TestServer

from dev.standin.arguments import parse_arguments
from dev.standin.clock import Clock
from dev.standin.server import build
from dev.standin.settings import Faults, Settings
from tests.unit.standin.helpers import (
    Launch,
    RunningStandin,
    Spawn,
    StandinProcess,
    read_until,
    standin_process,
)


@pytest.fixture
async def launch() -> AsyncIterator[Launch]:
    """Serve a stand-in with these arguments; keywords are settings."""
    async with AsyncExitStack() as stack:

        async def start(*arguments: str, clock: Clock | None = None, **settings: object) -> RunningStandin:
            exits: asyncio.Queue[int] = asyncio.Queue()
            standin = build(
                parse_arguments(["--model", "org/model", "--served-model-name", "m", "alias", *arguments]),
                Settings().patched(settings),
                Faults(),
                clock=clock,
                exit_process=exits.put_nowait,
            )
            standin.api.ready = True
            steps = asyncio.create_task(standin.engine.run())
            stack.callback(steps.cancel)
            server = TestServer(standin.api.application(), handler_cancellation=True)
            client = await stack.enter_async_context(TestClient(server))
            standin.injector.start()
            return RunningStandin(client, standin, exits)

        yield start


@pytest.fixture
async def spawn() -> AsyncIterator[Spawn]:
    """Start a process and wait for its port."""
    async with AsyncExitStack() as stack:

        async def start(*arguments: str, **variables: str) -> StandinProcess:
            process = await stack.enter_async_context(standin_process(*arguments, **variables))
            url = (await read_until(process, "listening on ")).rpartition(" ")[2]
            session = await stack.enter_async_context(aiohttp.ClientSession(url))
            return StandinProcess(process, url, session)

        yield start
