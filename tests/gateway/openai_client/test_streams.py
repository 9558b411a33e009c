"""Streams: events come one by one, usage only for those who asked, and a client that leaves frees its place."""

import asyncio

import pytest

from dev.standin.text import render_tokens
from tests.gateway.openai_client.conftest import CHAT, StepClock, asleep, awake, wait_requests


async def test_events_come_one_by_one(gateway, client, make_engine):
    clock = StepClock()
    engine = await make_engine(clock=clock, profile="h100-8b", tokens_per_event=1)
    await gateway.apply(awake(engine))
    # The headers come before the first token: nothing has been computed yet.
    stream = await client.chat.completions.create(**CHAT, max_tokens=5, stream=True)
    (sequence,) = [*engine.standin.engine.scheduler.waiting, *engine.standin.engine.scheduler.running]
    events = aiter(stream)
    clock.allow()
    assert (await anext(events)).choices[0].delta.role == "assistant"
    for token in range(5):
        event = await anext(events)
        assert event.choices[0].delta.content == render_tokens(token, token + 1)
        assert sequence.generated == token + 1, "the next token has not been computed yet"
        clock.allow()
    assert [event async for event in events] == []


ENDPOINTS = {
    "chat": lambda client, **options: client.chat.completions.create(
        **CHAT, max_tokens=9, stream=True, **options
    ),
    "completions": lambda client, **options: client.completions.create(
        model="a", prompt="hello", max_tokens=9, stream=True, **options
    ),
}


@pytest.mark.parametrize("create", ENDPOINTS.values(), ids=ENDPOINTS)
@pytest.mark.parametrize("flags", [[], ["--enable-force-include-usage"]], ids=["asked for", "told always"])
async def test_usage_comes_only_if_it_was_asked_for(gateway, ask, make_engine, create, flags):
    """The gateway asks for it, because it counts it; clients index `choices[0]`, and some engines tell it unasked."""
    await gateway.apply(awake(await make_engine("--enable-prompt-tokens-details", *flags)))
    plain = await ask(create)
    assert all(len(event.choices) == 1 for event in plain)
    assert all(event.usage is None for event in plain)
    declined = await ask(lambda client: create(client, stream_options={"include_usage": False}))
    assert [event.choices for event in declined] == [event.choices for event in plain]
    asked = await ask(lambda client: create(client, stream_options={"include_usage": True}))
    last = asked.pop()
    assert (last.choices, last.usage.completion_tokens) == ([], 9)
    assert [event.choices for event in asked] == [event.choices for event in plain]
    assert sum((await gateway.counters()).completion_tokens.values()) == 3 * 9


async def test_helpers_of_the_client_assemble_streams(client, engine):
    async with client.chat.completions.stream(**CHAT) as stream:
        kinds = [event.type async for event in stream]
        whole = await stream.get_final_completion()
    assert kinds[-1] == "content.done"
    assert whole.choices[0].message.content == render_tokens(0, 64)


async def test_responses_are_streamed_as_typed_events(ask, engine):
    events = await ask(
        lambda client: client.responses.create(model="a", input="hello", max_output_tokens=9, stream=True)
    )
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == render_tokens(0, 9)
    assert (events[0].type, events[-1].type) == ("response.created", "response.incomplete")
    assert events[-1].response.usage.output_tokens == 9


async def slow_engine(gateway, make_engine):
    """Return an engine whose steps the test lets happen, and their clock."""
    clock = StepClock()
    engine = await make_engine(clock=clock, profile="h100-8b", tokens_per_event=1)
    await gateway.apply(awake(engine))
    return engine, clock


async def test_closing_a_stream_frees_the_place(gateway, client, make_engine):
    engine, clock = await slow_engine(gateway, make_engine)
    stream = await client.chat.completions.create(**CHAT, max_tokens=1000, stream=True)
    clock.allow()
    await anext(aiter(stream))
    assert engine.standin.engine.scheduler.has_work
    await stream.close()
    await engine.wait_left()
    assert not engine.standin.engine.scheduler.has_work


@pytest.mark.parametrize("stream", [False, True])
async def test_cancelling_a_call_frees_the_place(gateway, client, make_engine, stream):
    engine, _ = await slow_engine(gateway, make_engine)
    call = asyncio.create_task(client.chat.completions.create(**CHAT, max_tokens=1000, stream=stream))
    await engine.wait_received(1)
    if stream:
        call = asyncio.create_task(anext(aiter(await call)))
        await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await engine.wait_left()
    assert not engine.standin.engine.scheduler.has_work


async def test_a_call_that_is_cancelled_while_held_never_reaches_an_engine(gateway, client, make_engine):
    engine = await make_engine()
    await gateway.apply(asleep())
    call = asyncio.create_task(client.chat.completions.create(**CHAT))
    await gateway.wait_waiting({"team/a": 1})
    call.cancel()
    await wait_requests(gateway, 1)
    await gateway.apply(awake(engine))
    await client.chat.completions.create(**CHAT, user="second")
    assert [b"second" in received.body for received in engine.received] == [True]
