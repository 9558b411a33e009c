"""Whole answers: chat, completions, embeddings, responses, for the synchronous and the asynchronous client."""

import json

import pytest

from dev.standin.text import render_tokens
from modelyard.core.routing import Route, RoutingTable, Upstream, WeightedTarget
from tests.gateway.openai_client.conftest import CHAT, MESSAGES


async def test_chat(ask, engine):
    answer = await ask(lambda client: client.chat.completions.create(**CHAT, max_tokens=5, n=2))
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert {choice.message.content for choice in answer.choices} == {render_tokens(0, 5)}
    assert answer.choices[0].finish_reason == "length"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (2, 10)
    assert answer._request_id, "x-request-id, which a user quotes in a report"


async def test_completions(ask, engine):
    answer = await ask(lambda client: client.completions.create(model="team/a", prompt="Once", max_tokens=3))
    assert answer.choices[0].text == render_tokens(0, 3)
    assert answer.usage.completion_tokens == 3


async def test_embeddings(ask, engine):
    # The client asks for base64 by itself and decodes it.
    given = ["first", "second"]
    packed = await ask(lambda client: client.embeddings.create(model="a", input=given, dimensions=64))
    plain = await ask(
        lambda client: client.embeddings.create(
            model="a", input=given, dimensions=64, encoding_format="float"
        )
    )
    assert [json.loads(received.body)["encoding_format"] for received in engine.received] == [
        "base64",
        "float",
    ]
    for one, other in zip(packed.data, plain.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-6)
        assert len(one.embedding) == 64
    assert packed.data[0].embedding != packed.data[1].embedding
    assert packed.usage.prompt_tokens == 4


async def test_responses(ask, engine):
    answer = await ask(
        lambda client: client.responses.create(model="a", input="hello", max_output_tokens=100)
    )
    assert (answer.status, answer.output_text) == ("completed", render_tokens(0, 64))
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (2, 64)


async def test_every_kind_of_answer_is_counted(gateway, client, engine):
    """Prompt and completion tokens of everything that an engine answers, streamed or not."""
    chat = await client.chat.completions.create(**CHAT, max_tokens=5)
    text = await client.completions.create(model="a", prompt=[7] * 30, max_tokens=7)
    vectors = await client.embeddings.create(model="a", input="x" * 400)
    response = await client.responses.create(model="a", input="hello", max_output_tokens=11)
    for stream in (
        await client.chat.completions.create(**CHAT, max_tokens=13, stream=True),
        await client.completions.create(model="a", prompt="x" * 40, max_tokens=17, stream=True),
        await client.responses.create(model="a", input="hello", max_output_tokens=19, stream=True),
    ):
        async for _ in stream:
            pass
    counters = await gateway.counters()
    prompts = (
        chat.usage.prompt_tokens
        + text.usage.prompt_tokens
        + vectors.usage.prompt_tokens
        + response.usage.input_tokens
    )
    assert sum(counters.prompt_tokens.values()) == prompts + 2 + 10 + 2
    assert sum(counters.completion_tokens.values()) == 5 + 7 + 0 + 11 + 13 + 17 + 19
    assert sum(counters.requests.values()) == len(engine.received) == 7


UNICODE = "Grüße, 漢字 \u2028 🦙 \u0000 \U0010ffff \"quoted\" \\ 'single'"


async def test_text_arrives_as_it_was_sent(gateway, client, engine):
    name = "équipe/modèle 漢字🦙"
    route = Route("team/u", (name,), (WeightedTarget("team/u"),))
    upstream = Upstream("team/u", 0, "served-a", (engine.endpoint,))
    await gateway.apply(RoutingTable((route,), {"team/u": upstream}, anonymous=True))
    messages = [{"role": "system", "content": UNICODE}, *MESSAGES]
    answer = await client.chat.completions.create(model=name, messages=messages, user=UNICODE)
    assert answer.choices
    body = json.loads(engine.received[0].body)
    assert body == {"model": "served-a", "messages": messages, "user": UNICODE}
    assert (await client.models.retrieve(name)).id == name


async def test_20_megabytes(ask, engine):
    text = "漢字🦙x" * 2_000_000
    assert len(text.encode()) > 20_000_000
    messages = [{"role": "user", "content": text}]
    vectors = await ask(lambda client: client.embeddings.create(model="a", input=["x" * 4000] * 2000))
    assert len(vectors.data) == 2000
    with pytest.raises(Exception, match="maximum context length") as refused:
        await ask(lambda client: client.chat.completions.create(model="a", messages=messages))
    # Only the engine knows that this is too long for the model; Envoy has passed all of it.
    assert refused.value.status_code == 400
    assert json.loads(engine.received[-1].body)["messages"] == messages
