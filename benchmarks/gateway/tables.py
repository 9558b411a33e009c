"""Large routing tables: how long the first one takes, how long one more model, and what Envoy needs for them."""

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from benchmarks.gateway.bodies import LOOPBACK
from benchmarks.gateway.contenders import APPLY_SECONDS, gateway, models_table
from benchmarks.gateway.holds import send
from benchmarks.gateway.rounds import Spread, Told
from modelyard.core.routing import Endpoint
from modelyard.gateway import protos


@dataclass(frozen=True, slots=True)
class Table:
    """What was measured of a table of so many models. Times in milliseconds."""

    models: int
    routes_bytes: int
    """The route configuration as it goes over the wire."""
    build: float
    """Encoding the first table, in the operator."""
    first: float
    """From the hand-over of the first table, its encoding included, until Envoy has accepted all of it."""
    memory_bytes: int
    """By how much Envoy's resident memory grew."""
    more_build: Spread
    """Encoding a table with one model more."""
    more: Spread
    """From the hand-over of that table to the first answer of the new model."""


async def measure_table(folder: Path, engine: int, models: int, more: int, told: Told) -> Table:
    """Give a new Envoy a table of `models` models, then `more` further ones, each in a table of its own.

    Every new model, and the last one of the first table, must answer. Raises WorkMissingError if one does not.
    """
    endpoint = Endpoint(LOOPBACK, engine)
    async with gateway(folder) as ours, aiohttp.ClientSession() as session:
        before = resident_bytes(ours.envoy.pid)
        table = models_table(range(models), endpoint)
        handed_over = time.perf_counter()
        version = ours.offer(table)
        built = time.perf_counter()
        await ours.applied(version)
        applied = time.perf_counter()
        (await send(session, ours.envoy.url, models - 1)).check()
        memory = resident_bytes(ours.envoy.pid) - before
        (routes,) = ours.builder.build(table).by_type[protos.ROUTES].values()
        told(f"{models:,} models: the first table")
        builds, times = [], []
        for model in range(models, models + more):
            table = models_table(range(model + 1), endpoint)
            start = time.perf_counter()
            version = ours.offer(table)
            builds.append(1e3 * (time.perf_counter() - start))
            async with asyncio.timeout(APPLY_SECONDS):
                # Unknown until Envoy has the route.
                while (reply := await send(session, ours.envoy.url, model)).status == 404:
                    pass
            reply.check()
            times.append(1e3 * (reply.first_byte - start))
            await ours.applied(version)
            told(f"{models:,} models: one more, {model - models + 1} of {more}")
        return Table(
            models=models,
            routes_bytes=len(routes.encoded),
            build=1e3 * (built - handed_over),
            first=1e3 * (applied - handed_over),
            memory_bytes=memory,
            more_build=Spread.of(builds),
            more=Spread.of(times),
        )


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process (proc(5), status)."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(f"process {pid} has ended")
