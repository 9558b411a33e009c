"""Streams of providers: asked for their usage whatever the client sent, and nothing else of a body is touched."""

import asyncio
import json
from dataclasses import replace

import pytest

from tests.gateway.conftest import PATIENCE
from tests.gateway.test_providers import KEY, engine, external, provider, table_to, write_chunk  # noqa: F401
from tests.gateway.test_usage_events import answer_with, stream_of

TOKEN = '{"choices":[{"delta":{"content":"a"}}],"usage":null}'
USAGE = '{"id":"1","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}'

ASK = b'"stream_options":{"include_usage":true},'

BODIES = {
    "absent": (b'{ "stream":true,"model":"chat"}', b"{" + ASK + b' "stream":true,"model":"m"}'),
    "model first": (
        b'\n{"model":"chat" , "stream" : true }',
        b"\n{" + ASK + b'"model":"m" , "stream" : true }',
    ),
    "null": (
        b'{"stream":true,"stream_options": null ,"model":"chat"}',
        b'{"stream":true,"stream_options": {"include_usage":true} ,"model":"m"}',
    ),
    "null, last": (
        b'{"model":"chat","stream":true,"stream_options":null}',
        b'{"model":"m","stream":true,"stream_options":{"include_usage":true}}',
    ),
    "empty": (
        b'{"model":"chat","stream":true,"stream_options":{ }}',
        b'{"model":"m","stream":true,"stream_options":{"include_usage":true }}',
    ),
    "other options": (
        b'{"model":"chat","stream":true,"stream_options":{"include_obfuscation":false}}',
        b'{"model":"m","stream":true,"stream_options":{"include_usage":true,"include_obfuscation":false}}',
    ),
    "false": (
        b'{"stream":true,"stream_options":{"x":[1,{"include_usage":false}],"include_usage" : false},"model":"chat"}',
        b'{"stream":true,"stream_options":{"x":[1,{"include_usage":false}],"include_usage" : true},"model":"m"}',
    ),
    "include_usage null": (
        b'{"stream_options":{"include_usage":null,"y":1},"model":"chat","stream":true}',
        b'{"stream_options":{"include_usage":true,"y":1},"model":"m","stream":true}',
    ),
    "twice": (
        b'{"stream_options":{"include_usage":false},"stream_options":null,"model":"chat","stream":true}',
        b'{"stream_options":{"include_usage":false},"stream_options":{"include_usage":true},"model":"m","stream":true}',
    ),
    "elsewhere": (
        b'{"metadata":{"stream_options":null},"n":9223372036854775807,"model":"chat","stream":true}',
        b"{" + ASK + b'"metadata":{"stream_options":null},"n":9223372036854775807,"model":"m","stream":true}',
    ),
    "the same name at the target": (
        b'{"model":"m","stream":true}',
        b"{" + ASK + b'"model":"m","stream":true}',
    ),
}
"""What a client sends that did not ask for the usage, and what the provider gets."""

UNTOUCHED = {
    "asked": b'{"model":"chat","stream_options":{"x":1,"include_usage":true},"stream":true}',
    "not streamed": b'{"model":"chat"}',
    "not streamed, said so": b'{"model":"chat","stream":false,"stream_options":null}',
    # What is wrong is for the provider to refuse.
    "a list": b'{"model":"chat","stream":true,"stream_options":[{"include_usage":false}]}',
    "a string": b'{"model":"chat","stream":true,"stream_options":"null"}',
    "a number": b'{"model":"chat","stream":true,"stream_options":1}',
    "include_usage a string": b'{"model":"chat","stream":true,"stream_options":{"include_usage":"no"}}',
    "include_usage an object": b'{"model":"chat","stream":true,"stream_options":{"include_usage":{"x":null}}}',
}


async def stream_with_usage(_, writer):
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
    for event in (TOKEN, TOKEN, USAGE, "[DONE]"):
        write_chunk(writer, stream_of(event))
        await writer.drain()
    writer.write(b"0\r\n\r\n")


async def send(gateway, raw, path="/v1/chat/completions"):
    headers = {"Content-Type": "application/json"}
    async with gateway.session.post(f"{gateway.envoy.url}{path}", data=raw, headers=headers) as reply:
        assert reply.status == 200
        return await reply.read()


@pytest.fixture
async def streams(gateway, provider):  # noqa: F811
    gateway.keys = {"acme": KEY}
    provider.respond = stream_with_usage
    # The second name is the target's own, so that nothing needs to be renamed.
    await gateway.apply(table_to(external(provider, model="m"), models=("chat", "m")))
    return provider


