"""Where requests go, and what reaches the engine."""

import asyncio
import json
from dataclasses import replace

import pytest

from modelyard.core.routing import Endpoint, Route, RoutingTable, Upstream, WeightedTarget
from tests.gateway.conftest import PATIENCE, table_of


def chat(model, **extra):
    return {"model": model, "messages": [{"role": "user", "content": "hi"}], **extra}


async def test_the_body_decides_and_the_model_name_is_rewritten(gateway, make_backend):
    first, second = await make_backend(), await make_backend()
    await gateway.apply(table_of(("a", (first.endpoint,), 0), ("b", (second.endpoint,), 0)))
    status, body, _ = await gateway.post(chat("a"))
    assert (status, body["model"]) == (200, "served-a")
    status, body, _ = await gateway.post(chat("team/b"))
    assert (status, body["model"]) == (200, "served-b")
    assert (len(first.bodies), len(second.bodies)) == (1, 1)


async def test_everything_but_the_model_name_stays_byte_for_byte(gateway, make_backend):
    backend = await make_backend()
    await gateway.apply(table_of(("a", (backend.endpoint,), 0)))
    sent = (
        b'{ "z":1,\t"messages":[{"model":"nested","content":"\\u00e9 \\"model\\": \\"x\\""}] , '
        b'"n": 9223372036854775807,"model" : "a","tools":{"b":1,"a":{"model":"deep"}} }'
    )
    assert (await gateway.post(sent))[0] == 200
    assert backend.bodies == [sent.replace(b'"model" : "a"', b'"model" : "served-a"')]
    assert backend.headers[0]["content-length"] == str(len(backend.bodies[0]))


async def test_a_failed_host_is_avoided(gateway, make_backend):
    good, bad = await make_backend(), await make_backend(status=503)
    dead = Endpoint("127.0.0.1", 1)
    await gateway.apply(table_of(("a", (good.endpoint, bad.endpoint, dead), 0)))
    statuses = [(await gateway.post(chat("a")))[0] for _ in range(30)]
    assert statuses == [200] * 30
    assert bad.bodies, "the failing host was tried"


async def test_weights_split_requests(gateway, make_backend):
    one, two = await make_backend(), await make_backend()
    upstreams = {
        "team/a": Upstream("team/a", 0, "a", (one.endpoint,)),
        "team/b": Upstream("team/b", 0, "b", (two.endpoint,)),
    }
    targets = (WeightedTarget("team/a", 3), WeightedTarget("team/b", 1))
    await gateway.apply(RoutingTable((Route("team/r@route", ("both",), targets),), upstreams, anonymous=True))
    for _ in range(200):
        assert (await gateway.post(chat("both")))[0] == 200
    assert len(one.bodies) + len(two.bodies) == 200
    # 150 expected; five standard deviations of a binomial (6.1) either way.
    assert 119 <= len(one.bodies) <= 181


async def test_faster_pods_get_more_requests(gateway, make_backend):
    slow, fast = await make_backend(), await make_backend()
    endpoints = (slow.endpoint, replace(fast.endpoint, weight=5))
    await gateway.apply(table_of(("a", endpoints, 0)))
    for _ in range(120):
        assert (await gateway.post(chat("a")))[0] == 200
    # One at a time, Envoy goes round by weight: 20 and 100.
    assert (len(slow.bodies), len(fast.bodies)) == (pytest.approx(20, abs=2), pytest.approx(100, abs=2))


async def test_streams_pass_unbuffered_and_are_counted(gateway, make_backend):
    backend = await make_backend()
    await gateway.apply(table_of(("a", (backend.endpoint,), 0)))
    url = f"{gateway.envoy.url}/v1/chat/completions"
    async with gateway.session.post(url, json=chat("a", stream=True)) as reply:
        first = await reply.content.readline()
        assert b'"content":"a"' in first, "the first event comes while the engine still works"
        backend.release.set()
        rest = await reply.content.read()
    assert rest.endswith(b"data: [DONE]\n\n")
    counters = await gateway.counters()
    assert {key.deployment: value for key, value in counters.completion_tokens.items()} == {"team/a": 2}
    assert {key.deployment: value for key, value in counters.prompt_tokens.items()} == {"team/a": 3}
    assert {(key.route, code): value for (key, code), value in counters.requests.items()} == {
        ("team/a", "2xx"): 1
    }


async def test_bodies_of_20_mb_pass(gateway, make_backend):
    backend = await make_backend()
    await gateway.apply(table_of(("a", (backend.endpoint,), 0)))
    body = chat("a", messages=[{"role": "user", "content": "x" * 20_000_000}])
    assert (await gateway.post(body))[0] == 200
    assert json.loads(backend.bodies[0])["messages"] == body["messages"]


async def test_models_are_listed_also_while_they_sleep(gateway, make_backend):
    backend = await make_backend()
    await gateway.apply(table_of(("awake", (backend.endpoint,), 0), ("asleep", (), 0)))
    async with gateway.session.get(f"{gateway.envoy.url}/v1/models") as reply:
        listed = {item["id"] for item in (await reply.json())["data"]}
    assert {"awake", "asleep"} <= listed
    async with gateway.session.get(f"{gateway.envoy.url}/v1/models/asleep") as reply:
        assert (reply.status, (await reply.json())["id"]) == (200, "asleep")
    assert gateway.wakes == []


async def test_without_tenants_everything_is_401(gateway, make_backend):
    backend = await make_backend()
    table = table_of(("a", (backend.endpoint,), 0))
    await gateway.apply(RoutingTable(table.routes, table.upstreams, anonymous=False))
    status, body, _ = await gateway.post(chat("a"))
    assert (status, body["error"]["code"]) == (401, "invalid_api_key")
    assert backend.bodies == []


async def test_a_refused_model_says_why(gateway):
    await gateway.apply(table_of(("a", (), 0), refusal="model a is suspended"))
    status, body, _ = await gateway.post(chat("a"))
    assert (status, body["error"]["message"]) == (503, "model a is suspended")
    assert gateway.wakes == []


async def test_internal_headers_of_clients_never_matter(gateway, make_backend):
    backend, other = await make_backend(), await make_backend()
    await gateway.apply(table_of(("a", (backend.endpoint,), 0), ("b", (other.endpoint,), 0)))
    headers = {
        "x-modelyard-route": "model:b",
        "x-modelyard-served-model": "stolen",
        "x-gateway-destination-endpoint": "127.0.0.1:1",
        "x-envoy-upstream-rq-timeout-ms": "1",
    }
    status, body, _ = await gateway.post(chat("a"), headers=headers)
    assert (status, body["model"]) == (200, "served-a")
    assert other.bodies == []
    assert not headers.keys() & backend.headers[0].keys()


async def test_a_second_envoy_gets_the_same(gateway, make_backend, tmp_path):
    from dev.envoy.process import EnvoyProcess

    backend = await make_backend()
    await gateway.apply(table_of(("a", (backend.endpoint,), 0)))
    second = EnvoyProcess(tmp_path, gateway.xds_port, gateway.settings.listener_port, node_id="envoy-2")
    async with second:
        assert {node.connected for node in gateway.server.nodes.values()} == {True}
        await gateway.envoy.stop()
        async with asyncio.timeout(PATIENCE):
            assert (await gateway.post(chat("a")))[0] == 200
