"""The step-time model in time, on a clock that the tests own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from dev.standin.engine import Engine, Generation
from dev.standin.profiles import PROFILES, Profile, StepWork
from dev.standin.scheduler import FinishReason, Limits, Scheduler, Sequence
from tests.unit.standin.helpers import FakeClock

# Milliseconds chosen so that every term shows in a different digit.
PROFILE = Profile("test", "", 10.0, 1.0, 0.001, 0.1, 100_000, 64, 2048)
LIMITS = Limits(100_000, 64, 2048)


@asynccontextmanager
async def running(engine: Engine) -> AsyncIterator[Engine]:
    task = asyncio.create_task(engine.run())
    try:
        yield engine
    finally:
        task.cancel()


def submit(engine: Engine, prompt: int, output: int) -> Generation:
    return engine.submit(prompt, output, output, FinishReason.LENGTH)


def times(generation: Generation) -> tuple[float, float]:
    """Return the seconds to the first token, and from there to the last."""
    sequence = generation.sequence
    assert sequence.first_token_at is not None
    assert sequence.last_token_at is not None
    return sequence.first_token_at - sequence.arrival, sequence.last_token_at - sequence.first_token_at


def test_a_step_costs_the_sum_of_its_parts() -> None:
    assert PROFILE.step_seconds(StepWork(3, 2000, 40)) == pytest.approx((10 + 3 + 2 + 4) / 1000)


async def test_a_request_takes_prefill_and_decode_steps() -> None:
    clock = FakeClock()
    async with running(Engine(PROFILE, LIMITS, clock)) as engine:
        generation = submit(engine, 100, 3)
        assert await generation.wait_for(3) == 3
    to_first, decode = times(generation)
    assert to_first == pytest.approx((10 + 1 + 10) / 1000)
    # Two decode steps over 100 and 101 tokens of context.
    assert decode == pytest.approx((22 + 0.100 + 0.101) / 1000)


async def test_time_scale_divides_the_time() -> None:
    clock = FakeClock()
    async with running(Engine(PROFILE, LIMITS, clock, time_scale=2.0)) as engine:
        generation = submit(engine, 100, 1)
        await generation.wait_for(1)
    assert times(generation)[0] == pytest.approx(0.0105)


async def test_late_wake_ups_do_not_add_up() -> None:
    """300 steps whose sleeps each overshoot by 5 ms still take the model's time."""
    clock = FakeClock(overshoot=0.005)
    async with running(Engine(PROFILE, LIMITS, clock)) as engine:
        generation = submit(engine, 1, 300)
        await generation.wait_for(300)
    context = sum(range(1, 300))
    expected = (300 * 11 + 0.1 + 0.001 * context) / 1000
    assert sum(times(generation)) == pytest.approx(expected)
    assert clock.now - 100.0 == pytest.approx(expected, abs=0.006)


async def test_a_stall_is_not_made_up_for_without_bound() -> None:
    clock = FakeClock()
    async with running(Engine(PROFILE, LIMITS, clock)) as engine:
        generation = submit(engine, 1, 10)
        await generation.wait_for(2)
        clock.now += 60
        await generation.wait_for(10)
    # After the minute's stall the remaining steps take their own time again.
    assert clock.now - 160.0 == pytest.approx(10 * 0.011, rel=0.35)


async def test_a_profile_without_time_yields_to_others() -> None:
    clock = FakeClock()
    async with running(Engine(PROFILES["zero"], LIMITS, clock)) as engine:
        long = submit(engine, 1, 5000)
        short = submit(engine, 1, 1)
        await short.wait_for(1)
        assert long.sequence.generated < 100
        await long.wait_for(5000)
    assert clock.now == 100.0


async def test_an_abandoned_request_frees_the_engine() -> None:
    aborted = []
    async with running(Engine(PROFILE, LIMITS, FakeClock(), on_abort=lambda: aborted.append(True))) as engine:
        generation = submit(engine, 10, 100)
        await generation.wait_for(1)
        generation.abort()
        generation.abort()
        assert await generation.wait_for(100) < 100
        assert not engine.scheduler.has_work
        assert engine.scheduler.kv_cache_usage == 0
        other = submit(engine, 10, 2)
        assert await other.wait_for(2) == 2
    assert aborted == [True]


def closed_loop_rate(profile: Profile, clients: int, prompt: int, output: int) -> tuple[float, float]:
    """Return requests/s and mean seconds per token with that many clients that always wait for an answer."""
    scheduler = Scheduler(
        Limits(profile.kv_cache_tokens, profile.max_num_seqs, profile.max_num_batched_tokens)
    )
    now = spent = 0.0
    done = steps = arrivals = 0
    while steps < 4 * output:
        # Clients start one after the other, so that their prompts do not come in waves.
        while arrivals < clients and arrivals <= steps * clients / output:
            scheduler.add(Sequence(prompt, output, output, FinishReason.LENGTH, now))
            arrivals += 1
        step = scheduler.plan(now)
        duration = profile.step_seconds(step.work)
        now += duration
        result = scheduler.complete(step, now)
        for _ in result.finished:
            scheduler.add(Sequence(prompt, output, output, FinishReason.LENGTH, now))
        if steps >= 2 * output:
            done += len(result.finished)
            spent += duration
        steps += 1
    return done / spent, spent / (2 * output)


def test_an_l4_serves_about_three_requests_a_second() -> None:
    rate, per_token = closed_loop_rate(PROFILES["l4-8b"], clients=62, prompt=1155, output=211)
    assert rate == pytest.approx(3.0, rel=0.05)
    assert per_token == pytest.approx(0.100, rel=0.05)


def test_an_l4_in_bf16_is_bound_by_its_cache() -> None:
    rate, _ = closed_loop_rate(PROFILES["l4-8b-bf16"], clients=62, prompt=1155, output=211)
    assert rate == pytest.approx(1.1, rel=0.15)


def test_an_h100_matches_the_measured_slope() -> None:
    """ITL = 6.73 + 0.19 * batch milliseconds at 914 in / 155 out, the fit to measured rows."""
    for batch in (32, 128):
        _, per_token = closed_loop_rate(PROFILES["h100-8b"], clients=batch, prompt=914, output=155)
        assert per_token * 1000 == pytest.approx(6.73 + 0.19 * batch, rel=0.05)