async def test_what_a_provider_is_asked_byte_for_byte(gateway, streams):
    for name, (sent, expected) in BODIES.items():
        for path in ("/v1/chat/completions", "/v1/completions"):
            answer = await send(gateway, sent, path)
            request = streams.received[-1]
            assert request.body == expected, name
            assert request.headers["content-length"] == str(len(expected)), name
            assert answer == stream_of(TOKEN, TOKEN, "[DONE]"), f"{name}: the client did not ask"
    count = 2 * len(BODIES)
    counters = await gateway.counters()
    assert sum(counters.prompt_tokens.values()) == 3 * count
    assert sum(counters.completion_tokens.values()) == 2 * count


async def test_what_asks_already_or_cannot_is_left_alone(gateway, streams):
    for name, sent in UNTOUCHED.items():
        answer = await send(gateway, sent)
        assert streams.received[-1].body == sent.replace(b'"chat"', b'"m"'), name
        assert (USAGE.encode() in answer) == (name == "asked")
    for path in ("/v1/responses", "/v1/embeddings", "/v1/messages"):
        await send(gateway, b'{"model":"chat","stream":true}', path)
        assert streams.received[-1].body == b'{"model":"m","stream":true}', path


async def test_engines_are_asked_as_well(gateway, make_backend):
    for asks in (True, False):
        backend = await make_backend()
        await gateway.apply(table_to(replace(engine(backend, model="m"), asks_usage=asks)))
        answer_with(backend, stream_of(TOKEN, USAGE, "[DONE]"), 1000)
        for sent, expected in BODIES.values():
            if b'"chat"' in sent:
                assert await send(gateway, sent) == stream_of(TOKEN, "[DONE]")
                assert backend.bodies[-1] == (expected if asks else sent.replace(b'"chat"', b'"m"'))
        assert not [name for headers in backend.headers for name in headers if name.startswith("x-modelyard")]


async def test_an_api_that_tells_its_usage_by_itself_is_not_asked(gateway, streams):
    told = TOKEN.replace("null", '{"prompt_tokens":3,"completion_tokens":2}')
    hidden = TOKEN.replace(',"usage":null', "")

    async def stream(_, writer):
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        for event in (TOKEN, told, "[DONE]"):
            write_chunk(writer, stream_of(event))
        writer.write(b"0\r\n\r\n")

    streams.respond = stream
    await gateway.apply(table_to(external(streams, model="m", asks_usage=False)))
    for sent, _ in BODIES.values():
        if b'"chat"' in sent:
            # The client did not ask either.
            assert await send(gateway, sent) == stream_of(TOKEN, hidden, "[DONE]")
            assert streams.received[-1].body == sent.replace(b'"chat"', b'"m"')
    counters = await gateway.counters()
    assert sum(counters.completion_tokens.values()) == 2 * (len(BODIES) - 1)
    assert counters.estimated_requests == {}


async def test_every_body_stays_json_with_one_change(gateway, streams):
    """Whatever stands around it: the parsed body differs in the two fields and in nothing else."""
    odd = {
        "messages": [{"content": 'a "stream_options": {} \\ \u00e9'}],
        "x": [[], {}, {"stream_options": {}}],
    }
    for options in ({}, {"include_usage": False, "a": {"b": []}}, None):
        body = {**odd, "stream_options": options, "stream": True, "model": "chat", "z": {"include_usage": 1}}
        for indent in (None, 1):
            await send(gateway, json.dumps(body, indent=indent).encode())
            received = json.loads(streams.received[-1].body)
            assert received == {
                **body,
                "model": "m",
                "stream_options": {**(options or {}), "include_usage": True},
            }


async def test_a_client_that_leaves_a_provider_is_charged_by_estimate(gateway, streams):
    release = asyncio.Event()

    async def stream(_, writer):
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        for _number in range(5):
            write_chunk(writer, stream_of(TOKEN))
        await writer.drain()
        await release.wait()

    streams.respond = stream
    raw = b'{"model":"chat","stream":true,"messages":[{"role":"user","content":"Hello"}]}'
    headers = {"Content-Type": "application/json"}
    async with gateway.session.post(
        f"{gateway.envoy.url}/v1/chat/completions", data=raw, headers=headers
    ) as reply:
        for _ in range(10):
            await reply.content.readline()
    async with asyncio.timeout(PATIENCE):
        while not (counters := await gateway.counters()).estimated_requests:
            await asyncio.sleep(0.02)
    release.set()
    ((key, completion),) = counters.estimated_completion_tokens.items()
    assert key.deployment == "provider:acme/m"
    assert completion == 5
    assert list(counters.estimated_prompt_tokens.values()) == [-(-len(raw) // 4)]
