"""Long bodies are read piece by piece: wherever a piece ends, a body reaches the engine as it was sent."""

import asyncio
import json
from dataclasses import replace

import pytest

from modelyard.core.routing import Upstream
from tests.gateway.conftest import table_of
from tests.gateway.test_fallback import two  # noqa: F401  (a fixture)
from tests.gateway.test_providers import engine, table_to

WINDOW, MARGIN = 65_536, 8_192
"""As in lua/json.lua: bytes of a piece, and how many are left when the next one is read."""

TAIL = rb'\\\"\\", "n" : -1.5e3 , "t":true,"nested":{"model":"x","l":[1,22,{"a":null}]},"stream":false, "model" : "a" }'
MEGABYTES_20 = 20_000_000


@pytest.mark.parametrize("end", [WINDOW - MARGIN, WINDOW, 2 * WINDOW - MARGIN])
async def test_a_piece_may_end_anywhere(gateway, make_backend, end):
    backend = await make_backend()
    await gateway.apply(table_of(("a", (backend.endpoint,), 0)))
    start = b'{"p":"'
    for inside in range(-4, len(TAIL) + 4):
        # The end of the piece falls on this byte of the tail.
        sent = start + b"x" * (end - inside - len(start)) + TAIL
        json.loads(sent)
        assert (await gateway.post(sent))[0] == 200, inside
        assert backend.bodies.pop() == sent.replace(b'"model" : "a"', b'"model" : "served-a"')


@pytest.mark.parametrize("slashes", [WINDOW - 6, WINDOW - 4, 3 * WINDOW])
@pytest.mark.parametrize("key", [b"p", b"pp"])
async def test_backslashes_across_pieces_are_counted(gateway, make_backend, key, slashes):
    backend = await make_backend()
    await gateway.apply(table_of(("a", (backend.endpoint,), 0)))
    start, end = b'{"' + key + b'":"', b'","model":"a"}'
    sent = start + b"\\" * slashes + end
    assert (await gateway.post(sent))[0] == 200
    assert backend.bodies == [sent.replace(b':"a"', b':"served-a"')]
    # With one more the quote belongs to the text, and the text does not end.
    assert (await gateway.post(start + b"\\" * (slashes + 1) + end))[0] == 400


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"model":"a"}' + b" " * 3 * WINDOW, 200),
        (b" " * 3 * WINDOW + b'{"model":"a"}', 200),
        (b'{"model":"a"}' + b" " * 3 * WINDOW + b"x", 400),
        (b'{"model":"a","p":"' + b"x" * 3 * WINDOW, 400),
        (b'{"model":"a","p":[' + b"1," * WINDOW + b"]}", 400),
        (b'{"model":"a","p":[' + b"1," * WINDOW + b"1]}", 200),
        (b'{"' + b"k" * 3 * WINDOW + b'":1,"model":"a"}', 200),
        (b'{"model":"' + b"m" * 2 * WINDOW + b'"}', 404),
        (b'{"model":"a","p":"' + b"x" * WINDOW + b'","model":"a"}', 400),
    ],
    ids=[
        "spaces after",
        "spaces before",
        "not the end",
        "no end",
        "bad list",
        "list",
        "long key",
        "long name",
        "twice",
    ],
)
async def test_long_bodies_are_judged_as_short_ones(gateway, make_backend, body, status):
    backend = await make_backend()
    await gateway.apply(table_of(("a", (backend.endpoint,), 0)))
    assert (await gateway.post(body))[0] == status
    assert len(backend.bodies) == (status == 200)


async def test_20_mb_reach_every_target_that_is_tried(gateway, two, make_backend):  # noqa: F811
    (first, one), (second, _) = two
    first.status = 503
    busy, good = await make_backend(status=429), await make_backend()
    await gateway.apply(table_to(engine(busy, name="busy", model="served-busy"), one, engine(good)))
    sent = json.dumps(
        {"messages": [{"role": "user", "content": "x" * MEGABYTES_20}], "model": "chat"}
    ).encode()
    assert (await gateway.post(sent))[0] == 200
    assert busy.bodies == [sent.replace(b'"chat"', b'"served-busy"')]
    assert [request.body for request in first.received] == [
        sent.replace(b'"chat"', b'"a-rather-long-model-name"')
    ]
    assert good.bodies == [sent.replace(b'"chat"', b'"served-own"')]
    assert second.received == []


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b'{"p":"%s","model":"chat","stream":true}', b'{"stream_options":{"include_usage":true},"p":"%s",'),
        (
            b'{"stream":true,"model":"chat","p":"%s","stream_options":{ }}',
            b'"p":"%s","stream_options":{"include_usage":true }}',
        ),
    ],
)
async def test_a_long_stream_is_asked_for_its_usage(gateway, two, sent, expected):  # noqa: F811
    (provider, one), _ = two
    await gateway.apply(table_to(one))
    text = b"x" * 3 * WINDOW
    assert (await gateway.post(sent % text))[0] == 200
    (request,) = provider.received
    assert expected % text in request.body
    assert json.loads(request.body) == {
        **json.loads(sent % text),
        "model": "a-rather-long-model-name",
        "stream_options": {"include_usage": True},
    }


async def test_20_mb_wait_for_a_sleeping_model(gateway, make_backend):
    backend = await make_backend()
    await gateway.apply(table_of(("a", (), 0)))
    sent = json.dumps({"model": "a", "prompt": "x" * MEGABYTES_20}).encode()
    held = asyncio.create_task(gateway.post(sent, path="/v1/completions"))
    await gateway.wait_waiting({"team/a": 1})
    await gateway.apply(table_of(("a", (backend.endpoint,), 0)))
    assert (await held)[0] == 200
    assert backend.bodies == [sent.replace(b'"model": "a"', b'"model": "served-a"')]


async def test_a_body_in_chunks_is_announced_whole_also_where_nothing_is_rewritten(gateway, make_backend):
    backend = await make_backend()
    table = table_of(("a", (backend.endpoint,), 0))
    for served in (b"a", b"served-a"):
        upstream = Upstream("team/a", 0, served.decode(), (backend.endpoint,))
        await gateway.apply(replace(table, upstreams={"team/a": upstream}))

        async def pieces():
            for piece in (b'{"messages":[', b'"' + b"x" * 100_000 + b'"', b'],"model":"a"}'):
                yield piece

        url = f"{gateway.envoy.url}/v1/chat/completions"
        headers = {"Content-Type": "application/json"}
        async with gateway.session.post(url, data=pieces(), headers=headers) as reply:
            assert reply.status == 200
        expected = b'{"messages":["' + b"x" * 100_000 + b'"],"model":"' + served + b'"}'
        assert backend.bodies.pop() == expected
        sent = backend.headers.pop()
        assert (sent["content-length"], sent.get("transfer-encoding")) == (str(len(expected)), None)
