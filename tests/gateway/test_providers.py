"""What leaves the cluster, and what does not: providers behind TLS, byte for byte."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from dev.cluster.certificates import CertificateAuthority
from dev.envoy.process import EnvoyProcess
from modelyard.core.routing import ExternalUpstream, Route, RoutingTable, Upstream, WeightedTarget
from modelyard.gateway import ads
from tests.gateway.conftest import PATIENCE
from tests.gateway.tls import USAGE, Received, TlsProvider, tls_provider

KEY = "sk-provider-0123456789abcdefABCDEF"


@pytest.fixture
async def provider(tmp_path) -> AsyncIterator[TlsProvider]:
    async with tls_provider(tmp_path / "ca") as started:
        yield started


def external(
    provider: TlsProvider, name: str = "acme", model: str = "acme/large-4.1", **changes: Any
) -> ExternalUpstream:
    upstream = ExternalUpstream(
        name,
        model,
        "localhost",
        provider.port,
        "/proxy/v1beta/openai",
        keyed=True,
        trust=provider.certificate,
    )
    return replace(upstream, **changes)


def table_to(*targets: Upstream | ExternalUpstream, **route: Any) -> RoutingTable:
    """A table with one route, `chat`, to these targets in their order."""
    upstreams = {item.deployment: item for item in targets if isinstance(item, Upstream)}
    externals = {item.cluster: item for item in targets if isinstance(item, ExternalUpstream)}
    keys = [item.deployment if isinstance(item, Upstream) else item.cluster for item in targets]
    weighted = tuple(WeightedTarget(key) for key in keys)
    routes = (Route("team/chat@route", targets=weighted, **{"models": ("chat",), "priority": True, **route}),)
    return RoutingTable(routes, upstreams, externals, anonymous=True)


def engine(*backends: Any, name: str = "own", model: str = "served-own") -> Upstream:
    return Upstream(f"team/{name}", 0, model, tuple(sorted(backend.endpoint for backend in backends)))


async def test_what_a_provider_gets_byte_for_byte(gateway, provider):
    gateway.keys = {"acme": KEY}
    await gateway.apply(table_to(external(provider)))
    sent = (
        b'{ "z":1,\t"messages":[{"model":"nested","content":"\\u00e9 \\"model\\": \\"x\\""}] , '
        b'"n": 9223372036854775807,"model" : "chat","tools":{"b":1,"a":{"model":"deep"}} }'
    )
    headers = {
        "Authorization": "Bearer sk-of-the-client",
        "X-Api-Key": "of-the-client",
        "Api-Key": "of-the-client",
        "Cookie": "session=1",
        "OpenAI-Organization": "org-of-the-client",
        "X-Forwarded-For": "192.0.2.7",
        "Forwarded": "for=192.0.2.7",
        "X-Modelyard-Authority": "elsewhere.example",
        "X-Modelyard-Path": "/elsewhere",
        "Accept": "application/json",
        "User-Agent": "the-client/1.0",
    }
    status, body, _ = await gateway.post(
        sent, headers=headers, path="/v1/chat/completions?api_key=of-the-client"
    )
    assert (status, body["model"]) == (200, "acme/large-4.1")
    (request,) = provider.received
    assert request.body == sent.replace(b'"model" : "chat"', b'"model" : "acme/large-4.1"')
    assert request.line == "POST /proxy/v1beta/openai/chat/completions HTTP/1.1"
    assert request.server_name == "localhost"
    request_id = request.headers["x-request-id"]
    assert request.headers == {
        "host": f"localhost:{provider.port}",
        "accept": "application/json",
        "authorization": f"Bearer {KEY}",
        "content-type": "application/json",
        "content-length": str(len(request.body)),
        "user-agent": "modelyard",
        "x-request-id": request_id,
    }
    assert len(request_id) == 36, "made by the gateway"
    assert b"client" not in request.raw + request.body


async def test_tokens_of_a_provider_are_counted_under_its_name(gateway, provider):
    gateway.keys = {"acme": KEY}
    await gateway.apply(table_to(external(provider)))
    assert (await gateway.post({"model": "chat"}))[0] == 200
    counters = await gateway.counters()
    assert counters.arrivals == {"team/chat@route": 1}
    assert {
        (key.route, key.model, key.deployment): value for key, value in counters.completion_tokens.items()
    } == {("team/chat@route", "chat", "provider:acme/acme/large-4.1"): 2}


async def test_what_a_client_gets_of_a_providers_answer(gateway, provider):
    gateway.keys = {"acme": KEY}
    provider.headers = (
        ("set-cookie", "__cf_bm=1; domain=.acme.example"),
        ("openai-organization", "org-of-the-platform"),
        ("alt-svc", 'h3=":443"'),
        ("strict-transport-security", "max-age=1"),
        ("retry-after", "7"),
    )
    await gateway.apply(table_to(external(provider)))
    status, _, headers = await gateway.post({"model": "chat"})
    assert status == 200
    assert headers.keys() == {
        "content-type",
        "content-length",
        "date",
        "retry-after",
        "server",
        "x-request-id",
    }
    assert (headers["retry-after"], headers["server"]) == ("7", "envoy")


async def test_a_providers_error_passes_with_its_body(gateway, provider):
    gateway.keys = {"acme": KEY}
    provider.status = 429
    provider.headers = (("retry-after", "20"),)
    await gateway.apply(table_to(external(provider)))
    status, body, headers = await gateway.post({"model": "chat"})
    assert (status, body) == (429, {"error": {"message": "refused by provider"}})
    assert headers["retry-after"] == "20"
    assert len(provider.received) == 1, "who says when to come back is not asked again at once"


async def test_streams_of_a_provider_pass_unbuffered_and_are_counted(gateway, provider):
    gateway.keys = {"acme": KEY}
    release = asyncio.Event()

    async def stream(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        write_chunk(writer, b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n')
        await writer.drain()
        await release.wait()
        usage = json.dumps({"choices": [], "usage": USAGE}).encode()
        write_chunk(writer, b"data: " + usage + b"\n\ndata: [DONE]\n\n")
        writer.write(b"0\r\n\r\n")

    provider.respond = stream
    await gateway.apply(table_to(external(provider)))
    url = f"{gateway.envoy.url}/v1/chat/completions"
    async with gateway.session.post(url, json={"model": "chat", "stream": True}) as reply:
        first = await reply.content.readline()
        assert b'"content":"a"' in first, "the first event comes while the provider still works"
        release.set()
        assert (await reply.content.read()).endswith(b"data: [DONE]\n\n")
    assert list((await gateway.counters()).completion_tokens.values()) == [2]


def write_chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")


async def test_a_chunked_request_leaves_with_its_length(gateway, provider):
    gateway.keys = {"acme": KEY}
    await gateway.apply(table_to(external(provider)))

    async def parts() -> AsyncIterator[bytes]:
        yield b'{"model":'
        yield b'"chat"}'

    headers = {"Content-Type": "application/json"}
    url = f"{gateway.envoy.url}/v1/chat/completions"
    async with gateway.session.post(url, data=parts(), headers=headers) as reply:
        assert reply.status == 200
    (request,) = provider.received
    assert request.body == b'{"model":"acme/large-4.1"}'
    assert request.headers["content-length"] == str(len(request.body))
    assert "transfer-encoding" not in request.headers


@pytest.mark.parametrize("wrong", ["authority", "name", "public authorities"])
async def test_a_server_that_is_not_the_provider_gets_no_byte_of_a_request(
    gateway, provider, tmp_path, wrong
):
    gateway.keys = {"acme": KEY}
    other = CertificateAuthority(tmp_path / "other")
    async with tls_provider(tmp_path / "imposter", names=("imposter.example",)) as imposter:
        target = {
            "authority": external(provider, trust=other.certificate.read_text()),
            "name": external(imposter),
            "public authorities": external(provider, trust=None),
        }[wrong]
        await gateway.apply(table_to(target))
        status, body, _ = await gateway.post({"model": "chat"})
        assert (status, body["error"]["code"]) == (503, "model_unavailable")
        assert provider.received == imposter.received == []
        assert provider.handshakes + imposter.handshakes > 0, "it was tried"


async def test_a_new_key_is_used_without_a_new_connection_or_table(gateway, provider):
    gateway.keys = {"acme": KEY}
    table = table_to(external(provider))
    await gateway.apply(table)
    assert (await gateway.post({"model": "chat"}))[0] == 200
    gateway.keys = {"acme": "sk-renewed"}
    await gateway.apply(table)
    # Envoy's workers take a new secret in after its main thread has acknowledged it.
    async with asyncio.timeout(PATIENCE):
        while provider.received[-1].headers["authorization"] != "Bearer sk-renewed":
            assert (await gateway.post({"model": "chat"}))[0] == 200
    assert provider.handshakes == 1


async def test_a_provider_without_a_key_gets_none(gateway, provider):
    await gateway.apply(table_to(external(provider, keyed=False)))
    assert (await gateway.post({"model": "chat"}, headers={"Authorization": "Bearer of-the-client"}))[
        0
    ] == 200
    assert "authorization" not in provider.received[0].headers


async def test_keys_stay_out_of_everything_that_envoy_shows_or_writes(gateway, provider):
    gateway.keys = {"acme": KEY}
    await gateway.apply(table_to(external(provider)))
    assert (await gateway.post({"model": "chat"}))[0] == 200
    shown = []
    for page in ("config_dump?include_eds", "stats/prometheus", "clusters", "certs", "init_dump"):
        async with gateway.session.get(f"http://127.0.0.1:{gateway.envoy.admin_port}/{page}") as reply:
            assert reply.status == 200, page
            shown.append(await reply.text())
    assert any("provider-key:acme" in text for text in shown), "the secret itself is listed"
    shown += [path.read_text(errors="replace") for path in gateway.folder.rglob("*") if path.is_file()]
    shown += [repr(gateway.server._resources), repr(gateway.table)]
    encoded = base64.b64encode(KEY.encode()).decode()
    assert [text for text in shown if KEY in text or encoded in text] == []


async def test_no_key_goes_over_a_connection_that_others_can_read(gateway, provider, monkeypatch):
    monkeypatch.setattr(ads, "_is_loopback", lambda address: False)
    gateway.keys = {"acme": KEY}
    await gateway.envoy.stop()
    gateway.envoy = EnvoyProcess(
        gateway.folder, gateway.xds_port, gateway.settings.listener_port, node_id="envoy-2"
    )
    gateway.offer(table_to(external(provider)))
    await gateway.envoy.start()
    # A cluster whose secret does not come opens after Envoy's own limit of 15 s.
    await gateway.envoy.wait_ready(40)
    assert gateway.server.plain is True
    try:
        status, body, _ = await gateway.post({"model": "chat"})
    finally:
        await gateway.envoy.stop()
    assert (status, body["error"]["code"]) == (503, "model_unavailable")
    assert provider.received == []
