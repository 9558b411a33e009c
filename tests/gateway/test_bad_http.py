"""Unusual requests on the level of HTTP, and bodies that only look right."""

import asyncio
import json
import struct

import pytest

from modelyard.core.routing import Route, RoutingTable, Upstream, WeightedTarget
from tests.gateway.conftest import PATIENCE, table_of

CHAT = "/v1/chat/completions"

BROKEN = {
    "missing comma": b'{"model":"a" "b":1}',
    "trailing comma": b'{"model":"a",}',
    "missing value": b'{"model":"a","b":}',
    "missing colon": b'{"model" "a"}',
    "unquoted key": b'{model:"a"}',
    "single quotes": b"{'model':'a'}",
    "comment": b'{"model":"a"/* */}',
    "bad number": b'{"model":"a","n":1.}',
    "no exponent": b'{"model":"a","n":1e}',
    "leading zero": b'{"model":"a","n":01}',
    "only a sign": b'{"model":"a","n":-}',
    "bad literal": b'{"model":"a","n":nil}',
    "literal with a tail": b'{"model":"a","n":trues}',
    "not a number": b'{"model":"a","n":NaN}',
    "mismatched brackets": b'{"model":"a","n":[1}',
    "closed too early": b'{"model":"a"}]',
    "array closed as object": b'{"model":"a","n":{]}',
    "byte order mark": b'\xef\xbb\xbf{"model":"a"}',
    "UTF-16": '{"model":"a"}'.encode("utf-16-le"),
    "only blanks": b" \n\t ",
    "a bare literal": b"null",
    "invalid UTF-8 in the name": b'{"model":"a\xff"}',
    "overlong UTF-8 in the name": b'{"model":"\xc1\xa1"}',
    "raw line break in the name": b'{"model":"a\n"}',
    "half a surrogate pair": b'{"model":"\\ud83d"}',
    "unknown escape": b'{"model":"\\x61"}',
    "short escape": b'{"model":"\\u61"}',
    "escaped key": b'{"mod\\u0065l":"a"}',
    "fully escaped key": b'{"\\u006d\\u006f\\u0064\\u0065\\u006c":"a"}',
    "model as a list": b'{"model":["a"]}',
    "model as a boolean": b'{"model":true}',
    "duplicate far away": b'{"model":"a","x":[{"model":"b"}],"model":"a"}',
}

ODD = "org/a é"
PASSED = {
    "escapes in the name": (b'{"model":"org\\/\\u0061 \\u00e9"}', b'{"model":"served-odd"}'),
    "UTF-8 in the name": ('{"model":"org/a é"}'.encode(), b'{"model":"served-odd"}'),
    "nested keys": (
        b'{"x":{"model":"b","y":[{"model":7}]},"model":"org/a \xc3\xa9"}',
        b'{"x":{"model":"b","y":[{"model":7}]},"model":"served-odd"}',
    ),
    "braces in strings": (
        b'{"s":"}]\\"{\\\\","model":"org/a \xc3\xa9"}',
        b'{"s":"}]\\"{\\\\","model":"served-odd"}',
    ),
    "odd but valid numbers": (
        b'{"n":[-0,0.5e+10,1E-2,-12,0,10,1e9],"model":"org/a \xc3\xa9"}\r\n',
        b'{"n":[-0,0.5e+10,1E-2,-12,0,10,1e9],"model":"served-odd"}\r\n',
    ),
    "literals and empty values": (
        b'{"a":{},"b":[],"c":"","":null,"t":true,"f":[false],"model":"org/a \xc3\xa9"}',
        b'{"a":{},"b":[],"c":"","":null,"t":true,"f":[false],"model":"served-odd"}',
    ),
}


@pytest.fixture
async def served(gateway, make_backend):
    """The models `a`, `b` and one with an odd name."""
    backend = await make_backend()
    table = table_of(("a", (backend.endpoint,), 0), ("b", (backend.endpoint,), 0))
    odd = Route("team/odd", (ODD,), (WeightedTarget("team/odd"),))
    upstreams = {**table.upstreams, "team/odd": Upstream("team/odd", 0, "served-odd", (backend.endpoint,))}
    await gateway.apply(RoutingTable((*table.routes, odd), upstreams, anonymous=True))
    return backend


async def test_broken_bodies_are_refused(gateway, served):
    for name, body in BROKEN.items():
        status, answer, headers = await gateway.post(body)
        assert status == 400, (name, answer)
        assert headers["content-type"] == "application/json", name
        assert answer["error"].keys() == {"message", "type", "param", "code"}, name
    assert served.bodies == []
    # The counter of a route appears with its route, at zero.
    assert (await gateway.counters()).arrivals.get("team/a", 0) == 0


