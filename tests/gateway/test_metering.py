"""What is counted of tenants, cached tokens and answers that end too early."""

import asyncio
import json
import math

import pytest
from aiohttp import web

from modelyard.core.spend import OTHER_TENANTS
from modelyard.gateway.counters import Answered
from modelyard.render.envoy import listener, scripts
from modelyard.render.envoy.names import TENANT_HEADER
from tests.gateway.conftest import PATIENCE, USAGE, table_of, until
from tests.gateway.test_usage_events import answer_with, read, stream_of

A = Answered("team/a", "a", "team/a")


@pytest.fixture
async def served(gateway, make_backend):
    backend = await make_backend()
    await gateway.apply(table_of(("a", (backend.endpoint,), 0)))
    return backend


@pytest.fixture
def trusted_header(monkeypatch):
    """A gateway that takes the tenant from the client, as where the key has been checked."""
    monkeypatch.setattr(listener, "INTERNAL_HEADERS", "x-nobody-.*")


def answer(backend, usage):
    answer_with(backend, json.dumps({"usage": usage}).encode(), 1000, "application/json")


async def test_each_tenant_has_counters_of_its_own(trusted_header, gateway, served):
    for tenant in ("blue", "green.team", "blue"):
        assert (await gateway.post({"model": "a"}, headers={TENANT_HEADER: tenant}))[0] == 200
    assert (await gateway.post({"model": "a"}))[0] == 200
    counters = await gateway.counters()
    expected = {"blue": 2, "green.team": 1, "": 1}
    assert counters.requests == {
        (Answered("team/a", "a", "team/a", tenant), "2xx"): count for tenant, count in expected.items()
    }
    assert counters.prompt_tokens == {
        Answered("team/a", "a", "team/a", tenant): count * USAGE["prompt_tokens"]
        for tenant, count in expected.items()
    }


async def test_what_a_client_says_becomes_no_label(gateway, served):
    headers = {TENANT_HEADER: "somebody", "x-modelyard-metadata": "x"}
    assert (await gateway.post({"model": "a"}, headers=headers))[0] == 200
    for model in ("unknown", "unknown/too"):
        assert (await gateway.post({"model": model}, headers=headers))[0] == 404
    counters = await gateway.counters()
    assert counters.requests == {(A, "2xx"): 1, (Answered("", "", ""), "4xx"): 2}


@pytest.fixture
def bound(monkeypatch):
    """A gateway in which few pairs of a tenant and a route have counters of their own."""
    script = scripts.request_scan()
    assert "MAX_PAIRS = 10000" in script
    monkeypatch.setattr(
        scripts, "request_scan", lambda: script.replace("MAX_PAIRS = 10000", "MAX_PAIRS = 30")
    )
    return 30


async def test_pairs_beyond_the_bound_are_counted_together(
    bound, trusted_header, gateway, served, make_backend
):
    """Of 20 tenants and two models, 29 pairs have counters of their own. Names that no model has are one pair."""
    other = await make_backend()
    await gateway.apply(table_of(("a", (served.endpoint,), 0), ("b", (other.endpoint,), 0)))
    for number in range(40):
        headers = {TENANT_HEADER: "noisy"}
        assert (await gateway.post({"model": f"unknown-{number}"}, headers=headers))[0] == 404
    for _ in range(2):
        for model in "ab":
            for number in range(20):
                headers = {TENANT_HEADER: f"t{number}"}
                assert (await gateway.post({"model": model}, headers=headers))[0] == 200
    counters = await gateway.counters()
    counted = {(key.model, key.tenant): value for key, value in counters.prompt_tokens.items()}
    each = 2 * USAGE["prompt_tokens"]
    assert counted.pop(("b", OTHER_TENANTS)) == 11 * each
    assert counted == dict.fromkeys(
        [("a", f"t{number}") for number in range(20)] + [("b", f"t{number}") for number in range(9)], each
    )
    assert len(counted) == bound - 1
    assert counters.requests[Answered("", "", "", "noisy"), "4xx"] == 40


@pytest.mark.parametrize(
    ("usage", "prompt", "cached", "completion"),
    [
        (
            {"prompt_tokens": 10, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}},
            10,
            4,
            2,
        ),
        ({"prompt_tokens": 10, "completion_tokens": 2, "prompt_tokens_details": None}, 10, 0, 2),
        (
            {"prompt_tokens": 10, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": None}},
            10,
            0,
            2,
        ),
        ({"prompt_tokens": 10, "total_tokens": 10}, 10, 0, 0),
        ({"input_tokens": 10, "output_tokens": 2, "input_tokens_details": {"cached_tokens": 4}}, 10, 4, 2),
        # Anthropic's: what came from the cache, and what went into it, stands beside the input.
        (
            {
                "input_tokens": 10,
                "output_tokens": 2,
                "cache_read_input_tokens": 4,
                "cache_creation_input_tokens": 3,
            },
            17,
            4,
            2,
        ),
    ],
    ids=["chat", "no details", "no number", "embeddings", "responses", "messages"],
)
async def test_cached_tokens(gateway, served, usage, prompt, cached, completion):
    answer(served, usage)
    await read(gateway, {"stream": False})
    counters = await gateway.counters()
    assert sum(counters.prompt_tokens.values()) == prompt
    assert sum(counters.cached_tokens.values()) == cached
    assert sum(counters.completion_tokens.values()) == completion
    assert not counters.estimated_requests
    assert "stat" not in (gateway.folder / "envoy-1.log").read_text(errors="replace").lower().replace(
        "stats_port", ""
    )


