"""Sleeping models: requests that wait, and how soon they are answered once the model serves."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from benchmarks.gateway.bodies import CHAT, LOOPBACK, PATH, answer, body, client_name, engine_name
from benchmarks.gateway.contenders import Gateway, gateway, models_table
from benchmarks.gateway.rounds import Told, WorkMissingError
from modelyard.core.routing import Endpoint
from modelyard.gateway.counters import read_counters

HOLD_SECONDS = 120.0
"""How long requests may take to arrive, and then to be answered, before the benchmark has failed."""
POLL_SECONDS = 0.02
"""How often the counters are read until all requests have arrived."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer."""

    model: int
    status: int
    first_byte: float
    """When its head was there, by `time.perf_counter`."""
    content: bytes

    def check(self) -> None:
        """Raise WorkMissingError unless it is the answer of the right model, asked for under the engine's name."""
        if self.status != 200 or self.content != answer(engine_name(client_name(self.model))):
            raise WorkMissingError(f"{client_name(self.model)}: {self.status} {self.content[:300]!r}")


@dataclass(frozen=True, slots=True)
class Cycles:
    """Repeated sleep and wake of several models with many requests."""

    held: int
    """Requests of which the gateway said that they waited."""
    answered: int
    """Those that got the right answer."""
    signals: int
    """Times that the operator was told that a model is wanted."""
    sleeps: int
    """Times that a model slept and was wanted: as many signals are needed."""
    last_milliseconds: tuple[float, ...]
    """Of each cycle: from the hand-over of the table to the first byte of the last answer."""


async def send(session: aiohttp.ClientSession, url: str, model: int) -> Reply:
    """Send a 2 KB request for a model and read the answer."""
    content = body(CHAT, client_name(model))
    headers = {"Content-Type": "application/json"}
    async with session.post(f"{url}{PATH}", data=content, headers=headers) as reply:
        return Reply(model, reply.status, time.perf_counter(), await reply.read())


async def cycle_models(
    folder: Path, engine: int, models: int, cycles: int, requests: int, told: Told
) -> Cycles:
    """Let `models` models sleep and wake `cycles` times, with `requests` requests for each that wait meanwhile.

    Raises WorkMissingError if a request is not held, not answered, or answered wrongly.
    """
    answered, signals, slowest = 0, 0, []
    indices = range(models)
    async with gateway(folder) as ours, _session() as session:
        for cycle in range(cycles):
            await ours.apply(models_table(indices, None, cycle))
            ours.wakes.clear()
            held = [
                asyncio.create_task(send(session, ours.envoy.url, index))
                for index in indices
                for _ in range(requests)
            ]
            await _all_wait(ours, session, held, dict.fromkeys(indices, (cycle + 1) * requests))
            signals += len(ours.wakes)
            handed_over = time.perf_counter()
            ours.offer(models_table(indices, Endpoint(LOOPBACK, engine), cycle))
            async with asyncio.timeout(HOLD_SECONDS):
                replies = await asyncio.gather(*held)
            for reply in replies:
                reply.check()
            answered += len(replies)
            slowest.append(1e3 * (max(reply.first_byte for reply in replies) - handed_over))
            told(f"cycle {cycle + 1} of {cycles}: {len(replies)} held requests answered")
    return Cycles(models * cycles * requests, answered, signals, models * cycles, tuple(slowest))


async def release_one_by_one(folder: Path, engine: int, models: int, others: int, told: Told) -> list[float]:
    """Return milliseconds from the hand-over of a table to the first byte of the one request that waited for it.

    Each time another model serves for the first time, beside `others` that serve already: what the operator does once
    it has read that the pod is Ready (building, pushing), and what Envoy does with it.
    """
    endpoint, times = Endpoint(LOOPBACK, engine), []
    async with gateway(folder) as ours, _session() as session:
        for model in range(others, others + models):
            asleep = models_table(range(model), endpoint)
            sleeping = models_table([model], None)
            routes = (*asleep.routes, *sleeping.routes)
            upstreams = {**asleep.upstreams, **sleeping.upstreams}
            await ours.apply(type(asleep)(routes, upstreams, anonymous=True))
            held = asyncio.create_task(send(session, ours.envoy.url, model))
            await _all_wait(ours, session, [held], {model: 1})
            ours.wakes.clear()
            awake = models_table(range(model + 1), endpoint)
            handed_over = time.perf_counter()
            ours.offer(awake)
            async with asyncio.timeout(HOLD_SECONDS):
                reply = await held
            reply.check()
            times.append(1e3 * (reply.first_byte - handed_over))
            told(f"a new model's held request: {model - others + 1} of {models}")
    return times


def _session() -> aiohttp.ClientSession:
    timeout = aiohttp.ClientTimeout(total=2 * HOLD_SECONDS)
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout)


async def _all_wait(
    ours: Gateway,
    session: aiohttp.ClientSession,
    held: Sequence[asyncio.Task[Reply]],
    arrivals: Mapping[int, int],
) -> None:
    """Wait until so many requests for each model have arrived and every model is asked for; none may be answered.

    Arrivals are counted before a request is held, and the signal that a model is wanted is sent by the hold itself.
    """
    names = {f"bench/{client_name(model)}": count for model, count in arrivals.items()}
    async with asyncio.timeout(HOLD_SECONDS):
        while True:
            counted = (await read_counters(session, ours.envoy.stats_url)).arrivals
            arrived = all(counted.get(name, 0) >= count for name, count in names.items())
            if arrived and names.keys() <= {name for name, _, _ in ours.wakes}:
                break
            await asyncio.sleep(POLL_SECONDS)
    early = [task.result() for task in held if task.done()]
    if early:
        raise WorkMissingError(f"a request was not held: {early[0].status} {early[0].content[:300]!r}")
