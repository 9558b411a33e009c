"""The client's own retries, which wait as long as `Retry-After` says; and how often engines hear of them."""

import asyncio
from dataclasses import replace

import openai
import pytest

from modelyard.core.limits.account import Limits
from modelyard.core.routing import BudgetRule, Exhausted, Tenant
from modelyard.gateway.resources import ResourceBuilder
from tests.gateway.openai_client.conftest import CHAT, asleep, awake, wait_requests


def short_retry_after(gateway, seconds):
    """Give Envoy another `Retry-After` for its own refusals."""
    gateway.settings = replace(gateway.settings, retry_after=seconds)
    gateway.builder = ResourceBuilder(gateway.settings)


async def test_a_model_that_wakes_while_the_client_waits(gateway, make_client, make_engine):
    """The hold runs out, the client gets 503 and comes back: to an engine that has never heard of it."""
    client, engine = make_client(max_retries=2), await make_engine()
    short_retry_after(gateway, 2)
    await gateway.apply(asleep(hold_seconds=1))
    started = asyncio.get_running_loop().time()
    call = asyncio.create_task(client.chat.completions.create(**CHAT))
    await wait_requests(gateway, 1)
    assert not call.done(), "the client has its 503 and waits"
    gateway.offer(awake(engine, hold_seconds=1))
    assert (await call).choices[0].finish_reason == "stop"
    (received,) = engine.received
    assert received.headers["x-stainless-retry-count"] == "1"
    # The hold and `Retry-After`. By itself the client would be back after half a second (`INITIAL_RETRY_DELAY`); a
    # tenth of a second is for Envoy's timers.
    assert received.at - started > 1 + 2 - 0.1
    counters = await gateway.counters()
    assert counters.arrivals == {"team/a": 2}
    assert len(gateway.wakes) == 1


async def test_a_sleeping_model_is_woken_once_by_all_retries(gateway, make_client, make_engine):
    """Each retry is held again; nothing piles up behind a model that takes longer than all of them."""
    client, engine = make_client(max_retries=1), await make_engine()
    short_retry_after(gateway, 1)
    await gateway.apply(asleep(hold_seconds=1))
    with pytest.raises(openai.InternalServerError) as refused:
        await client.chat.completions.create(**CHAT)
    assert refused.value.code == "model_not_ready"
    assert (await gateway.counters()).arrivals == {"team/a": 2}
    assert [wake[:2] for wake in gateway.wakes] == [("team/a", 0)]
    await gateway.apply(awake(engine, hold_seconds=1))
    await client.chat.completions.create(**CHAT)
    assert len(engine.received) == 1


@pytest.mark.parametrize("status", [429, 503])
async def test_a_full_engine_is_asked_again_when_it_says_so(gateway, make_client, engine, status):
    client = make_client(max_retries=1)
    engine.break_down(error_share=1, error_status=status)
    attempts = 1 + gateway.settings.retries
    call = asyncio.create_task(client.chat.completions.create(**CHAT))
    await engine.wait_received(attempts)
    await wait_requests(gateway, 1)
    engine.break_down()
    assert (await call).choices[0].finish_reason == "stop"
    counts = [received.headers["x-stainless-retry-count"] for received in engine.received]
    assert counts == ["0"] * attempts + ["1"]
    # The stand-in's `Retry-After` is 1.
    assert engine.received[-1].at - engine.received[-2].at >= 1


async def test_retries_end(gateway, make_client, engine):
    client = make_client(max_retries=1)
    engine.break_down(error_share=1, error_status=429)
    with pytest.raises(openai.RateLimitError):
        await client.chat.completions.create(**CHAT)
    assert len(engine.received) == 2 * (1 + gateway.settings.retries)
    assert sum((await gateway.counters()).requests.values()) == 2


async def test_what_cannot_succeed_is_not_tried_again(gateway, make_client, engine):
    client = make_client(max_retries=5)
    with pytest.raises(openai.NotFoundError):
        await client.chat.completions.create(**{**CHAT, "model": "unknown"})
    with pytest.raises(openai.BadRequestError):
        await client.chat.completions.create(**CHAT, n=0)
    assert len(engine.received) == 1
    assert sum((await gateway.counters()).requests.values()) == 2


async def test_a_lost_connection_is_replaced(gateway, make_client, make_engine):
    """Envoy goes away while it holds a request; the client's retry is held by the next one."""
    client, engine = make_client(max_retries=3), await make_engine()
    await gateway.apply(asleep())
    call = asyncio.create_task(client.chat.completions.create(**CHAT))
    await gateway.wait_waiting({"team/a": 1})
    await gateway.envoy.kill()
    await gateway.envoy.start()
    await gateway.envoy.wait_ready()
    gateway.offer(awake(engine))
    assert (await call).choices[0].finish_reason == "stop"
    assert len(engine.received) == 1


async def test_a_spent_budget_is_not_asked_again(gateway, make_client, engine):
    """The client has its error at once and may not wait for the reset; what is only not known now is asked again."""
    client = make_client(max_retries=2)
    spent = Exhausted("Budget search is spent for this month; it resets later.", 4_000_000_000)
    await gateway.apply(awake(engine, budgets=(BudgetRule(closed=True, refusal=spent),)))
    with pytest.raises(openai.RateLimitError) as refused:
        await client.chat.completions.create(**CHAT)
    assert (refused.value.code, refused.value.type) == ("insufficient_quota", "insufficient_quota")
    assert spent.message in refused.value.message
    assert sum((await gateway.counters()).requests.values()) == 1

    short_retry_after(gateway, 1)
    unknown = Exhausted("What was spent of budget search is not known, so no provider is used for now.")
    await gateway.apply(awake(engine, budgets=(BudgetRule(closed=True, refusal=unknown),)))
    call = asyncio.create_task(client.chat.completions.create(**CHAT))
    await wait_requests(gateway, 2)
    gateway.offer(awake(engine))
    assert (await call).choices[0].finish_reason == "stop"
    assert len(engine.received) == 1


async def test_a_tenant_beyond_its_limit_comes_back_when_there_is_room(gateway, make_client, engine):
    """Sixty a minute: after the sixtieth at once, the next one has room a second later."""
    gateway.clock.stopped = 0
    gateway.tenant_keys = {"sk-small-0123456789abcdef": "small"}
    tenants = {"small": Tenant(limits=Limits(requests=60))}
    await gateway.apply(replace(gateway.table, tenants=tenants))
    client = make_client(api_key="sk-small-0123456789abcdef", max_retries=1)
    for _ in range(60):
        gateway.limits.admit("small")
    with pytest.raises(openai.RateLimitError) as refused:
        await client.with_options(max_retries=0).chat.completions.create(**CHAT)
    assert refused.value.code == "rate_limit_exceeded"
    assert refused.value.response.headers["x-ratelimit-remaining-requests"] == "0"
    call = asyncio.create_task(client.chat.completions.create(**CHAT))
    await wait_requests(gateway, 2)
    refused_at = asyncio.get_running_loop().time()
    gateway.clock.stopped = 10**9
    assert (await call).choices[0].finish_reason == "stop"
    (received,) = engine.received
    assert received.headers["x-stainless-retry-count"] == "1"
    # `Retry-After` is 1; by itself the client would be back after half a second.
    assert received.at - refused_at > 1 - 0.25
