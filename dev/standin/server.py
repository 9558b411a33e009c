"""The process: load, listen, serve, drain."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web

from dev.standin.api import Api
from dev.standin.arguments import Arguments
from dev.standin.clock import Clock, SystemClock
from dev.standin.engine import Engine
from dev.standin.faults import FaultInjector
from dev.standin.metrics import EngineMetrics
from dev.standin.profiles import PROFILES, Profile
from dev.standin.scheduler import DEFAULT_BLOCK_SIZE, Limits
from dev.standin.settings import Faults, Settings

DEFAULT_MODEL_LEN = 131_072
"""Context length in tokens without `--max-model-len`: Llama 3.1's (`max_position_embeddings`)."""

_BACKLOG = 2048
"""Connections waiting to be accepted: uvicorn's default."""

_AT_ONCE = 0.001
"""Seconds that stand for no drain time: aiohttp takes 0 for no limit."""


def limits_of(arguments: Arguments, settings: Settings, profile: Profile) -> Limits:
    """Return the engine's limits: arguments first, then variables, then the profile."""
    block_size = arguments.block_size or DEFAULT_BLOCK_SIZE
    tokens = settings.kv_cache_tokens or profile.kv_cache_tokens
    if arguments.num_gpu_blocks_override:
        tokens = arguments.num_gpu_blocks_override * block_size
    return Limits(
        kv_cache_tokens=tokens,
        max_num_seqs=arguments.max_num_seqs or profile.max_num_seqs,
        max_num_batched_tokens=arguments.max_num_batched_tokens or profile.max_num_batched_tokens,
        block_size=block_size,
    )


def model_length(arguments: Arguments, limits: Limits) -> int:
    """Return the context length in tokens.

    Raises ValueError if one sequence of that length does not fit in the KV cache: vLLM refuses to start.
    """
    capacity = limits.blocks * limits.block_size
    if arguments.max_model_len is None:
        return min(DEFAULT_MODEL_LEN, capacity)
    if arguments.max_model_len > capacity:
        raise ValueError(
            f"the model's max seq len ({arguments.max_model_len}) is larger than the maximum number of "
            f"tokens that can be stored in KV cache ({capacity}): decrease max_model_len"
        )
    return arguments.max_model_len


@dataclass(frozen=True, slots=True)
class Standin:
    """The parts of one stand-in, wired together."""

    engine: Engine
    injector: FaultInjector
    api: Api


def build(
    arguments: Arguments,
    settings: Settings,
    faults: Faults,
    *,
    clock: Clock | None = None,
    exit_process: Callable[[int], None] = os._exit,
) -> Standin:
    """Wire a stand-in up; tests bring their own clock and exit.

    Raises ValueError if the context length does not fit in the KV cache.
    """
    profile = PROFILES[settings.profile]
    limits = limits_of(arguments, settings, profile)
    max_model_len = model_length(arguments, limits)
    served_name = arguments.served_model_names[0]
    metrics = EngineMetrics(served_name, limits, max_model_len, prefix_caching=arguments.prefix_caching)
    engine = Engine(
        profile,
        limits,
        clock or SystemClock(),
        time_scale=settings.time_scale,
        on_step=lambda step, result: metrics.on_step(step, result, engine.scheduler.preemptions),
        on_abort=metrics.on_abort,
    )
    metrics.watch(engine.scheduler)
    injector = FaultInjector(faults, exit_process=exit_process)
    api = Api(
        arguments,
        settings,
        max_model_len=max_model_len,
        engine=engine,
        metrics=metrics,
        injector=injector,
        created=int(time.time()),
    )
    return Standin(engine, injector, api)


async def serve(arguments: Arguments, settings: Settings, faults: Faults) -> int:
    """Run until SIGTERM or SIGINT, and return the exit code."""
    try:
        standin = build(arguments, settings, faults)
    except ValueError as error:
        log(f"error: {error}")
        return 1
    stop = _stop_on_signals(standin.injector)
    runner = web.AppRunner(
        standin.api.application(),
        access_log=None,
        handler_cancellation=True,
        shutdown_timeout=max(arguments.shutdown_timeout, _AT_ONCE),
    )
    await runner.setup()
    steps = asyncio.create_task(standin.engine.run(), name="engine")
    steps.add_done_callback(lambda _task: stop.set())
    try:
        if settings.health_before_ready:
            await _listen(runner, arguments, settings)
        log(f"loading {arguments.model} with profile {settings.profile}")
        if not await _loaded(settings, stop):
            return 0
        if settings.crash_at_start:
            log("injected crash at start")
            return faults.crash_exit_code
        standin.api.ready = True
        if not settings.health_before_ready:
            await _listen(runner, arguments, settings)
        standin.injector.start()
        await stop.wait()
        log("draining")
    finally:
        await runner.cleanup()
        engine_failed = steps.done()
        steps.cancel()
        await asyncio.gather(steps, return_exceptions=True)
    if engine_failed:
        log(f"error: the engine died: {steps.exception()!r}")
    return int(engine_failed)


def log(message: str) -> None:
    """Write a line to stderr, where vLLM logs too."""
    sys.stderr.write(f"standin: {message}\n")
    sys.stderr.flush()


def _stop_on_signals(injector: FaultInjector) -> asyncio.Event:
    stop = asyncio.Event()

    def terminate() -> None:
        if injector.faults.hang_on_drain:
            log("ignoring the signal: hang_on_drain is set")
        else:
            stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, terminate)
    return stop


async def _loaded(settings: Settings, stop: asyncio.Event) -> bool:
    """Wait for the load delay; return False if the process was told to stop meanwhile."""
    if settings.load_seconds == 0:
        return not stop.is_set()
    try:
        await asyncio.wait_for(stop.wait(), settings.load_seconds / settings.time_scale)
    except TimeoutError:
        return True
    return False


async def _listen(runner: web.AppRunner, arguments: Arguments, settings: Settings) -> None:
    host = settings.host or arguments.host
    port = arguments.port if settings.port < 0 else settings.port
    await web.TCPSite(runner, host, port, backlog=_BACKLOG).start()
    address = runner.addresses[0]
    log(f"listening on http://{address[0]}:{address[1]}")
