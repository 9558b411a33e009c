"""Usage in streams, byte by byte: counted always, shown to those who asked, and nothing else is touched."""

import asyncio
import json

import pytest
from aiohttp import web

from tests.gateway.conftest import table_of

CHAT = "/v1/chat/completions"

USAGE = '{"id":"1","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}'
TOKENS = (
    '{"choices":[{"delta":{"content":"a"}}],"usage":null}',
    # What a model may well write about, and events that other engines send.
    json.dumps({"choices": [{"delta": {"content": '"choices":[],"usage":{"x":1}'}}]}),
    '{"choices":[{"delta":{"content":"b"}}],"usage":{"prompt_tokens":3,"completion_tokens":1}}',
    '{"choices":[],"prompt_filter_results":[]}',
    '{"choices":[{"delta":{"content":"' + "x" * 100_000 + '"}}]}',
)


SHOWN = tuple(event.replace(',"usage":{"prompt_tokens":3,"completion_tokens":1}', "") for event in TOKENS)
"""The same as clients get them that did not ask."""


def stream_of(*events, end="\n\n"):
    """Return server-sent events as bytes."""
    return "".join(f"data: {event}{end}" for event in events).encode()


def answer_with(backend, raw, size, content_type="text/event-stream"):
    """Make an engine answer with these bytes, in pieces of a size."""

    async def reply(request):
        response = web.StreamResponse(headers={"Content-Type": content_type})
        await response.prepare(request)
        for start in range(0, len(raw), size):
            await response.write(raw[start : start + size])
            await asyncio.sleep(0)
        await response.write_eof()
        return response

    backend.reply = reply


@pytest.fixture
async def served(gateway, make_backend):
    backend = await make_backend()
    await gateway.apply(table_of(("a", (backend.endpoint,), 0)))
    return backend


async def read(gateway, body, path=CHAT):
    """Send a request; return the bytes of its answer."""
    raw = body if isinstance(body, bytes) else json.dumps({"model": "a", "stream": True} | body).encode()
    headers = {"Content-Type": "application/json"}
    async with gateway.session.post(f"{gateway.envoy.url}{path}", data=raw, headers=headers) as reply:
        assert reply.status == 200
        return await reply.read()


@pytest.mark.parametrize("end", ["\n\n", "\r\n\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize(
    "usage", [USAGE, USAGE.replace(":", " : ").replace("[]", "[ ]")], ids=["dense", "spaced"]
)
async def test_only_the_usage_is_taken_out_however_the_stream_is_cut(gateway, served, end, usage):
    raw = stream_of(*TOKENS, usage, "[DONE]", end=end)
    for size in (3000, 65536, len(raw)):
        answer_with(served, raw, size)
        assert await read(gateway, {}) == stream_of(*SHOWN, "[DONE]", end=end), size
    short = stream_of(TOKENS[0], usage, TOKENS[1], usage, "[DONE]", end=end)
    for size in (1, 2, 7, 40):
        answer_with(served, short, size)
        assert await read(gateway, {}) == stream_of(TOKENS[0], TOKENS[1], "[DONE]", end=end), size
    assert sum((await gateway.counters()).completion_tokens.values()) == 7 * 2


WITHOUT = {
    "nothing": {},
    "no": {"stream_options": {"include_usage": False}},
    "null": {"stream_options": None},
    "elsewhere": {"metadata": {"include_usage": True}, "include_usage": True},
    "deeper": {"stream_options": {"x": {"include_usage": True}}},
    "in an object of that name": {"x": {"stream_options": {"include_usage": True}}},
    "an object, then true": {"stream_options": {"include_usage": {}}, "x": [True], "y": True},
    "a list": {"stream_options": ["include_usage", True]},
}
WITH = {
    "yes": {"stream_options": {"include_usage": True}},
    "between others": {"stream_options": {"x": [1], "include_usage": True, "y": {"z": False}}, "n": 1},
}


async def test_who_has_asked(gateway, served):
    answer_with(served, stream_of(TOKENS[0], USAGE, "[DONE]"), 10_000)
    for name, fields in WITHOUT.items():
        assert await read(gateway, fields) == stream_of(TOKENS[0], "[DONE]"), name
    for name, fields in WITH.items():
        assert await read(gateway, fields) == stream_of(TOKENS[0], USAGE, "[DONE]"), name
    spaced = b'{ "stream_options" : {"include_usage"\n:\ttrue } , "stream":true,"model":"a"}'
    assert USAGE.encode() in await read(gateway, spaced)


async def test_other_answers_stay_as_they_are(gateway, served):
    raw = stream_of(TOKENS[0], USAGE, "[DONE]")
    answer_with(served, raw, 10)
    assert await read(gateway, {}, "/v1/responses") == raw
    answer_with(served, USAGE.encode(), 10, "application/json")
    assert await read(gateway, {}) == USAGE.encode()


async def test_tokens_of_anthropics_messages_are_counted(gateway, served):
    """The first event has the prompt's tokens, a later one those of the answer."""
    events = (
        {"type": "message_start", "message": {"usage": {"input_tokens": 11, "output_tokens": 0}}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a"}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}},
        {"type": "message_stop"},
    )
    raw = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events).encode()
    answer_with(served, raw, 50)
    assert await read(gateway, {}, "/v1/messages") == raw
    answer_with(served, b'{"usage": {"input_tokens": 7, "output_tokens": 2}}', 50, "application/json")
    await read(gateway, {}, "/v1/messages")
    counters = await gateway.counters()
    assert sum(counters.prompt_tokens.values()) == 11 + 7
    assert sum(counters.completion_tokens.values()) == 5 + 2


CHOICE = '{"index":0,"delta":{"content":"}{\\"usage\\":{}"},"usage":{"of":"a choice"}}'
PLACES = {
    "last": ('{"choices":[%s],"usage":{"a":1}}', '{"choices":[%s]}'),
    "first": ('{"usage":{"a":{"b":[1]}},"choices":[%s]}', '{"choices":[%s]}'),
    "between": ('{"id":"usage","usage":{"a":1},"choices":[%s]}', '{"id":"usage","choices":[%s]}'),
    "spaced": ('{ "choices" : [%s] , "usage" : { "a" : 1 } }', '{ "choices" : [%s]  }'),
    "deeper": ('{"choices":[%s],"x":{"usage":{"a":1}}}', '{"choices":[%s],"x":{"usage":{"a":1}}}'),
    "null": ('{"choices":[%s],"usage":null}', '{"choices":[%s],"usage":null}'),
}


async def test_usage_in_an_event_with_an_answer_is_taken_out_of_it(gateway, served):
    """Mistral's API tells it in the last of them, vLLM with `--enable-force-include-usage` in each."""
    sent, expected = ([pair[side] % CHOICE for pair in PLACES.values()] for side in (0, 1))
    for size in (1, 7, 100_000):
        answer_with(served, stream_of(*sent, "[DONE]"), size)
        assert await read(gateway, {}) == stream_of(*expected, "[DONE]"), size
        assert await read(gateway, WITH["yes"]) == stream_of(*sent, "[DONE]"), size