async def test_unusual_bodies_pass_and_keep_their_bytes(gateway, served):
    for name, (body, expected) in PASSED.items():
        assert (await gateway.post(body))[0] == 200, name
        assert served.bodies[-1] == expected, name


async def test_broken_bodies_never_wake_a_sleeping_model(gateway):
    await gateway.apply(table_of(("a", (), 0)))
    for body in BROKEN.values():
        assert (await gateway.post(body))[0] == 400
    assert gateway.wakes == []


async def test_names_cannot_leave_their_header(gateway, served):
    for name in (
        "a\r\nx-evil: 1",
        "a\u0000",
        'a"',
        "a%41",
        "model:a",
        "a\n",
        " a",
        "a ",
        "a" * 1024,
        "é" * 400,
    ):
        status, answer, _ = await gateway.post({"model": name})
        assert (status, answer["error"]["code"]) == (404, "model_not_found"), name
    _, answer, _ = await gateway.post({"model": "é" * 3000})
    # The name is shortened between two characters.
    assert answer["error"]["message"] == f"The model `{'é' * 64}...` does not exist."
    assert served.bodies == []


async def test_other_methods_and_paths(gateway, served):
    for method, path in (
        ("GET", CHAT),
        ("PUT", CHAT),
        ("HEAD", CHAT),
        ("POST", "/v1/models"),
        ("DELETE", "/v1/models/a"),
    ):
        async with gateway.session.request(method, gateway.envoy.url + path) as reply:
            assert reply.status == 405, (method, path)
    for path in (
        "/v1/chat/completions/",
        "//metrics",
        "/v1/../metrics",
        "/v1/chat/completions%2f..%2fx",
        "/",
    ):
        async with gateway.session.post(gateway.envoy.url + path, json={"model": "a"}) as reply:
            assert reply.status in {404, 405}, path
    assert served.bodies == []


async def test_content_types(gateway, served):
    for accepted in ("application/json", "Application/JSON ; charset=UTF-8", "application/json;x=y"):
        assert (await gateway.post({"model": "a"}, headers={"Content-Type": accepted}))[0] == 200, accepted
    for refused in (
        "text/json",
        "application/jsonl",
        "application/x-www-form-urlencoded",
        "x application/json",
    ):
        status, answer, _ = await gateway.post({"model": "a"}, headers={"Content-Type": refused})
        assert (status, answer["error"]["code"]) == (415, "unsupported_media_type"), refused


async def test_a_chunked_body(gateway, served):
    async def pieces():
        for piece in (b'{"mo', b'del":"', b'a"', b"}"):
            yield piece

    headers = {"Content-Type": "application/json"}
    async with gateway.session.post(gateway.envoy.url + CHAT, data=pieces(), headers=headers) as reply:
        assert reply.status == 200
    assert served.bodies == [b'{"model":"served-a"}']


@pytest.mark.parametrize("path", [CHAT + "#f", CHAT + "%00"], ids=["fragment", "nul"])
async def test_a_path_that_cannot_be_is_the_clients_fault(gateway, served, path):
    """Envoy refuses it before any filter has seen it, and without a route."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.settings.listener_port)
    body = b'{"model": "a"}'
    head = f"POST {path} HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\ncontent-type: application/json\r\n"
    writer.write(head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body)
    answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 400 "), answer
    assert served.bodies == []


async def test_the_clients_key_stays_in_the_gateway(gateway, served):
    await gateway.post({"model": "a"}, headers={"Authorization": "Bearer secret", "X-Api-Key": "secret"})
    assert len(served.headers) == 1
    assert "secret" not in json.dumps(served.headers)


async def test_an_http2_client(gateway, served):
    """Frames of RFC 9113 by hand: headers are literals without indexing (RFC 7541, section 6.2.2)."""
    body = b'{"model":"a"}'
    fields = {
        b":method": b"POST",
        b":scheme": b"http",
        b":path": CHAT.encode(),
        b":authority": b"gateway",
        b"content-type": b"application/json",
        b"x-modelyard-route": b"model:b",
    }
    block = b"".join(
        b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value for name, value in fields.items()
    )

    def frame(kind, flags, stream, payload=b""):
        return (
            struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload
        )

    data, headers, settings = 0x0, 0x1, 0x4
    end_headers, end_stream = 0x4, 0x1
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.settings.listener_port)
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(settings, 0, 0))
    writer.write(frame(headers, end_headers, 1, block) + frame(data, end_stream, 1, body))
    received = b""
    async with asyncio.timeout(PATIENCE):
        while True:
            head = await reader.readexactly(9)
            payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
            if head[3] == data:
                received += payload
                if head[4] & end_stream:
                    break
    writer.close()
    await writer.wait_closed()
    assert json.loads(received)["model"] == "served-a"
