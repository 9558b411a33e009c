"""A clock that the tests own, and handles on running stand-ins."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp.test_utils import TestClient

from dev.standin.server import Standin


class FakeClock:
    """Time that passes only in sleeps; each sleep may also overshoot, as a busy machine's do."""

    def __init__(self, overshoot: float = 0.0) -> None:
        self.now = 100.0
        self.overshoot = overshoot

    def time(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        if seconds > 0:
            self.now += seconds + self.overshoot
        await asyncio.sleep(0)


@dataclass
class RunningStandin:
    client: TestClient[Any, Any]
    standin: Standin
    exits: asyncio.Queue[int]
    """Exit codes of crashes, which end nothing here."""

    async def metric(self, name: str, *labels: str) -> float:
        """Return the sum of a metric's samples that carry the label texts."""
        text = await (await self.client.get("/metrics")).text()
        lines = [line for line in text.splitlines() if line.partition("{")[0] == name]
        found = [float(line.rpartition(" ")[2]) for line in lines if all(label in line for label in labels)]
        assert found, f"{name} {labels} is not in /metrics"
        return sum(found)


@dataclass
class StandinProcess:
    process: asyncio.subprocess.Process
    url: str
    session: aiohttp.ClientSession


@asynccontextmanager
async def standin_process(*arguments: str, **variables: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run `python -m dev.standin`; the process is killed at the end if it still runs."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STANDIN_")}
    command = [sys.executable, "-m", "dev.standin", "--host", "127.0.0.1", "--port", "0", *arguments]
    process = await asyncio.create_subprocess_exec(
        *command, env=environment | variables, stderr=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def read_until(process: asyncio.subprocess.Process, text: str) -> str:
    """Return the first line on stderr that holds the text."""
    assert process.stderr is not None
    seen = []
    async with asyncio.timeout(20):
        while line := (await process.stderr.readline()).decode():
            if text in line:
                return line.strip()
            seen.append(line)
    raise AssertionError(f"no line with {text!r} in {seen}")


Launch = Callable[..., Awaitable[RunningStandin]]
Spawn = Callable[..., Awaitable[StandinProcess]]