async def test_cached_tokens_of_streams(gateway, served):
    usage = {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 5}}
    answer_with(served, stream_of(json.dumps({"choices": [], "usage": usage}), "[DONE]"), 1000)
    await read(gateway, {})
    response = {"response": {"usage": {"input_tokens": 8, "input_tokens_details": {"cached_tokens": 3}}}}
    answer_with(served, stream_of(json.dumps(response)), 1000)
    await read(gateway, {}, "/v1/responses")
    counters = await gateway.counters()
    assert counters.prompt_tokens == {A: 17}
    assert counters.cached_tokens == {A: 8}


TOKEN = {"choices": [{"index": 0, "delta": {"content": " word"}, "finish_reason": None}]}


def endless(backend, sent):
    """Make an engine send one token after the other until it is left; `sent` gets the number of tokens."""

    async def reply(request):
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        sent.append(0)
        try:
            while True:
                await response.write(stream_of(json.dumps(TOKEN)))
                sent[-1] += 1
                await asyncio.sleep(0.005)
        except (ConnectionError, asyncio.CancelledError):
            pass
        return response

    backend.reply = reply


@pytest.mark.parametrize("asks", [False, True], ids=["usage hidden", "usage asked for"])
@pytest.mark.parametrize("tokens", [3, 100])
async def test_a_client_that_leaves_in_the_middle_is_charged_by_estimate(gateway, served, tokens, asks):
    endless(served, sent := [])
    text = "What the weather will be like tomorrow. " * 50
    body = {"model": "a", "stream": True, "messages": [{"role": "user", "content": text}]}
    if asks:
        body["stream_options"] = {"include_usage": True}
    raw = json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    async with gateway.session.post(
        f"{gateway.envoy.url}/v1/chat/completions", data=raw, headers=headers
    ) as reply:
        received = 0
        while received < tokens:
            received += (await reply.content.readline()).startswith(b"data:")
    async with asyncio.timeout(PATIENCE):
        while not (counters := await gateway.counters()).estimated_requests:
            await asyncio.sleep(0.02)
    assert counters.estimated_requests == {A: 1}
    assert counters.estimated_prompt_tokens == {A: math.ceil(len(raw) / 4)}
    # Below by less than eight, as the number is noted every eighth event; what was on the way is charged too.
    counted = counters.estimated_completion_tokens[A]
    assert received - 8 < counted <= sent[0] + 1
    assert counters.requests == {(A, "2xx"): 1}
    assert counters.prompt_tokens == counters.completion_tokens == {}


async def test_an_engine_that_dies_in_the_middle_is_charged_by_estimate(gateway, served):
    async def reply(request):
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(stream_of(*[json.dumps(TOKEN)] * 20))
        request.transport.abort()
        return response

    served.reply = reply
    with pytest.raises(Exception, match=r"(?i)payload|disconnect|peer"):
        await read(gateway, {})
    counters = await gateway.counters()
    assert counters.estimated_requests == {A: 1}
    assert counters.estimated_completion_tokens[A] == 20


async def test_images_are_not_charged_as_text(gateway, served):
    endless(served, sent := [])
    image = "data:image/png;base64," + "A" * 400_000
    parts = [{"type": "text", "text": "x" * 400}, {"type": "image_url", "image_url": {"url": image}}]
    body = {"model": "a", "stream": True, "messages": [{"role": "user", "content": parts}]}
    async with gateway.session.post(f"{gateway.envoy.url}/v1/chat/completions", json=body) as reply:
        await reply.content.readline()
    await until(lambda: sent)
    async with asyncio.timeout(PATIENCE):
        while not (counters := await gateway.counters()).estimated_prompt_tokens:
            await asyncio.sleep(0.02)
    assert 100 < counters.estimated_prompt_tokens[A] < 200


async def test_what_was_refused_or_held_costs_nothing(gateway, served, make_backend):
    failing = await make_backend(status=400)
    table = table_of(("a", (served.endpoint,), 0), ("b", (failing.endpoint,), 0), ("c", (), 0))
    await gateway.apply(table)
    assert (await gateway.post({"model": "b"}))[0] == 400
    assert (await gateway.post({"model": "unknown"}))[0] == 404
    held = asyncio.create_task(gateway.post({"model": "c"}))
    await gateway.wait_waiting({"team/c": 1})
    held.cancel()
    async with asyncio.timeout(PATIENCE):
        while len((counters := await gateway.counters()).requests) < 3:
            await asyncio.sleep(0.02)
    assert {key.deployment for key in counters.estimated_requests} <= {""}, "no target, so nothing is charged"


async def test_the_age_of_the_process_is_read_with_its_counters(gateway):
    assert (await gateway.counters()).uptime is not None
